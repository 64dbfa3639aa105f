"""What the machines of a large mesh need of the rest of the node, which is made after them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm.core.directory import Peer
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.wire.messages import Capability, Presence, TaskRequest


@dataclass(frozen=True, slots=True)
class Hooks:
    """What growth needs of the rest of the node."""

    own: Callable[[], tuple[Capability, Presence]]
    addresses: Callable[[], tuple[str, ...]]
    close: Callable[[Peer, str, Instant], None]
    """End a link that is not needed."""
    welcome: Callable[[Peer, Instant], None]
    """Treat a linked peer as a small mesh does."""
    unreached: Callable[[NodeId, str, Instant], None]
    """A member for whom something waits cannot be reached."""
    arrive: Callable[[TaskId, TaskRequest, Instant], None]
    likely: Callable[[TaskRequest], tuple[str, ...]]
    """The domain that a text is of, if one is recognised."""
