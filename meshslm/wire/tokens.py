"""Tokens as bytes, 32 bits each, little-endian: how many of them travel in one message.

A list of numbers takes up to five bytes each, and a check of every one before the message is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence


def packed(tokens: Sequence[int]) -> bytes:
    """Tokens as bytes. `struct.error` where one is not in 0 to 2^32 - 1."""
    return struct.pack(f"<{len(tokens)}I", *tokens)


def unpacked(data: bytes) -> tuple[int, ...]:
    """The tokens in bytes. `ValueError` where some are left over."""
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes of tokens, which have 4 each")
    return struct.unpack(f"<{len(data) // 4}I", data)
