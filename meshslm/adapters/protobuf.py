"""Protobuf, as much of it as libp2p's own small messages need: fields by number, to bytes and back.

Why by hand: a few messages of numbered fields, from strangers. What is read is bounded by its
length, and everything that is not exactly of the form is refused.

Source: the protobuf encoding.

Rules:
- Fields that are not known are for the caller to skip; so is which counts of one that comes twice.
- What is malformed raises `PeerFault`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshslm.errors import PeerFault

_MOST_VARINT_BYTES: Final = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def varint(number: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def framed(body: bytes) -> bytes:
    """A message behind its length."""
    return varint(len(body)) + body


def number_field(number: int, value: int) -> bytes:
    """A field that is a number."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that is bytes, or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def as_int(value: int | bytes) -> int:
    """The value of a field that must be a number."""
    if not isinstance(value, int):
        raise PeerFault("a field that should be a number is none")
    return value


def as_bytes(value: int | bytes) -> bytes:
    """The value of a field that must be bytes."""
    if not isinstance(value, bytes):
        raise PeerFault("a field that should be bytes is none")
    return value


def fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a message, those of fixed width left out."""
    at = 0
    while at < len(body):
        tag, at = read_varint(body, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise PeerFault("a field without a number")
        if kind == _VARINT:
            value, at = read_varint(body, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = read_varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise PeerFault(f"a field of the kind {kind}, which there is not")
        if size > len(body) - at:
            raise PeerFault("a field that is longer than its message")
        if kind == _BYTES:
            yield number, body[at : at + size]
        at += size


def read_varint(body: bytes, at: int) -> tuple[int, int]:
    """An unsigned number at a place, and the place behind it."""
    number = 0
    for place in range(_MOST_VARINT_BYTES):
        if at + place >= len(body):
            raise PeerFault("a number that breaks off")
        byte = body[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at + place + 1
    raise PeerFault("a number of more than 64 bits")
