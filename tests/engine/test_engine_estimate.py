"""The estimate of a model's memory: laws, what it does not know, llama.cpp's own figures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.estimate import cells, estimate, scoring_mib
from meshslm.engine.gguf import GgufHeader, LongArray, Tensor, Value, read_header
from meshslm.engine.prefix_cache import TILE
from meshslm.limits import ADAPTERS, ADAPTERS_BYTES, MIB
from meshslm.models.synthetic import PUBLISHED, synthesise

TOLERANCE = 0.05
"""Of the estimate against what llama.cpp allocates, for keys and values and for weights."""
COMPUTE_TOLERANCE = 0.5
"""Buffers of a call may be estimated so much too high, and never too low."""
PROCESS_SLACK_MIB = 40
"""How much more than a worker's own memory is set aside for it."""

LLAMA: Mapping[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "tokenizer.ggml.tokens": LongArray(8, 49_152),
}
WEIGHTS = (Tensor("token_embd.weight", (576, 49_152), "Q8_0", 4096, 30_081_024),)


def header(**changes: Value) -> GgufHeader:
    """A header like the default model's, with some entries changed."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return GgufHeader(3, {**LLAMA, **named}, WEIGHTS, 40_000_000)


def test_the_known_example() -> None:
    found = estimate(header(), context=2048, slots=4, batch=512)
    assert found.kv_mib == 202.5
    assert found.weights_mib == pytest.approx(28.69, abs=0.01)
    assert found.unknown == ""
    assert found.total_mib == found.least_mib


@given(st.integers(1, 100_000), st.integers(1, 32), st.integers(1, 4096))
def test_more_of_anything_never_needs_less(context: int, slots: int, batch: int) -> None:
    total = estimate(header(), context, slots, batch).least_mib
    assert estimate(header(), context + 1, slots, batch).least_mib >= total
    assert estimate(header(), context, slots + 1, batch).least_mib > total
    assert estimate(header(), context, slots, batch + 1).least_mib > total
    assert TILE <= cells(context) - context < TILE + 256


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"general__architecture": "mamba"}, "'mamba' is not known"),
        ({"general__architecture": "gemma3"}, "'gemma3' is not known"),
        ({"llama__expert_count": 8}, "experts"),
        ({"llama__attention__head_count_kv": (3, 3)}, "key and value heads"),
        ({"llama__attention__head_count_kv": -3}, "key and value heads"),
        ({"llama__attention__head_count": LongArray(4, 100)}, "one for each layer"),
        ({"llama__embedding_length": 0}, "lacks"),
    ],
)
def test_what_is_not_known_is_said(changes: dict[str, Value], why: str) -> None:
    found = estimate(header(**changes), context=2048, slots=4, batch=512)
    assert found.total_mib is None
    assert found.kv_mib is None
    assert why in found.unknown
    assert found.least_mib > found.weights_mib > 0


def test_layers_may_differ_in_heads_and_heads_in_width() -> None:
    plain = estimate(header(), 255, 1, 32)
    some = estimate(header(llama__attention__head_count_kv=(3,) * 29 + (0,)), 255, 1, 32)
    wide = estimate(
        header(llama__attention__key_length=128, llama__attention__value_length=64), 255, 1, 32
    )
    assert plain.kv_mib
    assert some.kv_mib
    assert wide.kv_mib
    assert some.kv_mib * 30 == pytest.approx(plain.kv_mib * 29)
    assert wide.kv_mib == pytest.approx(plain.kv_mib * 1.5)


def test_adapters_and_the_scoring_of_prompts_are_part_of_it() -> None:
    plain = estimate(header(), 2048, 4, 512)
    assert plain.adapters_mib == 0
    assert plain.scoring_mib is not None
    # Keys and values of 2048 tokens, and 64 results as wide as the vocabulary.
    assert plain.kv_mib is not None
    least = plain.kv_mib / 4 * 2048 / cells(2048) + 64 * 49_152 * 4 / 2**20
    assert least < plain.scoring_mib < 2 * least
    both = estimate(header(), 2048, 4, 512, [3 * MIB, 5 * MIB])
    assert both.adapters_mib == 8
    assert both.least_mib == pytest.approx(plain.least_mib + 8)
    many = estimate(header(), 2048, 4, 512, [MIB] * 100)
    assert many.adapters_mib == ADAPTERS
    large = estimate(header(), 2048, 4, 512, [ADAPTERS_BYTES] * 3)
    assert large.adapters_mib * MIB == ADAPTERS_BYTES
    strange = estimate(header(general__architecture="mamba"), 2048, 4, 512, [MIB])
    assert (strange.scoring_mib, strange.adapters_mib) == (None, 1)
    assert scoring_mib(header(), 100) == scoring_mib(header(), 256)
    assert scoring_mib(header(llama__pooling_type=3), 100) == 0


def test_an_encoder_keeps_nothing() -> None:
    changes: dict[str, Value] = {key.replace("llama", "bert"): v for key, v in LLAMA.items()}
    found = estimate(
        GgufHeader(3, {**changes, "general.architecture": "bert"}, WEIGHTS, 1), 512, 1, 512
    )
    assert found.kv_mib == 0
    assert found.compute_mib
    # llama.cpp has a result, as wide as the vocabulary, for every token of a call.
    assert found.compute_mib > 512 * 49_152 * 4 / 2**20


def test_a_decoder_that_pools_has_one_cache_for_a_call() -> None:
    found = estimate(header(llama__pooling_type=3), context=2048, slots=4, batch=512)
    assert found.kv_mib == pytest.approx(202.5 / 4 * 2048 / 2304)


PROBE = Path(__file__).with_name("memory_probe.py")
CONTEXTS = [(256, 1, 128), (2048, 4, 512), (4096, 2, 256), (512, 16, 512), (1024, 2, 1024)]


def compare(path: Path, context: int, slots: int, batch: int) -> None:
    """Estimate a model that generates, load it, and compare."""
    said = estimate(read_header(path), context, slots, batch)
    done = subprocess.run(
        [sys.executable, str(PROBE), str(path), *map(str, (context, slots, batch))],
        stdout=subprocess.PIPE,
        check=True,
    )
    real = json.loads(done.stdout)
    buffers = real["compute"] + real["output"]
    assert said.kv_mib is not None
    assert said.compute_mib is not None
    assert said.total_mib is not None
    assert said.scoring_mib is not None
    private = said.total_mib - said.weights_mib - said.scoring_mib
    print(
        f"{context} x {slots}, batch {batch}, estimated/real MiB: "
        f"weights {said.weights_mib:.1f}/{real['model']:.1f} KV {said.kv_mib:.1f}/{real['KV']:.1f} "
        f"compute {said.compute_mib:.1f}/{buffers:.1f} own {private:.1f}/{real['anonymous']:.1f}"
    )
    assert said.weights_mib == pytest.approx(real["model"], rel=TOLERANCE)
    assert said.kv_mib == pytest.approx(real["KV"], rel=TOLERANCE)
    assert buffers <= said.compute_mib <= buffers * (1 + COMPUTE_TOLERANCE)
    assert real["anonymous"] <= private <= real["anonymous"] + PROCESS_SLACK_MIB


@pytest.mark.model
@pytest.mark.parametrize(("context", "slots", "batch"), CONTEXTS)
def test_llama_cpp_allocates_what_was_estimated(
    model_path: Path, context: int, slots: int, batch: int
) -> None:
    compare(model_path, context, slots, batch)


@pytest.mark.model
@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen3-0.6b"])
def test_other_shapes_are_estimated_as_well(tmp_path: Path, model_path: Path, name: str) -> None:
    shape = replace(PUBLISHED[name], layers=3, vocabulary=0)
    path = tmp_path / "made.gguf"
    synthesise(path, shape, "Q4_0", model_path, lambda _: None)
    compare(path, 1024, 2, 256)
    path.unlink()


@pytest.mark.model
def test_an_encoder_takes_what_was_estimated(embedding_path: Path) -> None:
    said = estimate(read_header(embedding_path), context=512, slots=8, batch=512)
    done = subprocess.run(
        [sys.executable, str(PROBE), str(embedding_path), "512", "8", "512"],
        stdout=subprocess.PIPE,
        check=True,
    )
    real = json.loads(done.stdout)
    assert said.total_mib is not None
    private = said.total_mib - said.weights_mib
    print(f"encoder, estimated/real MiB: {private:.1f}/{real['anonymous']:.1f}")
    assert said.weights_mib == pytest.approx(real["model"], rel=TOLERANCE)
    assert real["anonymous"] <= private <= real["anonymous"] + PROCESS_SLACK_MIB
