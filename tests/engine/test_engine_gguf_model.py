"""Entries of model files that would end llama.cpp's process are refused before it sees them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from meshslm.engine.gguf_model import read_model
from meshslm.errors import OurFault
from meshslm.models.gguf_writer import Encoded, Meta, TensorPlan, write_gguf

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
GOOD: Mapping[str, Meta] = {
    "general.architecture": "qwen3",
    "qwen3.block_count": 2,
    "qwen3.embedding_length": 256,
    "qwen3.attention.head_count": 4,
    "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
    "qwen3.rope.dimension_count": 64,
    "qwen3.rope.freq_base": 1e6,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "", "", *BYTES],
    "tokenizer.chat_template": "{{ messages }}",
}


def write(folder: Path, changes: Mapping[str, Meta]) -> Path:
    path = folder / "model.gguf"
    plan = TensorPlan("x", (32,), "F32", lambda: [bytes(128)])
    with path.open("wb") as file:
        write_gguf(file.write, {**GOOD, **changes}, [plan])
    return path


def test_a_good_one(tmp_path: Path) -> None:
    header = read_model(write(tmp_path, {}))
    assert (header.architecture, header.vocabulary) == ("qwen3", 259)


@pytest.mark.model
def test_a_real_one(model_path: Path, embedding_path: Path) -> None:
    assert read_model(model_path).architecture == "llama"
    assert read_model(embedding_path).architecture == "bert"


def wide(value: int) -> Encoded:
    """A whole number with 64 bits."""
    return Encoded(struct.pack("<IQ", 10, value))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"qwen3.block_count": 0}, "block_count is 0, not 1 to 512"),
        ({"qwen3.block_count": 513}, "block_count is 513"),
        ({"qwen3.block_count": wide(2**63)}, "block_count is 9223372036854775808"),
        ({"qwen3.block_count": "2"}, "block_count is 0"),
        ({"qwen3.expert_count": 2**31}, "expert_count is 2147483648"),
        ({"qwen3.expert_count": 8}, "expert_used_count is not between 1 and 8"),
        ({"qwen3.expert_count": 8, "qwen3.expert_used_count": 9}, "expert_used_count"),
        ({"qwen3.attention.layer_norm_rms_epsilon": -1.0}, "epsilon is -1.0"),
        ({"qwen3.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon is nan"),
        ({"qwen3.attention.layer_norm_rms_epsilon": 1}, "epsilon is 1"),
        ({"qwen3.logit_scale": float("inf")}, "logit_scale is inf"),
        ({"qwen3.rope.dimension_count": 0}, "dimension_count is 0"),
        ({"qwen3.rope.dimension_count": 31}, "dimension_count is 31"),
        ({"qwen3.rope.dimension_count": 66}, "dimension_count is 66, with heads 64 wide"),
        ({"qwen3.attention.key_length": 32}, "dimension_count is 64, with heads 32 wide"),
        ({"qwen3.rope.freq_base": 0.0}, "freq_base is 0.0"),
        ({"tokenizer.ggml.tokens": [*BYTES, "a", "b", "a"]}, "1 of its tokens"),
        ({"tokenizer.ggml.tokens": BYTES[1:]}, "no token for the byte 0"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "no token for the byte 0"),
        ({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["a"]}, "no bos token"),
        (
            {
                "tokenizer.ggml.model": "bert",
                "tokenizer.ggml.tokens": ["a"],
                "tokenizer.ggml.bos_token_id": 0,
                "tokenizer.ggml.seperator_token_id": 1,
            },
            "no seperator token",
        ),
        ({"tokenizer.chat_template": "a" * 262_145}, "template has 262145 bytes"),
    ],
)
def test_what_llama_cpp_would_die_of(tmp_path: Path, changes: Mapping[str, Meta], why: str) -> None:
    with pytest.raises(OurFault, match=why) as caught:
        read_model(write(tmp_path, changes))
    assert "model.gguf is not a usable model" in str(caught.value)


def test_a_vocabulary_of_another_kind_needs_no_bytes(tmp_path: Path) -> None:
    changes: Mapping[str, Meta] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", ""],
    }
    assert read_model(write(tmp_path, changes)).vocabulary == 3
