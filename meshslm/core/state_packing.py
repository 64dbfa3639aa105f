"""Signed deltas in messages: compressed where it pays, and in pieces of bounded size.

Compression is by zlib at its lowest level. Of a single delta a third is signature and hash, which
do not shrink; in batches names, and what texts have in common, do.
"""

from __future__ import annotations

import zlib

from meshslm import limits, state_limits
from meshslm.errors import PeerFault
from meshslm.wire.codec import decode, encode
from meshslm.wire.state import SignedDelta, StateDeltas


def packed(
    deltas: list[SignedDelta], document: str = "", *, more: bool = False, answer: int = 0
) -> StateDeltas:
    """Deltas as a message, compressed where that pays."""
    plain = StateDeltas(tuple(deltas), document=document, more=more, answer=answer)
    if sum(len(delta.payload) for delta in deltas) < state_limits.STATE_COMPRESS_BYTES:
        return plain
    raw = encode(StateDeltas(tuple(deltas)))
    small = zlib.compress(raw, 1)
    if len(small) > len(raw) * 0.9:
        return plain
    return StateDeltas((), small, document, more, answer)


def unpacked(message: StateDeltas) -> tuple[SignedDelta, ...]:
    """The deltas of a message. Raises `PeerFault`."""
    if not message.packed:
        return message.deltas
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(message.packed, limits.MESSAGE_BYTES)
    except zlib.error as error:
        raise PeerFault(f"packed deltas are damaged: {error}") from None
    if not inflate.eof or inflate.unused_data or message.deltas:
        raise PeerFault(f"packed deltas take over {limits.MESSAGE_BYTES} bytes, or are cut off")
    inner = decode(raw)
    if not isinstance(inner, StateDeltas) or inner.packed:
        raise PeerFault("packed deltas hold something else")
    return inner.deltas


def messages_of(deltas: list[SignedDelta]) -> list[bytes]:
    """Deltas in as many messages as they need."""
    pieces: list[list[SignedDelta]] = [[]]
    size = 0
    for delta in deltas:
        full = len(pieces[-1]) >= state_limits.STATE_SYNC_DELTAS
        if pieces[-1] and (full or size + len(delta.payload) > state_limits.STATE_SYNC_BYTES):
            pieces.append([])
            size = 0
        pieces[-1].append(delta)
        size += len(delta.payload)
    return [encode(packed(piece)) for piece in pieces]
