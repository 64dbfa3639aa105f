"""What can be seen of consensus from one node. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.ids import NodeId

NOBODY = NodeId("")


@dataclass(frozen=True, slots=True)
class SeatView:
    """A coordinator."""

    node: NodeId
    votes: bool
    """False: it only learns."""


@dataclass(frozen=True, slots=True)
class ConsensusView:
    """A group of coordinators, seen from one node."""

    group: str = ""
    """Empty: this node is in none."""
    role: str = "none"
    """`none`, `learner`, `follower`, `asking`, `candidate` or `leader`."""
    term: int = 0
    leader: NodeId = NOBODY
    """Empty: none is known."""
    coordinators: tuple[NodeId, ...] = ()
    """Voters, as far as is known."""
    seats: tuple[SeatView, ...] = ()
    committed: int = 0
    last: int = 0
    """Index of the last entry here."""
    decisions: int = 0
    unwritten: int = 0
    """Writes that are not on disk yet."""
    trouble: str = ""
    """Why nothing can be decided; empty: nothing is known to be wrong."""
