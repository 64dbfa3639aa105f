"""One entry as it stands in a document: a value, its revision, and when it ends.

The newest of several authors' entries under one key is the one with the highest revision; where
these are equal, which only happens to writes that did not know of each other, that of the higher
author. A writer's revision is one more than the highest that it knows.

Layout: flags (1 byte), revision, time written and time of expiry (LEB128 each; the last one only
with its flag), value. Counts stand in values as text or bytes, never as CRDT numbers.

Rules:
- `unpack` raises `PeerFault` and nothing else.
- A deletion is an entry too: it takes the place of what it deletes, until the part is rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import state_limits
from meshslm.errors import PeerFault

DELETED = 1
EXPIRES = 2
_FLAGS = DELETED | EXPIRES

REVISIONS = 2**48
"""Above every honest revision; more are refused, so that nobody makes a key unwritable."""

_TIMES = 2**53
HEAD_BYTES = 1 + 7 + 8 + 8
"""Longest head."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value under a key."""

    value: bytes
    revision: int
    written_ms: int = 0
    """Milliseconds since 1970 by its author's clock; 0: unknown. For people, decides nothing."""
    expires_ms: int = 0
    """Milliseconds since 1970 after which it is no more; 0: never."""
    deleted: bool = False

    def alive(self, unix_ms: int) -> bool:
        """Whether it is to be seen at a time of the wall clock."""
        return not self.deleted and not (self.expires_ms and unix_ms >= self.expires_ms)


def pack(entry: Entry) -> bytes:
    """The bytes of an entry."""
    head = bytearray(((DELETED if entry.deleted else 0) | (EXPIRES if entry.expires_ms else 0),))
    _put(head, entry.revision)
    _put(head, entry.written_ms)
    if entry.expires_ms:
        _put(head, entry.expires_ms)
    return bytes(head) + entry.value


def unpack(data: bytes) -> Entry:
    """The entry in `data`. Raises `PeerFault` where it is none."""
    if not data or data[0] & ~_FLAGS:
        raise PeerFault("an entry of a document begins with unknown flags")
    revision, at = _take(data, 1, REVISIONS)
    written, at = _take(data, at, _TIMES)
    expires = 0
    if data[0] & EXPIRES:
        expires, at = _take(data, at, _TIMES)
    deleted = bool(data[0] & DELETED)
    if len(data) - at > state_limits.STATE_VALUE_BYTES or (deleted and at < len(data)):
        raise PeerFault(f"an entry of a document has a value of {len(data) - at} bytes")
    return Entry(data[at:], revision, written, expires, deleted)


def head_of(data: bytes) -> int:
    """How many bytes stand before the value. Raises `PeerFault`."""
    entry = unpack(data)
    return len(data) - len(entry.value)


def revision_of(data: bytes) -> int:
    """The revision of a sound entry."""
    return _take(data, 1, REVISIONS)[0]


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take(data: bytes, at: int, most: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 56:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > most:
                raise PeerFault(f"an entry of a document has the number {number}, most {most}")
            return number, at
        shift += 7
    raise PeerFault("an entry of a document is cut off")
