"""A member that wants something decided, or wants to know what is: it finds the leader and asks.

Rules:
- Every try of one proposal has the same id, so it is carried out once, whoever heard it.
- Where a majority of the coordinators is known to be out of reach, it is refused at once; in any
  other case within `mesh_limits.ASK_MS`. If a try may have been heard, the answer says so.
- Nobody is asked in vain for long: coordinators tell whom to ask instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.consensus.decided import GENERATION, Decided
from meshslm.core.consensus.events import DecisionMade, DecisionWanted
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, after
from meshslm.wire.consensus import (
    Answered,
    Asked,
    Command,
    Configuration,
    Decision,
    Proposal,
)

TIMER = "consensus-ask"
NO_FACE = 0
"""Number of what this node asks for itself."""
NOBODY = NodeId("")

ELSEWHERE, BUSY, LOST, STALE = "elsewhere", "busy", "lost", "stale"
FORBIDDEN = "forbidden"
AGAIN = (ELSEWHERE, BUSY, LOST)
"""Answers after which another try is made."""

MEANWHILE = "nothing can be decided until then; requests are answered all the same"


@dataclass(slots=True)
class Ask:
    """One thing that somebody here wants."""

    number: int
    asked: Asked
    until: Instant
    tries: int = 0
    bounced: bool = False
    """It was sent on since the last look."""


class Asking:
    """What this node has asked and not heard of."""

    def __init__(
        self,
        node: NodeId,
        out: Outbox,
        chance: Chance,
        *,
        members: Callable[[], list[NodeId]],
        serve: Callable[[Asked, Instant], None],
        leader: Callable[[], NodeId],
        configuration: Callable[[], Configuration],
    ) -> None:
        self._node = node
        self._out = out
        self._chance = chance
        self._members = members
        self._serve = serve
        self._leader_here = leader
        self._configuration = configuration
        self._asks: dict[str, Ask] = {}
        self._told_leader = NOBODY
        self._told: tuple[NodeId, ...] = ()
        self.followed: Callable[[Decision], None] = lambda _decision: None
        """Hears of generations as soon as this node's log has them, and of all that is answered."""
        self.index = 0
        """What is known to be committed."""

    @property
    def coordinators(self) -> tuple[NodeId, ...]:
        """Who decides, as far as this node knows."""
        seats = self._configuration().voters
        return tuple(seat.node for seat in seats) or self._told

    @property
    def leader(self) -> NodeId:
        """Who leads, as far as this node knows."""
        return self._leader_here() or self._told_leader

    def want(self, event: DecisionWanted, now: Instant) -> None:
        """Begin to ask."""
        short = self.short_of_majority()
        if short:
            self._end(event.number, "no_majority", short)
        elif len(self._asks) >= mesh_limits.PROPOSALS_PENDING:
            self._end(event.number, BUSY, f"{mesh_limits.PROPOSALS_PENDING} are asked for already")
        else:
            asked = self._minted(event.command, event.kind, event.subject)
            ask = Ask(event.number, asked, after(now, mesh_limits.ASK_MS))
            self._asks[asked.id] = ask
            if not self._out.timer_runs(TIMER, ""):
                self._out.start_timer(TIMER, "", mesh_limits.ASK_AGAIN_MS)
            self._try(ask, now)

    def look(self, kind: str, now: Instant) -> None:
        """Ask what is decided of a kind, for who follows it."""
        self.want(DecisionWanted(NO_FACE, None, kind), now)

    def applied(self, command: Command, decided: Decided) -> None:
        """The log of this node has come to an entry that holds a command."""
        if command.act == GENERATION:
            for decision in decided.find(GENERATION, command.subject):
                self.followed(decision)

    def _minted(self, command: Command | None, kind: str, subject: str) -> Asked:
        name = str(self._chance.task_id())
        proposal = Proposal(name, self.index, command) if command is not None else None
        return Asked(name, proposal, kind, subject)

    def short_of_majority(self) -> str:
        """Why nothing can be decided, as seen by a coordinator; empty: it seems it can."""
        voters = [seat.node for seat in self._configuration().voters]
        there = self._members()
        reached = sum(1 for node in voters if node == self._node or node in there)
        needed = len(voters) // 2 + 1
        if not voters or reached >= needed:
            return ""
        return f"{reached} of {len(voters)} coordinators can be reached, {needed} are needed: " + (
            MEANWHILE
        )

    def timer(self, now: Instant) -> None:
        """Try again what was not answered; end what has waited too long."""
        for ask in list(self._asks.values()):
            if now >= ask.until:
                del self._asks[ask.asked.id]
                self._end(ask.number, *self._too_late(ask))
            else:
                ask.bounced = False
                self._try(ask, now)
        if self._asks:
            self._out.start_timer(TIMER, "", mesh_limits.ASK_AGAIN_MS)

    def _too_late(self, ask: Ask) -> tuple[str, str]:
        if not ask.tries:
            return "no_group", (
                "no coordinators are known: 'meshslm mesh consensus --found' makes a node the first"
            )
        if ask.asked.proposal is not None:
            return "unknown", (
                f"no answer within {mesh_limits.ASK_MS / 1000:g} s, as the coordinators have no "
                "leader or it has no majority: it may still be decided, so look before you ask "
                "again"
            )
        return "no_majority", "the coordinators have no leader, or it does not answer: " + MEANWHILE

    def _try(self, ask: Ask, now: Instant, hint: NodeId = NOBODY) -> None:
        target = hint if hint in self._members() else self._target(ask.tries)
        if target is None:
            return
        ask.tries += 1
        if target == self._node:
            self._serve(ask.asked, now)
        else:
            self._out.send(target, Lane.CONTROL, ask.asked)

    def _target(self, turn: int) -> NodeId | None:
        """Whom to ask at this try: the leader, then the others in turn."""
        there = self._members()
        known = dict.fromkeys((self.leader, *self.coordinators))
        near = [node for node in known if node in there or node == self._node == self.leader]
        if not near:
            near = there
        return near[turn % len(near)] if near else None

    def on_answered(self, sender: NodeId, answer: Answered, now: Instant) -> None:
        """Somebody answers."""
        ask = self._asks.get(answer.id)
        if ask is None:
            return
        self.index = max(self.index, answer.index)
        if answer.coordinators:
            self._told, self._told_leader = answer.coordinators, answer.leader
        if answer.code in AGAIN:
            if answer.leader not in (NOBODY, sender) and not ask.bounced:
                ask.bounced = True
                self._try(ask, now, answer.leader)
            return
        del self._asks[answer.id]
        proposal = ask.asked.proposal
        if answer.code == STALE and proposal is not None:
            self._end_or_mint(ask, proposal, now)
        else:
            self._end(ask.number, answer.code, answer.detail, answer)

    def _end_or_mint(self, ask: Ask, proposal: Proposal, now: Instant) -> None:
        """A first try with an index that is too old did nothing: ask anew with the present one."""
        if ask.tries > 1 or proposal.base >= self.index:
            self._end(ask.number, "unknown", "it is not known any more what came of it: look")
            return
        ask.asked = self._minted(proposal.command, "", "")
        self._asks[ask.asked.id] = ask
        self._try(ask, now)

    def _end(
        self, number: int, code: str, detail: str = "", answer: Answered | None = None
    ) -> None:
        index = answer.index if answer is not None else 0
        decisions = answer.decisions if answer is not None else ()
        if number != NO_FACE:
            self._out.put(DecisionMade(number, str(code), detail, index, decisions))
        for decision in decisions:
            self.followed(decision)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._asks) <= mesh_limits.PROPOSALS_PENDING
        if self._asks:
            assert self._out.timer_runs(TIMER, ""), "somebody may wait for ever"
