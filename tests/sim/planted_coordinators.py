"""Coordinators with a fault each, to prove that faults are found. For tests alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshslm.core.consensus.coordination import Coordination
from meshslm.core.consensus.decided import Decided
from meshslm.core.consensus.durable import Durable
from meshslm.core.consensus.events import LogRecovered, PersistLog
from meshslm.core.consensus.leading import Leading
from meshslm.core.consensus.raft import Raft
from meshslm.ids import Instant, NodeId
from meshslm.wire.consensus import Ballot, ConsensusMessage, Proposal, Result


class HastyDisk(Durable):
    def promise(self, to: NodeId, message: ConsensusMessage) -> None:
        self.send(to, message)


class Hasty(Raft):
    """Acknowledges before it has written."""

    def _make_durable(
        self, recovered: LogRecovered, persist: Callable[[PersistLog], None]
    ) -> Durable:
        return HastyDisk(recovered, persist, self._route)


class VotelessDisk(Durable):
    def enter(self, term: int, vote: NodeId | None) -> None:
        del vote
        super().enter(term, None)


class Turncoat(Raft):
    """Forgets whom it has voted for."""

    def _make_durable(
        self, recovered: LogRecovered, persist: Callable[[PersistLog], None]
    ) -> Durable:
        return VotelessDisk(recovered, persist, self._route)


class Unleased(Leading):
    def has_lease(self, now: Instant) -> bool:
        del now
        return True


class LeaselessReader(Raft):
    """Answers questions as long as it takes itself for the leader."""

    def _make_leading(self, now: Instant) -> Leading:
        return Unleased(self, now)


class Credulous(Raft):
    """Votes for candidates that lack what is committed."""

    def _is_current(self, ballot: Ballot) -> bool:
        del ballot
        return True


class Forgetful(Decided):
    def carry_out(self, index: int, proposal: Proposal) -> Result:
        self._results.pop(proposal.id, None)
        return super().carry_out(index, proposal)


class Repeater(Raft):
    """Carries a proposal out as often as it comes."""

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        forgetful = Forgetful()
        forgetful.__dict__.update(self.decided.__dict__)
        self.decided = forgetful


class Counting(Leading):
    def _may_commit(self, index: int) -> bool:
        del index
        return True


class OlderTermCounter(Raft):
    """Commits by count what a former leader appended."""

    def _make_leading(self, now: Instant) -> Leading:
        return Counting(self, now)


class Hurried(Leading):
    def obstacle(self) -> str:
        return "" if self.settled else super().obstacle()


class Hurrier(Raft):
    """Changes who decides while the former change is not committed."""

    def _make_leading(self, now: Instant) -> Leading:
        return Hurried(self, now)


class Early(Leading):
    def obstacle(self) -> str:
        return super().obstacle() if self.settled else ""


class EarlyChanger(Raft):
    """Changes who decides before it has committed anything."""

    def _make_leading(self, now: Instant) -> Leading:
        return Early(self, now)


def with_fault(fault: type[Raft]) -> type[Coordination]:
    """Coordination that drives a faulty machine."""
    return type(f"{fault.__name__}Coordination", (Coordination,), {"MACHINE": fault})
