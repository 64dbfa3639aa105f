"""Events of shared documents without keys and values, for recordings that may be handed on.

Names of documents stay, as names of models do; signatures stay too, and fit no longer: a replay
takes them as they are. Sums over entries fit no longer either: a replay puts its own in their place
where a peer held the same.

Rules:
- What cannot be blanked piece by piece is replaced by zeros of the same length.
- Equal keys are replaced equally while a process runs, by nothing that can be guessed back.
"""

from __future__ import annotations

import secrets
import zlib
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b

from meshslm.core.events import Event
from meshslm.core.state_events import (
    Change,
    DeltasRead,
    PartReloaded,
    StateOpened,
    StateWrite,
    StoredDelta,
    StoredPart,
)
from meshslm.core.state_holdings import delta_in
from meshslm.core.state_packing import unpacked
from meshslm.errors import PeerFault
from meshslm.state.blank import blanked
from meshslm.wire.codec import encode
from meshslm.wire.histories import HistoryTold
from meshslm.wire.state import SignedDelta, StateDeltas

_SALT = secrets.token_bytes(16)
_LETTERS = b"abcdefghijklmnopqrstuvwxyz234567"

STATE_EVENTS = (StateOpened, StateWrite, DeltasRead, PartReloaded)


@lru_cache(maxsize=4096)
def _renamed(key: bytes) -> bytes:
    found = b""
    while len(found) < len(key):
        digest = blake2b(key, key=_SALT, salt=len(found).to_bytes(2, "big")).digest()
        found += bytes(_LETTERS[byte % 32] for byte in digest)
    return found[: len(key)]


def without_entries(event: Event) -> Event:
    """An event of shared documents without their keys and values."""
    if isinstance(event, StateOpened):
        return replace(event, parts=tuple(map(_part, event.parts)))
    if isinstance(event, PartReloaded):
        return replace(event, stored=_part(event.stored))
    if isinstance(event, DeltasRead):
        return replace(event, deltas=tuple(map(_stored, event.deltas)))
    if isinstance(event, StateWrite):
        return replace(event, changes=tuple(map(_change, event.changes)))
    return event


def without_values(message: StateDeltas | HistoryTold) -> bytes:
    """A message with deltas, without keys and values, and still packed where it was.

    Or one with histories of tasks: why one failed may be said in words of its prompt.
    """
    if isinstance(message, HistoryTold):
        blank = tuple(replace(task, events=bytes(len(task.events))) for task in message.tasks)
        return encode(replace(message, tasks=blank))
    try:
        deltas = tuple(map(_signed, unpacked(message)))
    except PeerFault:
        return encode(replace(message, deltas=(), packed=bytes(len(message.packed))))
    if not message.packed:
        return encode(replace(message, deltas=deltas))
    return encode(replace(message, packed=zlib.compress(encode(StateDeltas(deltas)), 1)))


def _change(change: Change) -> Change:
    value = None if change.value is None else bytes(len(change.value))
    key = _renamed(change.key.encode(errors="replace")).decode()
    return replace(change, key=key, value=value)


def _part(stored: StoredPart) -> StoredPart:
    snapshot = stored.snapshot
    if snapshot is not None:
        try:
            state = blanked(snapshot.state, _renamed)
        except ValueError:
            state = bytes(len(snapshot.state))
        snapshot = replace(snapshot, state=state)
    return replace(stored, snapshot=snapshot, deltas=tuple(map(_stored, stored.deltas)))


def _stored(delta: StoredDelta) -> StoredDelta:
    return replace(delta, signed=_signed(delta.signed))


def _signed(signed: SignedDelta) -> SignedDelta:
    try:
        delta = delta_in(signed.payload)
        updates = tuple(blanked(update, _renamed) for update in delta.updates)
        return replace(signed, payload=encode(replace(delta, updates=updates)))
    except (PeerFault, ValueError):
        return replace(signed, payload=bytes(len(signed.payload)))
