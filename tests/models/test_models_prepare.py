"""The default model, from its wheel to the file that an engine loads, with the real quantiser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshslm.engine.gguf import read_header
from meshslm.models.model_library import ModelLibrary
from meshslm.models.prepare import prepared_size
from tests.models.small_models import Reports

pytestmark = pytest.mark.model


@pytest.fixture
def original(model_path: Path) -> Path:
    """The default model as it was published."""
    library = ModelLibrary(model_path.parents[1], environment=os.environ)
    stored = library.store.find(library.catalogue.default.name)
    if stored is None:
        pytest.skip("MESHSLM_TEST_MODEL names a file that is in no store")
    return library.store.path(stored.original)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[ModelLibrary]:
    """An empty one, which is not kept: it grows to hundreds of megabytes."""
    yield ModelLibrary(tmp_path / "store", environment=os.environ)
    shutil.rmtree(tmp_path / "store")


def test_the_default_model_is_what_a_chat_needs(model_path: Path) -> None:
    header = read_header(model_path)
    assert header.quantisation == "Q8_0"
    assert header.context_length == 8192
    assert header.chat_template


def test_the_same_file_comes_of_every_preparation(
    library: ModelLibrary, original: Path, model_path: Path
) -> None:
    reports = Reports()
    model = library.pull(f"file:{original}", reports, name="again")
    assert model.digest == model_path.name.removeprefix("sha256-")
    assert model.manifest.used.size <= prepared_size(read_header(original))
    assert reports.stages == ["copying", "preparing"]
    assert library.ensure("again", Reports()) == model


def test_a_preparation_that_is_stopped_leaves_no_quantiser_and_no_file(
    library: ModelLibrary, original: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        library.pull(f"file:{original}", Reports("preparing"), name="again")
    assert library.show("again").state == "unprepared"
    assert library.ensure("again", Reports()).quantisation == "Q8_0"
