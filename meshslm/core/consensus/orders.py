"""What an operator may order of the leader: who has a seat, and who leads."""

from __future__ import annotations

from meshslm.core.consensus.asking import BUSY, ELSEWHERE
from meshslm.core.consensus.configuration import with_learner, with_voter, without
from meshslm.core.consensus.decided import DECIDED
from meshslm.core.consensus.events import SeatOrdered
from meshslm.core.consensus.raft import Raft
from meshslm.ids import Instant, NodeId

Answer = tuple[str, str]
"""A code, and why."""


def carry_out(raft: Raft, event: SeatOrdered, members: list[NodeId], now: Instant) -> Answer:
    """Do it, or say why not. What a change comes to shows in the view."""
    leading = raft.leading
    if event.order == "found":
        return "conflict", "there is a group already, and there must be one only"
    if leading is None:
        return ELSEWHERE, f"only the leader does that: {raft.leader or 'there is none now'}"
    if event.order == "transfer":
        if leading.hand_over(now, event.node or None) is None:
            return "conflict", "nobody can take over"
        raft.settle(now)
        return DECIDED, ""
    if leading.obstacle():
        return BUSY, leading.obstacle()
    answer = _remove(raft, event.node, now) if event.order == "remove" else None
    answer = answer or _add(raft, event.node, members, now)
    raft.settle(now)
    return answer


def _remove(raft: Raft, node: NodeId, now: Instant) -> Answer:
    has, leading = raft.configuration, raft.leading
    assert leading is not None, "its caller looked"
    seated = any(seat.node == node for seat in (*has.voters, *has.learners))
    if not seated or node == raft.node:
        return "conflict", "it has no seat, or leads: transfer first"
    leading.change(without(has, node), now)
    return DECIDED, ""


def _add(raft: Raft, node: NodeId, members: list[NodeId], now: Instant) -> Answer:
    """A member learns first; ordered again, it gets a vote."""
    has, leading = raft.configuration, raft.leading
    assert leading is not None, "its caller looked"
    if raft.seat(node) is not None or node not in members:
        return "conflict", "it votes already, or is no member that may coordinate"
    if not any(seat.node == node for seat in has.learners):
        leading.change(with_learner(has, node), now)
    elif leading.caught_up(node, now):
        leading.change(with_voter(has, leading.seated(node)), now)
    else:
        return BUSY, "it still learns"
    return DECIDED, ""
