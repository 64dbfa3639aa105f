"""How replicas find out what they lack, and get it.

What is durable is pushed to everybody who wants the document; a few others are told what came
from elsewhere; and now and then two nodes compare. A comparison is one hash where nothing is
missing, else a digest for each document, a vector for each that differs, and the signed deltas
behind it. Whoever lacks something asks, piece by piece, so that bulk goes at the asker's pace.

Messages: 101 to 107. Timers: `state.sync`, `state.pull`.

Rules:
- Nothing is sent to who does not want the document, and all in the lane that tokens go before.
- A document is asked for at one peer at a time, and few of each peer (`state_pulls`); for more of
  it where an answer was of use: what is refused here would come again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshslm import state_limits
from meshslm.chance import Chance
from meshslm.core.allowance import Allowance
from meshslm.core.directory import Directory, Peer
from meshslm.core.documents import Documents
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_answering import StateAnswering
from meshslm.core.state_checks import StateChecks
from meshslm.core.state_events import DeltasRead
from meshslm.core.state_forgetting import StateForgetting
from meshslm.core.state_intake import StateIntake
from meshslm.core.state_packing import unpacked
from meshslm.core.state_pulls import StatePulls
from meshslm.core.state_push import Partner, StatePush
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId
from meshslm.state.document import Document, total
from meshslm.state.names import check_name, wanted
from meshslm.state.part import PartKey
from meshslm.wire.messages import Message
from meshslm.wire.state import (
    Delta,
    DocumentDigest,
    PartClock,
    StateCheck,
    StateDeltas,
    StateDigests,
    StateHave,
    StateInterest,
    StateSummary,
    StateVector,
)

SYNC = "state.sync"


@dataclass(slots=True)
class Counts:
    """What synchronisation has done since the start."""

    compared: int = 0
    agreed: int = 0
    diverged: int = 0


class StateSync:
    """The talk about documents with all peers."""

    def __init__(
        self,
        documents: Documents,
        intake: StateIntake,
        directory: Directory,
        out: Outbox,
        chance: Chance,
        diverged: Callable[[Document, NodeId, Instant], None],
        compare: Callable[[StateVector, NodeId, Instant], None],
        forgetting: StateForgetting,
    ) -> None:
        self._documents = documents
        self._library = documents.holdings
        self._intake = intake
        self._directory = directory
        self._out = out
        self._chance = chance
        self._diverged = diverged
        self._compare = compare
        self._forgetting = forgetting
        self.partners: dict[NodeId, Partner] = {}
        self.pushes = StatePush(documents, self.partners, out, chance, self._prune)
        self.counts = Counts()
        self._pulls = StatePulls(out)
        is_partner = self.partners.__contains__
        self._answering = StateAnswering(out, is_partner, chance.fork("answers"))
        per_s, burst = state_limits.DIGESTS_TOLD_PER_S, state_limits.DIGESTS_TOLD_BURST
        self._digests = Allowance(per_s, burst)
        self._interests: tuple[str, ...] = ()
        self.checks = StateChecks(self.partners, out, self.shared)

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """For messages of members."""
        return {
            Delta: _refuse,
            StateInterest: self.on_interest,
            StateSummary: self.on_summary,
            StateDigests: self.on_digests,
            StateVector: self.on_vector,
            StateDeltas: self.on_deltas,
            StateHave: self.on_have,
            StateCheck: self.on_check,
        }

    # --- partners -------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to compare."""
        self._interests = self._documents.interests
        self._plan()
        for peer in self._directory.alive():
            self._greet(peer)

    def met(self, peer: Peer) -> None:
        """A peer's hello was heard: say what we want, once in its life."""
        known = self.partners.get(peer.node)
        if self._documents.ready and (known is None or known.boot != peer.boot):
            self._greet(peer)

    def parted(self, node: NodeId) -> None:
        """A peer is gone."""
        self.partners.pop(node, None)
        self._pulls.parted(node)
        self._answering.parted(node)

    def _prune(self) -> None:
        """Forget who is not there any more: nothing is sent where there is no link."""
        for node in list(self.partners):
            if self._directory.get_alive(node) is None:
                self.parted(node)

    def linked(self) -> list[NodeId]:
        """Members that have documents, and a link to this node."""
        self._prune()
        return sorted(self.partners)

    def _greet(self, peer: Peer) -> None:
        known = self.partners.get(peer.node)
        interests = known.interests if known is not None and known.boot == peer.boot else ()
        self.partners[peer.node] = Partner(peer.boot, interests)
        self._send(peer.node, StateInterest(self._documents.interests, answer=True))
        if interests:
            self.summarise(peer.node)

    def on_interest(self, peer: Peer, message: StateInterest, _now: Instant) -> None:
        """The peer says what it wants: compare at once."""
        partner = self.partners.setdefault(peer.node, Partner(peer.boot))
        partner.interests = message.patterns
        if message.answer:
            self._send(peer.node, StateInterest(self._documents.interests))
        if self._documents.ready:
            self.summarise(peer.node)

    def _partner(self, node: NodeId) -> Partner | None:
        partner = self.partners.get(node)
        return partner if partner is not None and self._documents.ready else None

    def shared(self, partner: Partner) -> list[Document]:
        """Documents here that both want."""
        return [
            document
            for name, document in self._library.documents.items()
            if self._documents.wanted(name) and wanted(partner.interests, name)
        ]

    # --- comparing ------------------------------------------------------------------------------
    def _plan(self) -> None:
        low, high = state_limits.STATE_SYNC_MS, state_limits.STATE_SYNC_MOST_MS
        self._out.start_timer(SYNC, "", self._chance.between(low, high))

    def sync(self) -> None:
        """Compare with a random peer."""
        self._plan()
        self._prune()
        self.tell_interests()
        others = [node for node, partner in self.partners.items() if partner.interests]
        if others:
            self.summarise(self._chance.pick(others))

    def tell_interests(self) -> None:
        """Tell everybody where we have come to want more."""
        if self._interests != self._documents.interests:
            self._interests = self._documents.interests
            for node in list(self.partners):
                self._send(node, StateInterest(self._interests))

    def summarise(self, node: NodeId) -> None:
        """Compare with a peer."""
        partner = self._partner(node)
        if partner is not None:
            digests = [document.digest() for document in self.shared(partner)]
            self._send(node, StateSummary(total(digests)))

    def on_summary(self, peer: Peer, message: StateSummary, now: Instant) -> None:
        """The peer says what it holds, in one hash."""
        partner = self._partner(peer.node)
        if partner is None:
            return
        self.counts.compared += 1
        shared = self.shared(partner)
        digests = [document.digest() for document in shared]
        if total(digests) == message.total:
            self.counts.agreed += 1
            for document in shared:
                document.quarantined = False
        else:
            self._send_digests(peer.node, digests, now)

    def _send_digests(
        self, node: NodeId, digests: list[DocumentDigest], now: Instant, nonce: int = 0
    ) -> None:
        if self._digests.empty(node, now):
            return
        self._digests.spend(node, len(digests) * state_limits.DIGEST_BYTES, now)
        most = state_limits.DIGESTS
        for start in range(0, max(1, len(digests)), most):
            more = start + most < len(digests)
            self._send(node, StateDigests(tuple(digests[start : start + most]), more, nonce))

    def on_check(self, peer: Peer, message: StateCheck, now: Instant) -> None:
        """The peer compares everything."""
        partner = self._partner(peer.node)
        if partner is not None:
            digests = [document.digest() for document in self.shared(partner)]
            self._send_digests(peer.node, digests, now, message.nonce)

    def on_digests(self, peer: Peer, message: StateDigests, now: Instant) -> None:
        """The peer says what it holds, document by document."""
        partner = self._partner(peer.node)
        if partner is None:
            return
        for digest in message.digests:
            check_name(digest.document)
        if len(partner.digests) + len(message.digests) > state_limits.DOCUMENTS:
            raise PeerFault(f"digests of over {state_limits.DOCUMENTS} documents")
        partner.digests.update((digest.document, digest) for digest in message.digests)
        if message.more:
            return
        theirs, partner.digests = partner.digests, {}
        self.checks.note(peer.node, message.nonce, theirs)
        for document in self.shared(partner):
            ours, told = document.digest(), theirs.get(document.name)
            if told is None or told.vector != ours.vector:
                vector = told.vector if told is not None else b""
                self.ask(peer.node, document.name, now, also_tell=True, told=vector)
            elif told.content != ours.content:
                self.counts.diverged += 1
                self._diverged(document, peer.node, now)
            else:
                document.quarantined = False
        for name in theirs:
            if self._library.find(name) is None and self._documents.wanted(name):
                self.ask(peer.node, name, now)

    def check_all(self) -> None:
        """Compare everything with everybody: `checks` tells what comes of it."""
        self._prune()
        self.checks.begin()

    # --- asking ---------------------------------------------------------------------------------
    def ask(
        self,
        node: NodeId,
        name: str,
        now: Instant,
        parts: tuple[PartKey, ...] | None = None,
        *,
        also_tell: bool = False,
        told: bytes = b"",
    ) -> None:
        """Ask for what is missing of a document, or of some parts; and say what we hold.

        Where the peer has enough to answer, the whole document is asked for later, unless we hold
        by then what the peer has `told` of.
        """
        busy = self._pulls.busy(name, node, now)
        if busy and not also_tell:
            return
        if self._pulls.full(node):
            self._pulls.wait(node, name, told)
            return
        document = self._library.find(name)
        clocks = document.clocks() if document is not None else ()
        if parts is not None:
            held = {(c.author, c.generation): c.clock for c in clocks}
            clocks = tuple(
                PartClock(p.author, p.generation, held.get((p.author, p.generation), 0))
                for p in parts
            )
        if not busy:
            self._pulls.begin(node, name, now)
        told_of, came = self._forgetting.told(name), self._pulls.tell_came(node)
        partial = parts is not None
        vector = StateVector(name, clocks, not busy, partial, forgotten=told_of, came=came)
        self._send(node, vector)

    def pull(self, now: Instant) -> None:
        """Ask again for what has not come."""
        self._prune()
        for node in self._pulls.look(now):
            self._ask_next(node, now)

    def _ask_next(self, node: NodeId, now: Instant) -> None:
        """Ask for what waits until the peer has enough to answer."""
        while (found := self._pulls.next(node)) is not None:
            name, told = found
            document = self._library.find(name)
            held = told and document is not None and document.digest().vector == told
            if not held and self._documents.wanted(name):
                self.ask(node, name, now)

    def on_vector(self, peer: Peer, message: StateVector, now: Instant) -> None:
        """The peer says what it holds of one document, and may want the rest."""
        check_name(message.document)
        partner = self._partner(peer.node)
        if partner is None:
            return
        if message.contents:
            self._compare(message, peer.node, now)
            return
        self._answering.came(peer.node, message.came)
        self._forgetting.hinted(message.document, message.forgotten, now)
        document = self._library.find(message.document)
        theirs = {(part.author, part.generation): part.clock for part in message.parts}
        if self._documents.wanted(message.document) and self._behind(message.document, theirs):
            self.ask(peer.node, message.document, now)
        if message.want and wanted(partner.interests, message.document):
            self._answering.answer(peer.node, message, document, theirs, now)

    def _behind(self, name: str, theirs: dict[tuple[NodeId, int], int]) -> bool:
        document, forgotten = self._library.find(name), self._documents.forgotten
        for (author, generation), clock in theirs.items():
            if forgotten.covers(name, author, generation):
                continue
            if document is None:
                return True
            part = document.part(author, generation)
            held = part.clock if part is not None else 0
            if held < clock and not document.is_outdated(author, generation):
                return True
        return False

    def read(self, event: DeltasRead, now: Instant) -> None:
        """The journal has read what a peer asked for."""
        self._prune()
        self._answering.read(event, now)

    def on_deltas(self, peer: Peer, message: StateDeltas, now: Instant) -> None:
        """Deltas: pushed, or asked for."""
        if self._partner(peer.node) is None:
            return
        before = self._intake.of_use
        behind = self._intake.take(unpacked(message), peer.node, now)
        more = self._pulls.came(peer.node, message.document, message.answer, now) and message.more
        if more and (self._intake.of_use > before or self._documents.journal.full):
            self._pulls.wait(peer.node, message.document)
        self._ask_next(peer.node, now)
        by_document: dict[str, list[PartKey]] = {}
        for key in behind:
            by_document.setdefault(key.document, []).append(key)
        for name, parts in by_document.items():
            self.ask(peer.node, name, now, tuple(parts))

    def on_have(self, peer: Peer, message: StateHave, now: Instant) -> None:
        """The peer holds something: ask for it where we lack it."""
        if self._partner(peer.node) is None:
            return
        lacking: dict[str, list[PartKey]] = {}
        for holding in message.holdings:
            check_name(holding.document)
            name, part = holding.document, holding.part
            theirs = {(part.author, part.generation): part.clock}
            if self._documents.wanted(name) and self._behind(name, theirs):
                key = PartKey(name, part.author, part.generation)
                lacking.setdefault(name, []).append(key)
        for name, parts in lacking.items():
            self.ask(peer.node, name, now, tuple(parts))

    def _send(self, node: NodeId, message: Message) -> None:
        self._out.send(node, Lane.BACKGROUND, message)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for node in self.partners:
            peer = self._directory.peers.get(node)
            assert peer is not None, f"{node} is a partner and unknown"
        self._pulls.check()


def _refuse(_peer: Peer, message: object, _now: Instant) -> None:
    raise PeerFault(f"a {type(message).__name__} is no message by itself")
