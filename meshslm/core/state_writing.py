"""Writes of this node before they are given to the journal, and what a write may be.

Rules:
- A write that cannot be done is refused before anything is changed, with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from meshslm import state_limits
from meshslm.core.state_events import Change
from meshslm.errors import FaultCode, RequestFault
from meshslm.ids import Instant
from meshslm.state.part import Part

Done = Callable[[str, Instant], None]
"""Told once: with nothing when the write is durable, or why it is not yet."""


class Rebuilds(Protocol):
    """Who rebuilds parts that have grown."""

    def consider(self, document: str) -> None:
        """A document was written to."""
        ...

    def written(self, document: str, keys: tuple[str, ...]) -> None:
        """Keys of a document that may be in the middle of a rebuild have changed."""
        ...


@dataclass(slots=True)
class Outgoing:
    """Writes to one part that have not been given to the journal."""

    part: Part
    before: int
    updates: list[bytes] = field(default_factory=list)
    keys: dict[str, None] = field(default_factory=dict)
    size: int = 0
    sealed: bool = False
    done: list[Done] = field(default_factory=list)


def check_changes(changes: tuple[Change, ...]) -> None:
    """Raise `RequestFault` where these cannot be one write."""
    if not 0 < len(changes) <= state_limits.UPDATE_CHANGES:
        why = f"{len(changes)} changes at once, 1 to {state_limits.UPDATE_CHANGES} are possible"
        raise RequestFault(FaultCode.BAD_REQUEST, why)
    if len({change.key for change in changes}) != len(changes):
        raise RequestFault(FaultCode.BAD_REQUEST, "a key is to be changed twice at once")
    for change in changes:
        _check_change(change)
    size = sum(len(c.value or b"") + 4 * len(c.key) + 64 for c in changes)
    if size > state_limits.UPDATE_BYTES:
        why = f"changes of {size} bytes at once, at most {state_limits.UPDATE_BYTES} are possible"
        raise RequestFault(FaultCode.BAD_REQUEST, why)


def _check_change(change: Change) -> None:
    key = change.key
    if not key or not key.isprintable() or len(key.encode()) > state_limits.STATE_KEY_BYTES:
        why = f"a key has 1 to {state_limits.STATE_KEY_BYTES} bytes, all printable"
        raise RequestFault(FaultCode.BAD_REQUEST, why, param="key")
    size, most = len(change.value or b""), state_limits.STATE_VALUE_BYTES
    if size > most:
        raise RequestFault(
            FaultCode.BAD_REQUEST, f"a value has {size} bytes, at most {most}", param="value"
        )
