"""Adapters are checked against their base by headers alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from meshslm.engine.gguf import read_header
from meshslm.engine.kinds import EMBEDS, GENERATES, RANKS, operations_of
from meshslm.engine.lora import RANK, check_adapter
from meshslm.errors import OurFault
from meshslm.models.gguf_writer import Meta, TensorPlan, write_gguf
from tests.engine.small_lora import EMBEDDING, matrix, write_adapter

Change = Callable[[list[TensorPlan]], list[TensorPlan]]
CHANCE = np.random.default_rng(1)
SHAPES = {
    EMBEDDING: (32, 96),
    "output.weight": (32, 96),
    "blk.0.attn_q.weight": (32, 64),
    "blk.0.ffn_down.weight": (128, 32),
}


def write_base(path: Path, **metadata: Meta) -> Path:
    plans = [matrix(name, shape, CHANCE, 1.0) for name, shape in SHAPES.items()]
    about: dict[str, Meta] = {"general.architecture": "llama", **metadata}
    with path.open("wb") as file:
        write_gguf(file.write, about, plans)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def check(adapter: Path, base: Path) -> None:
    check_adapter("mine", read_header(adapter), read_header(base))


@pytest.mark.parametrize("targets", [(EMBEDDING,), ("attn_q.weight",), tuple(SHAPES)])
def test_an_adapter_of_the_base_fits(base: Path, tmp_path: Path, targets: tuple[str, ...]) -> None:
    check(write_adapter(tmp_path / "a", base, targets=targets), base)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"general.type": "model"}, "is no LoRA adapter but a GGUF file of type 'model'"),
        ({"adapter.type": "control"}, "is no LoRA adapter"),
        ({"general.architecture": "qwen3"}, "for another base: of architecture 'qwen3'"),
        ({"adapter.lora.alpha": "much"}, "its alpha is 'much', not a number"),
        ({"adapter.lora.alpha": math.nan}, "its alpha is nan, not a number"),
        ({"adapter.alora.invocation_tokens": [1, 2]}, "which is not supported"),
    ],
)
def test_what_it_says_of_itself_must_fit(
    base: Path, tmp_path: Path, metadata: dict[str, Meta], why: str
) -> None:
    with pytest.raises(OurFault, match=why):
        check(write_adapter(tmp_path / "a", base, metadata=metadata), base)


def replaced(name: str, shape: tuple[int, ...]) -> Change:
    def change(plans: list[TensorPlan]) -> list[TensorPlan]:
        return [matrix(name, shape, CHANCE, 1.0) if p.name == name else p for p in plans]

    return change


def added(name: str) -> Change:
    return lambda plans: [*plans, matrix(name, (32, 4), CHANCE, 1.0)]


Q_A, Q_B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: [], "changes nothing"),
        (lambda plans: plans[1:], "lacks its counterpart"),
        (added("blk.0.attn_q.weight"), "is no part of an adapter"),
        (added("blk.7.attn_q.weight.lora_a"), "lacks its counterpart"),
        (replaced(Q_A, (32, 8)), "have the ranks 8 and 4"),
        (replaced(Q_A, (64, 4)), r"has the shape \(32, 64\) here, \(64, 64\) there"),
        (replaced(Q_B, (4, 32)), "adapter for another base"),
        (replaced(Q_A, (32,)), "changed by what is no matrix"),
        (replaced(Q_A, (32, 4, 2)), "changed by what is no matrix"),
    ],
)
def test_every_product_must_fit(base: Path, tmp_path: Path, change: Change, why: str) -> None:
    with pytest.raises(OurFault, match=why):
        check(write_adapter(tmp_path / "a", base, change=change), base)


def test_an_embedding_that_is_also_the_last_matrix_stays_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "tied").open("wb") as file:
        plan = matrix(EMBEDDING, SHAPES[EMBEDDING], CHANCE, 1.0)
        write_gguf(file.write, {"general.architecture": "llama"}, [plan])
    adapter = write_adapter(tmp_path / "a", tmp_path / "tied", targets=(EMBEDDING,))
    with pytest.raises(OurFault, match="also uses as its last matrix"):
        check(adapter, tmp_path / "tied")


def test_a_huge_rank_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(OurFault, match=f"at most {RANK}"):
        check(write_adapter(tmp_path / "a", base, rank=RANK + 1), base)


def test_an_adapter_for_matrices_that_are_not_there_is_for_another_base(
    base: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "a", base)
    with (tmp_path / "other").open("wb") as file:
        plan = matrix(EMBEDDING, SHAPES[EMBEDDING], CHANCE, 1.0)
        write_gguf(file.write, {"general.architecture": "llama"}, [plan])
    with pytest.raises(
        OurFault, match=r"another base: there is no matrix 'blk\.0\.attn_q\.weight'"
    ):
        check(adapter, tmp_path / "other")


# --- what a model is for --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("architecture", "pooling", "operations"),
    [
        ("llama", None, GENERATES),
        ("llama", 0, GENERATES),
        ("llama", 77, GENERATES),
        ("qwen3", 3, EMBEDS),
        ("bert", None, EMBEDS),
        ("bert", 0, EMBEDS),
        ("bert", 2, EMBEDS),
        ("bert", 4, RANKS),
        ("qwen3", 4, RANKS),
    ],
)
def test_a_header_tells_what_a_model_does(
    tmp_path: Path, architecture: str, pooling: int | None, operations: tuple[str, ...]
) -> None:
    said: dict[str, Meta] = {"general.architecture": architecture}
    if pooling is not None:
        said[f"{architecture}.pooling_type"] = pooling
    assert operations_of(read_header(write_base(tmp_path / "m", **said))) == operations
