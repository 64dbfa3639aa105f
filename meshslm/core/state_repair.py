"""Replicas that hold equally much and differ all the same: found, told, and mended.

It should never happen: memory that flipped, a bug, or an author that signed two different changes
under one clock. The document is put in quarantine, which is shown; what is in memory is compared
with a sum made from scratch, and read again from the journal where that differs; else both sides
compare part by part. Of two versions the author's own stays, else the one with the smaller sum, so
that all come to the same; the other side throws the part away and fetches it again, signed.

Rules:
- Only equal clocks are compared: unequal ones are no divergence.
- The quarantine ends when a comparison agrees.
"""

from __future__ import annotations

from meshslm.core.documents import Documents
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_sync import StateSync
from meshslm.ids import Instant, NodeId
from meshslm.state.document import Document
from meshslm.state.part import Part, Poisoned
from meshslm.wire.state import PartClock, StateVector


class StateRepair:
    """What follows a divergence."""

    def __init__(self, documents: Documents, out: Outbox) -> None:
        self._documents = documents
        self._library = documents.holdings
        self._out = out
        self.repaired = 0

    def diverged(self, document: Document, peer: NodeId, _now: Instant) -> None:
        """A comparison with a peer found different entries behind equal clocks."""
        if not self._quarantine(document, peer):
            clocks = document.clocks(contents=True)
            vector = StateVector(document.name, clocks, contents=True)
            self._out.send(peer, Lane.BACKGROUND, vector)

    def _quarantine(self, document: Document, peer: NodeId) -> bool:
        """Tell of it; whether this node's memory was at fault."""
        self._out.tell("state.diverged", document.name, peer=peer)
        document.quarantined = True
        return self._mended_here(document)

    def _mended_here(self, document: Document) -> bool:
        """Whether the fault was in this node's memory; then it is being read again."""
        found = False
        for part in list(document.parts.values()):
            try:
                if part.recomputed() == part.content:
                    continue
                wrong = Poisoned(f"{part.key}: its sum is wrong")
            except Poisoned as error:
                wrong = error
            self._library.poisoned(part, wrong)
            self.repaired += 1
            found = True
        return found

    def compare(self, sync: StateSync, vector: StateVector, peer: NodeId, now: Instant) -> None:
        """The peer has sent the sums of its parts: throw away what is to be fetched again."""
        document = self._library.find(vector.document)
        if document is None:
            return
        differing = [
            (part, clock)
            for clock in vector.parts
            if (part := document.part(clock.author, clock.generation)) is not None
            and part.clock == clock.clock
            and part.content != int.from_bytes(clock.content, "big")
        ]
        if not differing:
            return
        if not document.quarantined and self._quarantine(document, peer):
            return
        away = [part for part, clock in differing if self._loses(part, clock, peer)]
        for part in away:
            self._library.drop(part)
            self.repaired += 1
        if away:
            keys = tuple(part.key for part in away)
            self._documents.journal.persist(lambda _now: None, dropped=keys)
            sync.ask(peer, vector.document, now, keys)

    def _loses(self, part: Part, theirs: PartClock, peer: NodeId) -> bool:
        if part.key.author in (self._documents.node, peer):
            return part.key.author == peer
        return part.content > int.from_bytes(theirs.content, "big")
