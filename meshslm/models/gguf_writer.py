"""Writes GGUF files, from values and from streams of tensor data.

Rules:
- Memory stays constant: a tensor's bytes come as an iterator and go out as they come.
- What was announced is what is written: a tensor with more or fewer bytes is an error.
- The same values give the same bytes.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meshslm.engine.gguf_types import TENSOR_TYPES

ALIGNMENT: Final = 32
VERSION: Final = 3
_TYPES: Final = {name: (number, *size) for number, (name, *size) in TENSOR_TYPES.items()}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class Encoded:
    """A metadata value in its written form, type first: copied from another file."""

    raw: bytes


Meta = bool | int | float | str | Sequence[str] | Sequence[int] | Encoded
"""Whole numbers are written as unsigned with 32 bits, those in arrays as signed."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor that is to be written."""

    name: str
    shape: tuple[int, ...]
    """Length of a row first."""
    type: str
    """Such as `Q8_0`."""
    data: Callable[[], Iterable[bytes]]
    """Its bytes; called once, when its turn comes."""

    @property
    def nbytes(self) -> int:
        """Bytes that `data` must give."""
        _, block, block_bytes = _TYPES[self.type]
        weights = 1
        for size in self.shape:
            weights *= size
        return weights // block * block_bytes


def write_gguf(
    write: Callable[[bytes], object], metadata: Mapping[str, Meta], tensors: Sequence[TensorPlan]
) -> None:
    """Write a whole file through `write`. `ValueError` where a tensor is not as it was planned."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _text(key) + encoded(value)
    offset = 0
    for tensor in tensors:
        head += _text(tensor.name)
        head += struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += struct.pack("<IQ", _TYPES[tensor.type][0], offset)
        offset += _padded(tensor.nbytes)
    write(bytes(head) + bytes(_padded(len(head)) - len(head)))
    for tensor in tensors:
        _write_tensor(write, tensor)


def file_size(metadata: Mapping[str, Meta], tensors: Sequence[TensorPlan]) -> int:
    """Bytes of the file, roughly: the header's few are counted from its texts."""
    header = sum(len(key) + 16 + len(encoded(value)) for key, value in metadata.items())
    return header + sum(_padded(tensor.nbytes) + 128 for tensor in tensors)


def encoded(value: Meta) -> bytes:
    """A metadata value in its written form, type first."""
    match value:
        case Encoded(raw):
            return raw
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case _:
            return struct.pack("<I", _ARRAY) + _array(value)


def _array(items: Sequence[str] | Sequence[int]) -> bytes:
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) == len(items):
        return struct.pack("<IQ", _STRING, len(items)) + b"".join(map(_text, texts))
    return struct.pack(f"<IQ{len(items)}i", _INT32, len(items), *items)


def _write_tensor(write: Callable[[bytes], object], tensor: TensorPlan) -> None:
    written = 0
    for chunk in tensor.data():
        written += len(chunk)
        if written <= tensor.nbytes:
            write(chunk)
    if written != tensor.nbytes:
        raise ValueError(f"{tensor.name}: {written} bytes of data, planned {tensor.nbytes}")
    write(bytes(_padded(written) - written))


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
