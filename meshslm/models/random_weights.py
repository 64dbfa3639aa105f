"""Weights without meaning, in the formats of model files: streams of bytes that a seed decides.

Rules:
- Memory stays constant, and nothing is computed per weight: random bytes are cut so that every bit
  pattern is a finite number of about the size asked for.
- The same seed and name give the same bytes, whatever was asked for before.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from meshslm.engine.gguf_types import TENSOR_TYPES

CHUNK_BLOCKS: Final = 16 * 1024
_BLOCKS: Final = {name: (weights, size) for name, weights, size in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class _Scales:
    """The 16-bit floats of a block, which random bytes may not decide."""

    places: tuple[int, ...]
    """Bytes from the block's begin."""
    parts: tuple[float, ...]
    """Each as a part of the size that weights are to have."""


SCALES: Final = {
    "Q8_0": _Scales((0,), (1 / 74,)),
    "Q4_0": _Scales((0,), (1 / 4.6,)),
    "IQ4_NL": _Scales((0,), (1 / 65,)),
    "Q4_K": _Scales((0, 2), (1 / 250, 7.5 / 250)),
}
"""Formats of blocks: the deviation of weights is the scale times that of the codes, which are
evenly spread (for Q4_K about: it has scales of scales)."""

FORMATS: Final = ("F32", "F16", *SCALES)
"""Formats that can be filled."""


def random_weights(kind: str, count: int, size: float, seed: bytes) -> Iterator[bytes]:
    """`count` weights in the format `kind`, of about the size `size`."""
    block, block_bytes = _BLOCKS[kind]
    left = count // block
    number = 0
    fill = _filler(kind, size)
    while left:
        blocks = min(left, CHUNK_BLOCKS)
        chunk = hashlib.shake_128(seed + struct.pack("<Q", number)).digest(blocks * block_bytes)
        yield fill(chunk)
        left -= blocks
        number += 1


def constant(count: int, value: float) -> Iterator[bytes]:
    """`count` numbers of 32 bits."""
    yield struct.pack("<f", value) * count


def _filler(kind: str, size: float) -> Callable[[bytes], bytes]:
    """What makes weights of random bytes."""
    exponent = math.floor(math.log2(size))
    if kind == "F32":
        high = bytes((value & 0x80) | (exponent + 127) >> 1 for value in range(256))
        low = bytes((value & 0x7F) | ((exponent + 127) & 1) << 7 for value in range(256))
        return lambda chunk: _translated(chunk, 4, {3: high, 2: low})
    if kind == "F16":
        code = max(1, exponent + 15) << 2
        table = bytes((value & 0x83) | code for value in range(256))
        return lambda chunk: _translated(chunk, 2, {1: table})
    _, block_bytes = _BLOCKS[kind]
    scales = SCALES[kind]
    written = {
        place: struct.pack("<e", size * part)
        for place, part in zip(scales.places, scales.parts, strict=True)
    }
    return lambda chunk: _with_scales(chunk, block_bytes, written)


def _translated(chunk: bytes, stride: int, tables: dict[int, bytes]) -> bytes:
    changed = bytearray(chunk)
    for place, table in tables.items():
        changed[place::stride] = changed[place::stride].translate(table)
    return bytes(changed)


def _with_scales(chunk: bytes, stride: int, written: dict[int, bytes]) -> bytes:
    changed = bytearray(chunk)
    blocks = len(chunk) // stride
    for place, raw in written.items():
        changed[place::stride] = raw[:1] * blocks
        changed[place + 1 :: stride] = raw[1:] * blocks
    return bytes(changed)
