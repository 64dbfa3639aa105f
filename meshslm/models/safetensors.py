"""Reads safetensors files: a JSON header with names, shapes and places, then the numbers.

Rules:
- Nothing is trusted: the header is bounded, and every tensor must lie inside the file, have as many
  bytes as its shape asks for, and overlap no other.
- Tensors are read in chunks: none is ever whole in memory.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from meshslm.errors import OurFault
from meshslm.models.disk import system_faults

HEADER_BYTES: Final = 16 * 1024 * 1024
"""A tensor takes about 120 bytes of it, and the largest models have some ten thousand."""
TENSORS: Final = 65_536
CHUNK_NUMBERS: Final = 256 * 1024
_MOST: Final = 2**40
_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: where it is, and what it holds."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    """Length of a row last."""
    offset: int
    nbytes: int

    def floats(self) -> Iterator[tuple[float, ...]]:
        """Its numbers, in chunks. Raises `OurFault` for numbers of another type than F32 or F16."""
        code = {"F32": "f", "F16": "e"}.get(self.dtype)
        if code is None:
            raise OurFault(f"{self.path.name}: numbers of type {self.dtype} are not converted")
        left = self.nbytes
        with system_faults(self.path), self.path.open("rb") as file:
            file.seek(self.offset)
            while left:
                raw = file.read(min(left, CHUNK_NUMBERS * _BYTES[self.dtype]))
                if not raw:
                    raise OurFault(f"{self.path.name} became shorter while it was read")
                left -= len(raw)
                yield struct.unpack(f"<{len(raw) // _BYTES[self.dtype]}{code}", raw)


def read_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    """The tensors of the file at `path`. Raises `OurFault` where it is none or inconsistent."""
    with system_faults(path), path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(HEADER_BYTES, size - 8):
            raise OurFault(f"{path.name} is no safetensors file: its header has {length} bytes")
        raw = file.read(length)
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        members.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(one, type=_Entry) for name, one in members.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OurFault(f"{path.name} is no safetensors file: {error}") from None
    return _checked(path, entries, 8 + length, size)


def _checked(
    path: Path, entries: Mapping[str, _Entry], start: int, size: int
) -> Mapping[str, StoredTensor]:
    if len(entries) > TENSORS:
        raise OurFault(f"{path.name} has {len(entries)} tensors, at most {TENSORS}")
    end = 0
    found = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, until = entry.data_offsets
        numbers = 1
        for length in entry.shape:
            numbers *= length if 0 < length <= _MOST and numbers <= _MOST else 0
        nbytes = numbers * _BYTES.get(entry.dtype, 0)
        if not nbytes or begin != end or until - begin != nbytes or start + until > size:
            raise OurFault(
                f"{path.name} is damaged: tensor {name[:100]!r} of shape {entry.shape[:4]} and "
                f"type {entry.dtype[:10]} is at {begin} to {until}, after {end}, in {size} bytes"
            )
        end = until
        found[name] = StoredTensor(path, entry.dtype, entry.shape, start + begin, nbytes)
    return found
