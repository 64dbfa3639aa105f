"""Updates without what people wrote: the same items with other keys and empty values.

For recordings that may be handed on. Every length stays, so a blanked update is as sound as the
one that it was made of, and does the same to a document of blanked keys.

Rules:
- Only what `check_update` accepts, and the library's own snapshots of such, can be blanked.
- `blanked` raises ValueError where it meets anything else.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm.errors import PeerFault
from meshslm.state.entry import head_of
from meshslm.state.validate import Reader

_ORIGIN, _RIGHT, _KEY = 0x80, 0x40, 0x20
_GC, _DELETED, _ANY = 0, 1, 8
_MOST = 2**53

Rename = Callable[[bytes], bytes]
"""Another key of the same length; equal ones for equal ones."""


def blanked(update: bytes, rename: Rename) -> bytes:
    """The update with other keys, and zeros for values behind their heads."""
    found = bytearray(update)
    try:
        for start, end, is_key in _spans(Reader(update)):
            text = update[start:end]
            if is_key:
                found[start:end] = rename(text)
            else:
                head = head_of(text)
                found[start + head : end] = bytes(len(text) - head)
    except PeerFault as error:
        raise ValueError(str(error)) from error
    return bytes(found)


def _spans(reader: Reader) -> list[tuple[int, int, bool]]:
    """Where keys and values stand: begin, end, and whether it is a key."""
    spans: list[tuple[int, int, bool]] = []
    for _ in range(reader.number()):
        count = reader.number()
        reader.number()
        reader.number()
        for _ in range(count):
            _item(reader, spans)
    return spans


def _item(reader: Reader, spans: list[tuple[int, int, bool]]) -> None:
    info = reader.byte()
    kind = info & 0x1F
    if kind == _GC:
        reader.number()
        return
    for bit in (_ORIGIN, _RIGHT):
        if info & bit:
            reader.number()
            reader.number()
    if not info & (_ORIGIN | _RIGHT):
        reader.number()
        reader.block(_MOST)
        if info & _KEY:
            spans.append((*_block(reader), True))
    if kind == _DELETED:
        reader.number()
    elif kind == _ANY:
        for _ in range(reader.number()):
            reader.byte()
            spans.append((*_block(reader), False))
    else:
        raise PeerFault(f"an item of kind {kind}")


def _block(reader: Reader) -> tuple[int, int]:
    text = reader.block(_MOST)
    return reader.at - len(text), reader.at
