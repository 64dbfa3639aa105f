"""What dialling keeps of whom it dials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshslm.ids import Instant, NodeId


@dataclass(slots=True)
class Target:
    """Somebody to be linked to: a peer by id, or a configured address without one."""

    key: str
    addresses: list[str]
    """The one that worked last comes first."""
    configured: list[str]
    """Those of them that are from the configuration."""
    since: Instant
    """When it was last linked, or became known."""
    attempts: int = 0
    """Rounds in a row that came to nothing, and links that were not accepted."""
    linked: bool = False
    lost: Instant | None = None
    """When its last link was lost."""
    peer: NodeId | None = None
    """Who answered there."""
    trying: list[str] = field(default_factory=list)
    """Addresses being dialled, or queued for it."""
    untried: list[str] = field(default_factory=list)
    """Addresses still to be dialled in this round."""
    teller: NodeId | None = None
    """Who told of it; None once it was reached."""
    next_at: Instant | None = None
    """When the next round begins; None in a round."""


@dataclass(slots=True)
class Outcome:
    """What came of dialling a configured address."""

    at: Instant
    reason: str = ""
    """Empty while it is not known."""


@dataclass(frozen=True, slots=True)
class Thin:
    """In a large mesh, where not everybody is linked: one round for a dial, and then no more."""

    worth: Callable[[NodeId], bool]
    """Whether a peer whose link was lost is dialled once."""
    gave_up: Callable[[NodeId, Instant], None]
    """Told of who was dialled once, in vain."""
