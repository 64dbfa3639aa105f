"""What a leader knows of the others, of who asks, and of who is to lead next. Values alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm.core.consensus.events import Snapshot
from meshslm.ids import Instant, NodeId


@dataclass(slots=True)
class Progress:
    """How far another coordinator is."""

    next: int
    since: Instant
    """When it was taken in."""
    followed_at: Instant
    """When the newest round was sent that it has answered."""
    match: int = 0
    round: int = 0
    store: int = 0
    quiet: int = 0
    sending: Snapshot | None = None
    offset: int = 0
    """Of the part that is on its way."""
    wanted: int = 0
    """Of the part that it said last to lack; where that does not follow on the one on its way, it
    has lost what it had, or repeats itself, or lies: it is sent as what was lost."""


@dataclass(slots=True)
class Question:
    """Somebody wants to know what is decided."""

    round: int
    """A round not before this must be answered by a majority."""
    answer: Callable[[], None]


@dataclass(slots=True)
class Handover:
    """Another is to lead."""

    to: NodeId
    until: Instant
