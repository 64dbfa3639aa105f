"""Model files with the shape of real models and weights without meaning.

With them a machine's speed with a model is measured, and the program tested, without a download:
the text that they generate is noise. The tokenizer is a real model's, lengthened with tokens that
no text has where the shape asks for more.

Rules:
- The same shape, seed and tokenizer give the same file.
- Memory stays constant, whatever the size.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshslm.engine.gguf_types import FILE_TYPES, TENSOR_TYPES
from meshslm.errors import OurFault
from meshslm.models.borrowed_tokenizer import borrow
from meshslm.models.disk import CHUNK_BYTES, DiskFile, need_space
from meshslm.models.gguf_writer import Meta, TensorPlan, file_size, write_gguf
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.random_weights import FORMATS, constant, random_weights

DECODERS: Final = ("llama", "qwen2", "qwen3", "gemma")
ENCODERS: Final = ("bert",)
ARCHITECTURES: Final = DECODERS + ENCODERS
"""Those whose tensors are laid out alike, apart from a few norms and biases."""

_FILE_TYPES: Final = {name: number for number, name in FILE_TYPES.items()} | {"Q4_K": 15}
_BLOCKS: Final = {name: block for name, block, _ in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers that decide what a model costs."""

    architecture: str
    layers: int
    width: int
    """Of the numbers that go from layer to layer."""
    inner: int
    """Width of the feed-forward part."""
    heads: int
    shared_heads: int
    """Heads of keys and values."""
    head_width: int
    vocabulary: int = 0
    """Tokens; 0: as many as the tokenizer has."""
    context: int = 4096
    tied: bool = True
    """The matrix that ends it is the one that begins it."""
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        """Raises `OurFault` where it cannot be."""
        if self.architecture not in ARCHITECTURES:
            raise OurFault(
                f"{self.architecture!r} cannot be synthesised; known are {', '.join(ARCHITECTURES)}"
            )
        numbers = (self.layers, self.width, self.inner, self.heads, self.shared_heads)
        if min(*numbers, self.head_width, self.context) < 1 or self.vocabulary < 0:
            raise OurFault("every number of a model's shape is at least 1")
        if self.heads % self.shared_heads:
            raise OurFault(f"{self.shared_heads} shared heads do not divide {self.heads} heads")
        if self.head_width % 2:
            raise OurFault(f"a head's width is even, not {self.head_width}")
        plain = self.architecture in ("llama", "qwen2", "bert")
        if plain and self.heads * self.head_width != self.width:
            raise OurFault(
                f"in the architecture {self.architecture} heads make up the width: "
                f"{self.heads} times {self.head_width} is not {self.width}"
            )


PUBLISHED: Final[Mapping[str, ModelShape]] = {
    "smollm2-135m": ModelShape("llama", 30, 576, 1536, 9, 3, 64, 49_152, 8192, rope_base=1e5),
    "smollm2-360m": ModelShape("llama", 32, 960, 2560, 15, 5, 64, 49_152, 8192, rope_base=1e5),
    "smollm2-1.7b": ModelShape("llama", 24, 2048, 8192, 32, 32, 64, 49_152, 8192, rope_base=1.3e5),
    "llama3.2-1b": ModelShape("llama", 16, 2048, 8192, 32, 8, 64, 128_256, 131_072, rope_base=5e5),
    "llama3.2-3b": ModelShape("llama", 28, 3072, 8192, 24, 8, 128, 128_256, 131_072, rope_base=5e5),
    "qwen2.5-0.5b": ModelShape("qwen2", 24, 896, 4864, 14, 2, 64, 151_936, 32_768, rope_base=1e6),
    "qwen2.5-1.5b": ModelShape("qwen2", 28, 1536, 8960, 12, 2, 128, 151_936, 32_768, rope_base=1e6),
    "qwen2.5-3b": ModelShape("qwen2", 36, 2048, 11_008, 16, 2, 128, 151_936, 32_768, rope_base=1e6),
    "qwen3-0.6b": ModelShape("qwen3", 28, 1024, 3072, 16, 8, 128, 151_936, 40_960, rope_base=1e6),
    "qwen3-1.7b": ModelShape("qwen3", 28, 2048, 6144, 16, 8, 128, 151_936, 40_960, rope_base=1e6),
    "qwen3-4b": ModelShape("qwen3", 36, 2560, 9728, 32, 8, 128, 151_936, 40_960, rope_base=1e6),
    "gemma-2b": ModelShape("gemma", 18, 2048, 16_384, 8, 1, 256, 256_000, 8192),
    "minilm-l6": ModelShape("bert", 6, 384, 1536, 12, 12, 32, 30_522, 512),
}
"""Shapes of models that are published, by the names people know them by."""


def synthesise(
    target: Path,
    shape: ModelShape,
    quantisation: str,
    tokenizer: Path,
    report: Report,
    *,
    seed: int = 0,
) -> None:
    """Write a model of `shape` at `target`, with the tokenizer of the model file `tokenizer`.

    Raises `OurFault`. What it wrote is deleted when it fails or is stopped.
    """
    if quantisation not in FORMATS:
        raise OurFault(f"{quantisation!r} cannot be filled; known are {', '.join(FORMATS)}")
    narrow = _BLOCKS[quantisation]
    if shape.width % narrow or shape.inner % narrow or (shape.heads * shape.head_width) % narrow:
        raise OurFault(f"widths of {quantisation} are multiples of {narrow}")
    tokens = borrow(tokenizer, shape.vocabulary, encoder=shape.architecture in ENCODERS)
    plans = _plans(shape, quantisation, tokens.size, seed)
    metadata = {**_metadata(shape, quantisation), **tokens.metadata}
    size = file_size(metadata, plans)
    need_space(target.absolute().parent, size, target.name)
    try:
        with DiskFile(target, most=size + CHUNK_BYTES) as file:

            def write(chunk: bytes) -> None:
                file.write(chunk)
                report(Progress(Stage.WRITING, file.size, size))

            write_gguf(write, metadata, plans)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _metadata(shape: ModelShape, quantisation: str) -> dict[str, Meta]:
    name = shape.architecture
    metadata: dict[str, Meta] = {
        "general.architecture": name,
        "general.type": "model",
        "general.name": f"synthetic {name} of {shape.layers} layers, {shape.width} wide",
        "general.file_type": _FILE_TYPES[quantisation],
        "general.quantization_version": 2,
        f"{name}.block_count": shape.layers,
        f"{name}.context_length": shape.context,
        f"{name}.embedding_length": shape.width,
        f"{name}.feed_forward_length": shape.inner,
        f"{name}.attention.head_count": shape.heads,
    }
    if name in ENCODERS:
        return metadata | {
            f"{name}.attention.layer_norm_epsilon": 1e-12,
            f"{name}.attention.causal": False,
            f"{name}.pooling_type": 1,
        }
    return metadata | {
        f"{name}.attention.head_count_kv": shape.shared_heads,
        f"{name}.attention.key_length": shape.head_width,
        f"{name}.attention.value_length": shape.head_width,
        f"{name}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{name}.rope.freq_base": shape.rope_base,
        f"{name}.rope.dimension_count": shape.head_width,
    }


# --- tensors --------------------------------------------------------------------------------------
class _Planner:
    """Collects tensors in the order in which they are written."""

    def __init__(self, quantisation: str, seed: int) -> None:
        self.plans: list[TensorPlan] = []
        self._quantisation = quantisation
        self._seed = struct.pack("<q", seed)

    def matrix(self, name: str, inputs: int, outputs: int, kind: str = "") -> None:
        """A matrix whose products are about as large as what goes in."""
        kind = kind or self._quantisation
        count, size = inputs * outputs, 1 / math.sqrt(inputs)

        def data() -> Iterator[bytes]:
            return random_weights(kind, count, size, self._seed + name.encode())

        self.plans.append(TensorPlan(name, (inputs, outputs), kind, data))

    def vector(self, name: str, count: int, value: float) -> None:
        """A vector of one value."""
        plan = TensorPlan(name, (count,), "F32", lambda: constant(count, value))
        self.plans.append(plan)


def _plans(shape: ModelShape, quantisation: str, tokens: int, seed: int) -> Sequence[TensorPlan]:
    to = _Planner(quantisation, seed)
    to.matrix("token_embd.weight", shape.width, tokens)
    if shape.architecture in ENCODERS:
        to.matrix("position_embd.weight", shape.width, shape.context, "F32")
        to.matrix("token_types.weight", shape.width, 2, "F32")
        _norm(to, "token_embd_norm", shape.width, bias=True)
    else:
        to.vector("output_norm.weight", shape.width, 1.0)
        if not shape.tied and shape.architecture != "gemma":
            to.matrix("output.weight", shape.width, tokens)
    layer = _encoder_layer if shape.architecture in ENCODERS else _decoder_layer
    for number in range(shape.layers):
        layer(to, f"blk.{number}", shape)
    return to.plans


def _decoder_layer(to: _Planner, at: str, shape: ModelShape) -> None:
    queries, keys = shape.heads * shape.head_width, shape.shared_heads * shape.head_width
    to.vector(f"{at}.attn_norm.weight", shape.width, 1.0)
    for part, outputs in (("q", queries), ("k", keys), ("v", keys)):
        to.matrix(f"{at}.attn_{part}.weight", shape.width, outputs)
        if shape.architecture == "qwen2":
            to.vector(f"{at}.attn_{part}.bias", outputs, 0.0)
    if shape.architecture == "qwen3":
        to.vector(f"{at}.attn_q_norm.weight", shape.head_width, 1.0)
        to.vector(f"{at}.attn_k_norm.weight", shape.head_width, 1.0)
    to.matrix(f"{at}.attn_output.weight", queries, shape.width)
    to.vector(f"{at}.ffn_norm.weight", shape.width, 1.0)
    to.matrix(f"{at}.ffn_gate.weight", shape.width, shape.inner)
    to.matrix(f"{at}.ffn_up.weight", shape.width, shape.inner)
    to.matrix(f"{at}.ffn_down.weight", shape.inner, shape.width)


def _encoder_layer(to: _Planner, at: str, shape: ModelShape) -> None:
    wide = shape.width
    for part in ("q", "k", "v", "output"):
        to.matrix(f"{at}.attn_{part}.weight", wide, wide)
        to.vector(f"{at}.attn_{part}.bias", wide, 0.0)
    _norm(to, f"{at}.attn_output_norm", wide, bias=True)
    to.matrix(f"{at}.ffn_up.weight", wide, shape.inner)
    to.vector(f"{at}.ffn_up.bias", shape.inner, 0.0)
    to.matrix(f"{at}.ffn_down.weight", shape.inner, wide)
    to.vector(f"{at}.ffn_down.bias", wide, 0.0)
    _norm(to, f"{at}.layer_output_norm", wide, bias=True)


def _norm(to: _Planner, at: str, width: int, *, bias: bool) -> None:
    to.vector(f"{at}.weight", width, 1.0)
    if bias:
        to.vector(f"{at}.bias", width, 0.0)
