"""The door to consensus in a node: events and messages in, effects out.

Rules:
- A node that is in no group does nothing here but ask others; a group is made once, by order, and
  nodes come into it only by its leader's invitation. Two groups never become one.
- Only members that may coordinate are heard as coordinators.
- Nothing else of the node waits for what happens here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.consensus import asking
from meshslm.core.consensus.asking import BUSY, ELSEWHERE, FORBIDDEN, LOST, Asking
from meshslm.core.consensus.decided import DECIDED
from meshslm.core.consensus.events import (
    DecisionMade,
    DecisionWanted,
    LogFailed,
    LogPersisted,
    LogRecovered,
    SeatOrdered,
)
from meshslm.core.consensus.orders import carry_out
from meshslm.core.consensus.raft import NOBODY, Raft
from meshslm.core.consensus.seats import Seats
from meshslm.core.consensus.timing import Timing
from meshslm.core.consensus.view import ConsensusView, SeatView
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.consensus import (
    Answered,
    Append,
    AppendReply,
    Asked,
    Ballot,
    BallotReply,
    Command,
    Configuration,
    ConsensusMessage,
    Entry,
    Kept,
    Result,
    SnapshotPart,
)

WAKE = "consensus"
LOOK = "consensus-seats"

GroupMessage = Ballot | BallotReply | Append | AppendReply | SnapshotPart


class Coordination:
    """Consensus in one node."""

    MACHINE = Raft

    def __init__(
        self,
        node: NodeId,
        out: Outbox,
        chance: Chance,
        *,
        members: Callable[[], list[NodeId]],
        may: Callable[[NodeId], bool],
        may_propose: Callable[[NodeId, Command], bool] = lambda _node, _command: True,
        barred: Callable[[NodeId], bool] = lambda _: False,
        voters: int = 3,
        timing: Timing | None = None,
    ) -> None:
        """`members` are the alive ones that would and may coordinate, without this node.

        `barred` are those of whom it is known that they may not; who is away is not.
        """
        self._node = node
        self._out = out
        self._chance = chance
        self._may = may
        self._may_propose = may_propose
        self._members = members
        self._timing = timing or Timing()
        self._seats = Seats(node, voters, members, barred)
        self.raft: Raft | None = None
        self._failed = ""
        self._armed: Instant | None = None
        self._waiting: dict[str, list[NodeId]] = {}
        self._told_leader = NOBODY
        self._foreign = ""
        self.asking = Asking(
            node,
            out,
            chance.fork("asking"),
            members=members,
            serve=lambda asked, now: self._serve(node, asked, now),
            leader=lambda: self.raft.leader if self.raft is not None else NOBODY,
            configuration=self._configuration,
        )

    def event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """For the node's table: each takes exactly the class that it is listed under."""
        return {
            LogRecovered: self.on_recovered,
            LogPersisted: self.on_persisted,
            LogFailed: self.on_failed,
            DecisionWanted: self.asking.want,
            SeatOrdered: self.on_order,
        }

    def message_handlers(self) -> dict[type, Callable[[Any, Any, Instant], None]]:
        """For messages of members."""
        return {
            **dict.fromkeys(
                (Ballot, BallotReply, Append, AppendReply, SnapshotPart),
                lambda peer, message, now: self.on_group_message(peer.node, message, now),
            ),
            Asked: lambda peer, message, now: self._serve(peer.node, message, now),
            Answered: lambda peer, message, now: self.asking.on_answered(peer.node, message, now),
            Kept: _refuse,
        }

    def timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer."""
        return {
            WAKE: lambda _, now: self.wake(now),
            LOOK: lambda _, now: self.look(now),
            asking.TIMER: lambda _, now: self.asking.timer(now),
        }

    def heard_freely(self, node: NodeId, message: object) -> bool:
        """Whether a peer may send as much of this as the link brings: it decides with us."""
        if not isinstance(message, GroupMessage):
            return False
        seats = self._configuration()
        return any(seat.node == node for seat in (*seats.voters, *seats.learners))

    # --- this node's log ------------------------------------------------------------------------
    def on_recovered(self, event: LogRecovered, now: Instant) -> None:
        """The log was read."""
        self.raft = self.MACHINE(
            self._node,
            event,
            self._timing,
            self._chance.fork("raft"),
            now,
            persist=self._out.put,
            post=self._post,
            applied=self._applied,
        )
        if event.founding and not event.group:
            self._found(now)
        self._after(now)

    def on_persisted(self, event: LogPersisted, now: Instant) -> None:
        """The disk has everything up to a number."""
        if self.raft is not None:
            self.raft.persisted(event.number, now)
            self._after(now)

    def on_failed(self, event: LogFailed, now: Instant) -> None:
        """The disk fails: promise nothing more, and lead nobody."""
        self.raft, self._failed = None, event.detail
        self._out.stop_timer(WAKE, "")
        self._out.stop_timer(LOOK, "")
        self._dismiss_waiting(now)
        self._out.tell("consensus.disk", event.detail)

    def _configuration(self) -> Configuration:
        return self.raft.configuration if self.raft is not None else Configuration()

    # --- steps ----------------------------------------------------------------------------------
    def wake(self, now: Instant) -> None:
        """The timer ran out."""
        if self.raft is not None:
            self._armed = None
            if now >= self.raft.next_wake():
                self.raft.wake(now)
            self._after(now)

    def look(self, now: Instant) -> None:
        """The leader looks at who has a seat."""
        raft = self.raft
        if raft is None or raft.leading is None:
            return
        self._out.start_timer(LOOK, "", mesh_limits.SEATS_LOOK_MS)
        planned = self._seats.plan(raft.configuration, raft.leading, now)
        if planned is not None:
            self._change(raft, planned, now)

    def _change(self, raft: Raft, configuration: Configuration, now: Instant) -> None:
        assert raft.leading is not None, "its caller looked"
        raft.leading.change(configuration, now)
        raft.settle(now)
        self._after(now)
        self._out.tell("consensus.seats", _names(configuration))

    def _after(self, now: Instant) -> None:
        """After every step of the machine: its timer, and what changed."""
        raft = self.raft
        if raft is None or not raft.durable.group:
            return
        wake = raft.next_wake()
        if self._armed is None or wake < self._armed:
            self._armed = wake
            self._out.start_timer(WAKE, "", ms_between(now, wake))
        if raft.leading is None:
            self._dismiss_waiting(now)
        elif not self._out.timer_runs(LOOK, ""):
            self._out.start_timer(LOOK, "", mesh_limits.SEATS_LOOK_MS)
        if raft.leader != self._told_leader:
            self._told_leader = raft.leader
            term = f"in term {raft.durable.term}"
            self._out.tell("consensus.leader", term, peer=raft.leader or None)
        self.asking.index = max(self.asking.index, raft.commit)

    def _post(self, to: NodeId, message: ConsensusMessage) -> None:
        lane = Lane.BACKGROUND if isinstance(message, SnapshotPart) else Lane.CONTROL
        self._out.send(to, lane, message)

    # --- messages -------------------------------------------------------------------------------
    def on_group_message(self, sender: NodeId, message: GroupMessage, now: Instant) -> None:
        """A coordinator speaks."""
        raft = self.raft
        if raft is None:
            return
        if not self._may(sender):
            raise PeerFault("it may not coordinate")
        if not raft.durable.group:
            if not isinstance(message, Append | SnapshotPart):
                return
            raft.durable.join(message.group)
            self._out.tell("consensus.invited", message.group, peer=sender)
        if message.group != raft.durable.group:
            self._tell_foreign(sender, message.group)
            return
        try:
            raft.hear(sender, message, now)
        finally:
            self._after(now)

    def _tell_foreign(self, sender: NodeId, group: str) -> None:
        if self._foreign != group:
            self._foreign = group
            self._out.tell("consensus.foreign", f"it is of another group, {group}", peer=sender)

    # --- what the leader answers ----------------------------------------------------------------
    def _serve(self, asker: NodeId, asked: Asked, now: Instant) -> None:
        raft = self.raft
        leading = raft.leading if raft is not None else None
        proposal = asked.proposal
        if proposal is not None and not self._may_propose(asker, proposal.command):
            why = f"its certificate does not allow {proposal.command.act!r}"
            self._deliver(asker, Answered(asked.id, FORBIDDEN, why), now)
            return
        if raft is None or leading is None or leading.handing_over:
            self._answer(asker, asked.id, ELSEWHERE, now)
            return
        if asked.proposal is None:
            if leading.questions >= mesh_limits.PROPOSALS_PENDING:
                self._answer(asker, asked.id, BUSY, now)
            else:
                leading.ask(lambda: self._tell_decided(asker, asked, now), now)
        else:
            self._propose(raft, asker, asked, now)
        raft.settle(now)
        self._after(now)

    def _propose(self, raft: Raft, asker: NodeId, asked: Asked, now: Instant) -> None:
        proposal, leading = asked.proposal, raft.leading
        assert proposal is not None, "its caller looked"
        assert leading is not None, "its caller looked"
        askers = self._waiting.get(proposal.id)
        if askers is not None:
            if asker not in askers:
                askers.append(asker)
        elif len(self._waiting) >= mesh_limits.PROPOSALS_PENDING:
            self._answer(asker, asked.id, BUSY, now)
        else:
            self._waiting[proposal.id] = [asker]
            leading.propose(proposal, now)

    def _tell_decided(self, asker: NodeId, asked: Asked, now: Instant) -> None:
        raft = self.raft
        assert raft is not None, "a leader has a log"
        found = raft.decided.find(asked.topic, asked.subject)
        answer = Answered(asked.id, DECIDED, "", raft.commit, found)
        self._deliver(asker, answer, now)

    def _applied(self, entry: Entry, result: Result | None) -> None:
        raft = self.raft
        if entry.proposal is None or result is None or raft is None:
            return
        self.asking.applied(entry.proposal.command, raft.decided)
        for asker in self._waiting.pop(entry.proposal.id, ()):
            answer = Answered(result.id, result.code, result.detail, entry.index)
            self._deliver(asker, answer, Instant(0))

    def _dismiss_waiting(self, now: Instant) -> None:
        """This node leads no more: whoever waits asks the next leader."""
        waiting, self._waiting = self._waiting, {}
        for name, askers in waiting.items():
            for asker in askers:
                self._answer(asker, name, LOST, now)

    def _answer(self, asker: NodeId, name: str, code: str, now: Instant) -> None:
        leader = self.asking.leader
        if leader == self._node:
            leader = NOBODY
        coordinators = self.asking.coordinators[: mesh_limits.SEATS]
        answer = Answered(
            name, code, "", self.asking.index, leader=leader, coordinators=coordinators
        )
        self._deliver(asker, answer, now)

    def _deliver(self, asker: NodeId, answer: Answered, now: Instant) -> None:
        if asker == self._node:
            self.asking.on_answered(asker, answer, now)
        else:
            self._out.send(asker, Lane.CONTROL, answer)

    # --- orders ---------------------------------------------------------------------------------
    def on_order(self, event: SeatOrdered, now: Instant) -> None:
        """An operator founds a group, or changes who decides."""
        raft = self.raft
        if raft is None:
            why = self._failed or "this node keeps no log: consensus is switched off"
            self._out.put(DecisionMade(event.number, "no_group", why))
        elif event.order == "found" and not raft.durable.group and not self.asking.coordinators:
            self._found(now)
            self._after(now)
            self._out.put(DecisionMade(event.number, DECIDED))
        else:
            code, detail = carry_out(raft, event, self._members(), now)
            self._after(now)
            self._out.put(DecisionMade(event.number, code, detail))

    def _found(self, now: Instant) -> None:
        assert self.raft is not None, "its caller looked"
        self.raft.found(str(self._chance.task_id()), now)
        self._out.tell("consensus.founded", self.raft.durable.group)

    def leave(self, now: Instant) -> None:
        """The node stops: have another lead without a gap."""
        if self.raft is not None and self.raft.leading is not None:
            self.raft.leading.hand_over(now)
            self.raft.settle(now)

    # --- what can be seen -----------------------------------------------------------------------
    def view(self) -> ConsensusView:
        """How it stands, seen from here."""
        raft = self.raft
        trouble = self._failed or self.asking.short_of_majority()
        if raft is None or not raft.durable.group:
            return ConsensusView(
                leader=self.asking.leader,
                coordinators=self.asking.coordinators,
                trouble=trouble,
            )
        has = raft.configuration
        return ConsensusView(
            group=raft.durable.group,
            role=str(raft.role) if raft.votes_here else "learner",
            term=raft.durable.term,
            leader=raft.leader,
            coordinators=self.asking.coordinators,
            seats=(
                *(SeatView(seat.node, votes=True) for seat in has.voters),
                *(SeatView(seat.node, votes=False) for seat in has.learners),
            ),
            committed=raft.commit,
            last=raft.durable.log.last_index,
            decisions=len(raft.decided),
            unwritten=raft.durable.waiting,
            trouble=trouble,
        )

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.asking.check()
        if self.raft is None:
            return
        self.raft.check()
        assert len(self._waiting) <= mesh_limits.PROPOSALS_PENDING
        if self.raft.durable.group:
            assert self._out.timer_runs(WAKE, ""), "the machine would never wake"


def _names(configuration: Configuration) -> str:
    voters = ", ".join(seat.node for seat in configuration.voters)
    learners = ", ".join(seat.node for seat in configuration.learners)
    return f"voters {voters}; learners {learners or 'none'}"


def _refuse(_peer: object, message: object, _now: Instant) -> None:
    raise PeerFault(f"{type(message).__name__} is never sent by itself")
