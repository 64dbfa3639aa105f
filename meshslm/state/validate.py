"""What an update may be before the CRDT library sees it.

The library accepts far more than we write, and some of what it accepts brings it down: panics,
hangs, a crash of the process, documents that can never be saved again. So an update is read here
first, byte by byte, and only this passes: items of one client, the author's; each sets one key of
the one root map to one block of bytes; each continues the clock without a gap; what is deleted is
the author's own and was there before. No nested types, no texts, no numbers, no subdocuments.

Because an item may only follow on the same client's items, it can only ever change keys that its
author made: nobody can write over, or delete, what somebody else wrote.

Format: Yjs update, version 1 (lib0 variable-length integers; y-protocols and yrs' own encoder).

Rules:
- `check_update` raises `PeerFault` and nothing else, in time linear in the bytes.
- What it accepts is what `Part.write` makes, and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshslm import state_limits
from meshslm.errors import PeerFault
from meshslm.state.entry import HEAD_BYTES, unpack

ROOT: Final = b"m"
"""Name of the one map of a part."""

_HAS_ORIGIN: Final = 0x80
_HAS_KEY: Final = 0x20
_ANY: Final = 8
_FIRST: Final = _HAS_KEY | _ANY
"""An item of a new key: its root and key are written out."""
_NEXT: Final = _HAS_ORIGIN | _HAS_KEY | _ANY
"""An item that takes the place of an earlier one of the same key."""
_BUFFER: Final = 116
"""lib0's mark of a block of bytes."""
_COUNT: Final = 2**53
_ENTRY: Final = state_limits.STATE_VALUE_BYTES + HEAD_BYTES


@dataclass(frozen=True, slots=True)
class Changes:
    """What a sound update does."""

    count: int
    """Entries that it sets; the clock goes on by so many."""
    made: tuple[str, ...]
    """Keys that are new with it. They must not be there yet, which only the part knows."""


def check_update(update: bytes, client: int, before: int) -> Changes:
    """Accept an update of `client` that goes on from clock `before`.

    Raises `PeerFault` with what is wrong.
    """
    if len(update) > state_limits.UPDATE_BYTES:
        raise PeerFault(f"an update of {len(update)} bytes, most {state_limits.UPDATE_BYTES}")
    reader = Reader(update)
    reader.must(1, "clients")
    count = reader.up_to(state_limits.UPDATE_CHANGES, "changes")
    if not count:
        raise PeerFault("an update changes nothing")
    reader.must(client, "client")
    reader.must(before, "clock")
    made: list[str] = []
    replaced: dict[int, None] = {}
    for clock in range(before, before + count):
        _item(reader, client, clock, replaced, made)
    if len(set(made)) != len(made):
        raise PeerFault("an update makes a key twice")
    _deletions(reader, client, before, replaced)
    if reader.at != len(update):
        raise PeerFault("an update has bytes behind its end")
    return Changes(count, tuple(made))


def _item(
    reader: Reader, client: int, clock: int, replaced: dict[int, None], made: list[str]
) -> None:
    info = reader.byte()
    if info == _FIRST:
        reader.must(1, "parent kind")
        if reader.block(len(ROOT)) != ROOT:
            raise PeerFault("an update writes to another root")
        made.append(_key(reader.block(state_limits.STATE_KEY_BYTES)))
    elif info == _NEXT:
        reader.must(client, "client of an origin")
        origin = reader.number()
        if origin >= clock or origin in replaced:
            raise PeerFault("an update follows on what is not there")
        replaced[origin] = None
    else:
        raise PeerFault(f"an update has an item of kind {info:#x}")
    reader.must(1, "values of an item")
    if reader.byte() != _BUFFER:
        raise PeerFault("an update has a value that is no bytes")
    unpack(reader.block(_ENTRY))


def _key(key: bytes) -> str:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise PeerFault("an update has a key that is not UTF-8") from None
    if not text or not text.isprintable():
        raise PeerFault("an update has a key that is empty or not printable")
    return text


def _deletions(reader: Reader, client: int, before: int, replaced: dict[int, None]) -> None:
    """The deleted are exactly the replaced: those that were there, once each, in order."""
    reader.must(1 if replaced else 0, "clients of deletions")
    if not replaced:
        return
    reader.must(client, "client of deletions")
    left = len(replaced)
    ends = 0
    for _ in range(reader.up_to(left, "ranges of deletions")):
        start = reader.number()
        length = reader.up_to(left, "deletions")
        if start < ends or not length:
            raise PeerFault("an update has deletions out of order")
        ends = start + length
        left -= length
        if ends > before or any(clock not in replaced for clock in range(start, ends)):
            raise PeerFault("an update deletes what it does not replace")
    if left:
        raise PeerFault("an update replaces what it does not delete")


class Reader:
    """Bytes of an update, from the front."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self.data):
            raise PeerFault("an update is cut off")
        byte = self.data[self.at]
        self.at += 1
        return byte

    def number(self) -> int:
        """A lib0 variable-length integer in its shortest form."""
        number = self.byte()
        if number < 0x80:
            return number
        number &= 0x7F
        shift = 7
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 56:
                raise PeerFault("an update has a number of more than 53 bits")
        if number > _COUNT or byte == 0:
            raise PeerFault("an update has a number that is too long")
        return number

    def must(self, expected: int, what: str) -> None:
        """Take the next number, which must be this."""
        found = self.number()
        if found != expected:
            raise PeerFault(f"an update has {what} {found}, not {expected}")

    def up_to(self, most: int, what: str) -> int:
        """The next number, which must not be larger."""
        found = self.number()
        if found > most:
            raise PeerFault(f"an update has {found} {what}, most {most}")
        return found

    def block(self, most: int) -> bytes:
        """Bytes behind their length."""
        length = self.up_to(most, "bytes of a key or value")
        end = self.at + length
        if end > len(self.data):
            raise PeerFault("an update is cut off")
        found = self.data[self.at : end]
        self.at = end
        return found
