"""What others say of themselves and of each other in a large mesh, and what of it is believed.

Rules:
- Nothing is believed of a member but what it has signed itself; that it is gone, by what several
  others have signed, each of whom may say so of a bounded number.
- Whoever hands on what it cannot have checked breaks the protocol; what is old costs its sender.
- Who takes somebody for alive who is gone is told who has lost that one.
- Whoever the mesh's key has put out is forgotten within a second of the word, linked or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import limits, mesh_limits
from meshslm.core.admission import Admission
from meshslm.core.conduct import Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.directory import Peer
from meshslm.core.members import Members, Outcome
from meshslm.core.overlay import Overlay
from meshslm.core.own_record import OwnRecord
from meshslm.core.records import Charge, Fact, checked
from meshslm.core.spread import Spread
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.admission import Signed
from meshslm.wire.growth import Facts, Record


def belongs(record: Record, config: CoreConfig, admission: Admission, now: Instant) -> bool:
    """Whether whoever signed a record is of this mesh."""
    if admission.private:
        return admission.vouched(record.node, record.credential, now)
    return record.mesh == config.mesh


@dataclass(slots=True)
class Allowance:
    """Accusations of one member that are still believed."""

    left: float
    at: Instant


class Hearing:
    """Others' statements at one node."""

    def __init__(
        self,
        config: CoreConfig,
        members: Members,
        own: OwnRecord,
        overlay: Overlay,
        spread: Spread,
        admission: Admission,
        conduct: Conduct,
    ) -> None:
        self._config = config
        self._members = members
        self._own = own
        self._overlay = overlay
        self._spread = spread
        self._admission = admission
        self._conduct = conduct
        self._allowances: dict[NodeId, Allowance] = {}
        self._notices = b""
        """Digest of the notices by which those that are held were judged."""
        self._contradicted: dict[NodeId, int] = {}
        """Of the present message: members that are gone, and how many say so in it. Who says so
        itself may not know that others do."""

    def on_facts(self, peer: Peer, facts: Facts, now: Instant) -> None:
        """A peer hands statements on. Raises `Forged`."""
        if self._config.verify_node is None:
            return
        self._contradicted.clear()
        worth = [self._take(peer, signed, now) for signed in facts.statements]
        self._spread.heard(peer, facts, worth)
        for node, accusers in self._contradicted.items():
            if accusers < mesh_limits.ACCUSERS:
                self._spread.contradict(peer, node)

    def _take(self, peer: Peer, signed: Signed, now: Instant) -> Outcome:
        verify = self._config.verify_node
        assert verify is not None, "nothing is believed unchecked"
        statement = checked(signed, verify)
        if isinstance(statement, Charge):
            accused = statement.accusation.node
            known = accused in self._members.lost
            worth = self._hear_charge(statement, now)
            if known or (peer.node == statement.accusation.by and accused in self._members.lost):
                self._contradicted[accused] = self._contradicted.get(accused, 0) + 1
        else:
            worth = self._hear_record(statement, now)
        if worth is Outcome.NEWS:
            self._spread.add(signed, peer.node, now)
        elif worth is Outcome.STALE:
            self._conduct.spend(peer.node, now)
        return worth

    def sweep(self, now: Instant) -> None:
        """Once a second: forget who is gone for long, and who was put out since the last time."""
        self._members.sweep(now)
        board = self._admission.board
        if board is None or board.digest == self._notices:
            return
        self._notices = board.digest
        for record in [fact.record for fact in self._members.all()]:
            if record.node != self._config.node and board.bars(record.credential):
                self._members.drop(record.node)

    def _hear_record(self, fact: Fact, now: Instant) -> Outcome:
        record = fact.record
        if record.node == self._config.node:
            return self._own.heard(fact, now)
        if self._members.get(record.node) is fact:
            return Outcome.KNOWN
        if not belongs(record, self._config, self._admission, now):
            return Outcome.REFUSED
        worth = self._members.take(fact, now)
        if worth is not Outcome.NEWS and record.node in self._members.lost and not record.left:
            self._contradicted[record.node] = 0
        return worth

    def _hear_charge(self, charge: Charge, now: Instant) -> Outcome:
        said = charge.accusation
        if said.node == self._config.node:
            self._own.refute(said, now)
            return Outcome.KNOWN
        worth = self._members.weigh(charge)
        if worth is not Outcome.NEWS:
            return worth
        if said.by == said.node or not self._believed(said.by, now):
            return Outcome.REFUSED
        self._overlay.heard_accusation(said.node, now)
        return self._members.charge(charge, now)

    def _believed(self, by: NodeId, now: Instant) -> bool:
        """Count an accusation of a member; false where it made too many."""
        known = self._allowances.get(by)
        if known is None:
            if len(self._allowances) >= limits.CONDUCT_RECORDS:
                del self._allowances[next(iter(self._allowances))]
            known = self._allowances[by] = Allowance(mesh_limits.ACCUSATIONS, now)
        refilled = ms_between(known.at, now) / 1000 * mesh_limits.ACCUSATIONS_PER_S
        known.left, known.at = min(mesh_limits.ACCUSATIONS, known.left + refilled), now
        if known.left < 1:
            return False
        known.left -= 1
        return True

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._allowances) <= limits.CONDUCT_RECORDS
