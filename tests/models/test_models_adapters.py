"""LoRA adapters in the store: kept beside the model that they are for, and for no other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from meshslm.errors import OurFault
from meshslm.models.catalogue import built_in
from meshslm.models.gguf_writer import Meta, write_gguf
from meshslm.models.model_library import ModelLibrary
from tests.engine.small_lora import EMBEDDING, matrix, write_adapter
from tests.models.small_models import Reports, sha256


def write_base(path: Path, width: int) -> None:
    """A model that no engine could run."""
    about: dict[str, Meta] = {
        "general.architecture": "llama",
        "general.file_type": 7,
        "llama.context_length": 512,
        "llama.embedding_length": width,
    }
    chance = np.random.default_rng(1)
    plans = [matrix(name, (width, 4), chance, 1.0) for name in (EMBEDDING, "output.weight")]
    with path.open("wb") as file:
        write_gguf(file.write, about, plans)


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """Two models of different widths."""
    library = ModelLibrary(tmp_path / "store", environment=os.environ, catalogue=built_in())
    for name, width in (("tiny", 32), ("wide", 64)):
        write_base(tmp_path / name, width)
        library.pull(f"file:{tmp_path / name}", Reports())
    return library


@pytest.fixture
def file(tmp_path: Path, library: ModelLibrary) -> Path:
    return write_adapter(tmp_path / "polite.gguf", tmp_path / "tiny", targets=(EMBEDDING,), rank=1)


def names(library: ModelLibrary) -> list[str]:
    return [model.manifest.name for model in library.models()]


def test_an_adapter_is_found_by_its_model_alone(library: ModelLibrary, file: Path) -> None:
    pulled = library.pull_adapter("tiny", f"file:{file}", Reports())
    assert (pulled.name, pulled.manifest.adapter_of) == ("polite", "tiny")
    assert pulled.path.read_bytes() == file.read_bytes()
    assert library.adapter("tiny", "polite") == pulled
    assert library.adapter("wide", "polite") is None
    assert library.adapter("tiny", "tiny") is None
    assert library.adapter("tiny", "nobody") is None
    assert library.adapter("tiny", "../manifests/tiny") is None
    library.remove("polite", Reports())
    assert library.adapter("tiny", "polite") is None
    assert names(library) == ["tiny", "wide"]


def test_pulling_it_again_needs_no_source(library: ModelLibrary, file: Path) -> None:
    first = library.pull_adapter("tiny", f"file:{file}", Reports(), name="kind")
    source = file.rename(file.with_suffix(".gone"))
    assert library.pull_adapter("tiny", "kind", Reports()) == first
    assert source.exists()


def test_one_for_another_base_is_refused_and_leaves_nothing(
    library: ModelLibrary, file: Path
) -> None:
    before = sorted(library.store.root.rglob("*"))
    with pytest.raises(OurFault, match="polite is an adapter for another base"):
        library.pull_adapter("wide", f"file:{file}", Reports())
    assert [path for path in sorted(library.store.root.rglob("*")) if path.suffix != ".lock"] == [
        path for path in before if path.suffix != ".lock"
    ]


def test_a_damaged_one_is_refused(library: ModelLibrary, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(OurFault, match="cut short"):
        library.pull_adapter("tiny", f"file:{file}", Reports())
    assert names(library) == ["tiny", "wide"]


def test_a_model_is_no_adapter_and_an_adapter_no_model(
    library: ModelLibrary, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(OurFault, match="is no LoRA adapter"):
        library.pull_adapter("tiny", f"file:{tmp_path / 'wide'}", Reports(), name="w")
    with pytest.raises(OurFault, match="not a language model"):
        library.pull(f"file:{file}", Reports())
    library.pull_adapter("tiny", f"file:{file}", Reports())
    with pytest.raises(OurFault, match="polite is no model but an adapter of tiny"):
        library.ensure("polite", Reports())
    with pytest.raises(OurFault, match="polite is no model but an adapter of tiny"):
        library.pull_adapter("polite", f"file:{file}", Reports(), name="again")


def test_a_name_stands_for_one_thing(library: ModelLibrary, file: Path, tmp_path: Path) -> None:
    library.pull_adapter("tiny", f"file:{file}", Reports())
    with pytest.raises(OurFault, match=r"polite is here already, from .*, as an adapter of tiny"):
        library.pull(f"file:{tmp_path / 'wide'}", Reports(), name="polite")
    with pytest.raises(OurFault, match="wide is here already, from"):
        library.pull_adapter("tiny", f"file:{file}", Reports(), name="wide")


def test_digest_and_base_must_be_right(library: ModelLibrary, file: Path) -> None:
    with pytest.raises(OurFault, match="wrong digest"):
        library.pull_adapter("tiny", f"file:{file}", Reports(), sha256="0" * 64)
    with pytest.raises(OurFault, match="the catalogue has no model 'nobody'"):
        library.pull_adapter("nobody", f"file:{file}", Reports())
    with pytest.raises(OurFault, match="there is no model 'nobody' here"):
        library.pull_adapter("tiny", "nobody", Reports())
    digest = sha256(file.read_bytes())
    assert library.pull_adapter("tiny", f"file:{file}", Reports(), sha256=digest).manifest.pinned
