"""Model files of any shape: valid, the same each time, and llama.cpp runs them."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.engine.gguf import read_encoded, read_header
from meshslm.engine.gguf_types import TENSOR_TYPES
from meshslm.errors import OurFault
from meshslm.models.gguf_writer import Meta, TensorPlan, write_gguf
from meshslm.models.random_weights import FORMATS, SCALES, random_weights
from meshslm.models.synthetic import (
    ARCHITECTURES,
    ENCODERS,
    PUBLISHED,
    ModelShape,
    synthesise,
)
from tests.adapters.engine_client import chat, serving
from tests.models.small_models import Reports, sha256

SMALL = {
    "llama": ModelShape("llama", 2, 256, 512, 4, 2, 64, tied=False),
    "qwen2": ModelShape("qwen2", 2, 256, 512, 4, 2, 64),
    "qwen3": ModelShape("qwen3", 2, 256, 512, 8, 4, 64),
    "gemma": ModelShape("gemma", 2, 256, 512, 2, 1, 128),
    "bert": ModelShape("bert", 2, 256, 512, 4, 4, 64, context=64),
}


def tokenizer(folder: Path, kind: str = "gpt2", tokens: int = 40) -> Path:
    """A file that has a tokenizer, and nothing else of a model."""
    path = folder / f"{kind}.gguf"
    plan = TensorPlan("x", (32,), "F32", lambda: [bytes(128)])
    metadata: dict[str, Meta] = {
        "general.license": "apache-2.0",
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": [f"t{number}" for number in range(tokens)],
        "tokenizer.ggml.token_type": [1] * tokens,
        "tokenizer.ggml.merges": ["t 1", "t 2"],
        "tokenizer.ggml.eos_token_id": 2,
    }
    with path.open("wb") as file:
        write_gguf(file.write, metadata, [plan])
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("quantisation", FORMATS)
def test_every_shape_in_every_format_is_valid(
    tmp_path: Path, architecture: str, quantisation: str
) -> None:
    source = tokenizer(tmp_path, "bert" if architecture in ENCODERS else "gpt2")
    target, reports = tmp_path / "made.gguf", Reports()
    synthesise(target, SMALL[architecture], quantisation, source, reports)
    header = read_header(target)
    assert header.architecture == architecture
    assert header.quantisation in (quantisation, "Q4_K_M")
    assert (header.vocabulary, header.text("general.license")) == (40, "apache-2.0")
    assert {t.type for t in header.tensors} == {"F32", quantisation}
    assert header.file_size - 32 < max(t.offset + t.nbytes for t in header.tensors)
    assert reports.stages == ["writing"]
    assert reports.heard[-1].done == header.file_size <= reports.heard[-1].total


def test_a_seed_decides_the_file(tmp_path: Path) -> None:
    source = tokenizer(tmp_path)
    digests = []
    for seed in (0, 0, 1):
        target = tmp_path / "made.gguf"
        synthesise(target, SMALL["qwen3"], "Q8_0", source, Reports(), seed=seed)
        digests.append(sha256(target.read_bytes()))
    assert digests[0] == digests[1] != digests[2]


def test_a_tokenizer_is_copied_and_lengthened(tmp_path: Path) -> None:
    source, target = tokenizer(tmp_path), tmp_path / "made.gguf"
    synthesise(target, SMALL["qwen3"], "Q8_0", source, Reports())
    assert read_encoded(target, "tokenizer.") == read_encoded(source, "tokenizer.")
    synthesise(target, replace(SMALL["qwen3"], vocabulary=43), "Q8_0", source, Reports())
    header = read_header(target)
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, tuple)
    assert tokens[39:] == ("t39", "<added-0>", "<added-1>", "<added-2>")
    assert header.metadata["tokenizer.ggml.token_type"] == (1,) * 43
    assert header.metadata["tokenizer.ggml.merges"] == ("t 1", "t 2")
    (embedding,) = [t for t in header.tensors if t.name == "token_embd.weight"]
    assert embedding.shape == (256, 43)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_their_size(name: str) -> None:
    """The name says how many weights a shape has; some counts leave the first matrix out."""
    shape = PUBLISHED[name]
    queries, keys = shape.heads * shape.head_width, shape.shared_heads * shape.head_width
    gates = 2 if shape.architecture in ENCODERS else 3
    layer = shape.width * (2 * queries + 2 * keys + gates * shape.inner)
    total = shape.layers * layer + shape.width * shape.vocabulary
    size = name.rpartition("-")[2]
    if size[-1] not in "bm":
        assert total == pytest.approx(22.6e6, rel=0.02)
        return
    said = float(size[:-1]) * {"b": 1e9, "m": 1e6}[size[-1]]
    assert total == pytest.approx(said, rel=0.26)


BAD = {
    "another architecture": ({"architecture": "mamba"}, "cannot be synthesised"),
    "no layers": ({"layers": 0}, "at least 1"),
    "a negative vocabulary": ({"vocabulary": -1}, "at least 1"),
    "odd heads": ({"head_width": 63}, "even"),
    "uneven sharing": ({"shared_heads": 3}, "do not divide"),
    "heads beside the width": ({"architecture": "llama", "width": 384}, "make up the width"),
}


@pytest.mark.parametrize("name", BAD)
def test_shapes_that_cannot_be(name: str) -> None:
    changes, why = BAD[name]
    with pytest.raises(OurFault, match=why):
        replace(SMALL["qwen3"], **changes)  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize(
    ("shape", "quantisation", "kind", "why"),
    [
        (SMALL["qwen3"], "Q6_K", "gpt2", "known are F32"),
        (replace(SMALL["qwen3"], width=272), "Q4_K", "gpt2", "multiples of 256"),
        (SMALL["qwen3"], "Q8_0", "bert", "of a language model"),
        (SMALL["bert"], "Q8_0", "gpt2", "of an embedding model"),
        (replace(SMALL["qwen3"], vocabulary=39), "Q8_0", "gpt2", "has 40 tokens"),
        (replace(SMALL["qwen3"], vocabulary=2**30), "Q8_0", "gpt2", "has 40 tokens"),
        (replace(SMALL["qwen3"], layers=10**5, width=2**20), "F32", "gpt2", "disk space"),
    ],
)
def test_what_cannot_be_made(
    tmp_path: Path, shape: ModelShape, quantisation: str, kind: str, why: str
) -> None:
    source = tokenizer(tmp_path, kind)
    with pytest.raises(OurFault, match=why):
        synthesise(tmp_path / "made.gguf", shape, quantisation, source, Reports())
    assert not (tmp_path / "made.gguf").exists()


def test_what_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    source, target = tokenizer(tmp_path), tmp_path / "made.gguf"
    with pytest.raises(KeyboardInterrupt):
        synthesise(target, SMALL["qwen3"], "F32", source, Reports(stop_at="writing"))
    assert not target.exists()


@given(st.sampled_from(FORMATS), st.integers(1, 40), st.floats(1e-3, 1), st.binary(max_size=8))
def test_weights_are_numbers_of_the_size_asked_for(
    kind: str, blocks: int, size: float, seed: bytes
) -> None:
    ((block, block_bytes),) = [(b, n) for name, b, n in TENSOR_TYPES.values() if name == kind]
    raw = b"".join(random_weights(kind, blocks * block, size, seed))
    assert len(raw) == blocks * block_bytes
    if kind in SCALES:
        scales = SCALES[kind]
        for place, part in zip(scales.places, scales.parts, strict=True):
            for begin in range(place, len(raw), block_bytes):
                (scale,) = struct.unpack_from("<e", raw, begin)
                assert scale == pytest.approx(size * part, rel=0.02)
        return
    numbers = struct.unpack(f"<{blocks}{'f' if kind == 'F32' else 'e'}", raw)
    assert all(size / 2 <= abs(number) <= 2 * size for number in numbers)
    assert all(math.isfinite(number) for number in numbers)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 200))
def test_a_tensor_is_written_as_it_was_planned_or_not_at_all(data: bytes, planned: int) -> None:
    plan = TensorPlan("x", (max(1, planned),), "I8", lambda: [data[:3], data[3:]])
    written: list[bytes] = []
    if plan.nbytes == len(data):
        write_gguf(written.append, {}, [plan])
        assert b"".join(written)[-32 * -(-len(data) // 32) :].rstrip(b"\0") == data.rstrip(b"\0")
    else:
        with pytest.raises(ValueError, match="planned"):
            write_gguf(written.append, {}, [plan])


@pytest.mark.model
@pytest.mark.parametrize(
    ("architecture", "quantisation"),
    [("llama", "Q4_K"), ("qwen2", "Q4_0"), ("qwen3", "Q8_0"), ("gemma", "IQ4_NL")],
)
async def test_the_worker_generates_with_them(
    tmp_path: Path, model_path: Path, architecture: str, quantisation: str
) -> None:
    target = tmp_path / "made.gguf"
    shape = replace(SMALL[architecture], vocabulary=50_000)
    synthesise(target, shape, quantisation, model_path, Reports())
    spec = EngineSpec("m", target, context=256, slots=2)
    async with serving(EngineProcess(spec)) as client:
        first, again = [await client.ask(chat("Hello", 8)) for _ in range(2)]
    assert first.ended is not None
    assert first.ended.usage.completion_tokens > 0
    assert first.tokens() == again.tokens()
    assert all(token < 50_000 for token in first.tokens())
