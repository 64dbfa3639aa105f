"""Which draft belongs to which model, and what becomes of one that cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshslm.daemon.drafts import Drafts
from meshslm.engine.estimate import draft_mib, estimate
from meshslm.engine.gguf import read_header
from meshslm.errors import OurFault
from meshslm.models.gguf_writer import Meta, TensorPlan, write_gguf
from meshslm.models.model_library import ModelLibrary, ReadyModel
from meshslm.profiles import Profile

PROFILES = (Profile(name="p", model="big", draft="small"), Profile(name="q", model="lone"))


def model_file(path: Path, tokens: tuple[str, ...]) -> None:
    """A file whose header is that of a small model with these tokens."""
    metadata: dict[str, Meta] = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
    }
    plan = TensorPlan("token_embd.weight", (32, 1024), "Q8_0", lambda: [bytes(1024 * 34)])
    with path.open("wb") as file:
        write_gguf(file.write, metadata, [plan])


class Library:
    """Has the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure(self, name: str, _: object) -> ReadyModel:
        path = self._folder / f"{name}.gguf"
        if not path.exists():
            raise OurFault(f"there is no {name}")
        return ready(name, path)


def ready(name: str, path: Path) -> ReadyModel:
    return ReadyModel(cast("Any", SimpleNamespace(name=name)), path)


def bring(folder: Path, model: str = "big", budget: int = 1000) -> tuple[float, Path | None]:
    drafts = Drafts(PROFILES, cast("ModelLibrary", Library(folder)), budget)
    takes = drafts.bring(ready(model, folder / "big.gguf"), 512, 100.0, lambda _: None)
    return takes, drafts.path(model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_file(tmp_path / "big.gguf", ("a", "b", "c"))
    model_file(tmp_path / "small.gguf", ("a", "b", "c"))
    return tmp_path


def test_a_draft_is_counted_and_one_that_nobody_named_is_not(folder: Path) -> None:
    header = read_header(folder / "small.gguf")
    takes, path = bring(folder)
    assert path == folder / "small.gguf"
    assert takes == draft_mib(header, 512)
    assert 0 < takes < estimate(header, 512, 1, 64).least_mib
    assert bring(folder, "lone") == (0.0, None)


def test_one_that_cannot_be_had_or_does_not_fit_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert bring(folder, budget=100) == (0.0, None)
        (folder / "small.gguf").unlink()
        assert bring(folder) == (0.0, None)
    full, missing = (record.getMessage() for record in caplog.records)
    assert "without its draft small" in full
    assert "100 and " in full
    assert missing == "big goes without its draft small: there is no small"


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (("a", "b"), "small has 2 tokens of kind gpt2, but big has 3 tokens of kind gpt2"),
        (("a", "b", "d"), "small has 3 tokens of kind gpt2, as big has, but other texts"),
    ],
)
def test_one_of_another_family_is_refused_with_both_facts(
    folder: Path, tokens: tuple[str, ...], error: str
) -> None:
    model_file(folder / "small.gguf", tokens)
    with pytest.raises(OurFault, match=error):
        bring(folder)


def test_two_drafts_for_one_model_are_refused(folder: Path) -> None:
    other = Profile(name="r", model="big", draft="tiny")
    with pytest.raises(OurFault, match="share one draft"):
        Drafts((*PROFILES, other), cast("ModelLibrary", Library(folder)), 1000)
