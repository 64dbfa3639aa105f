"""What of others' deltas is taken, and why the rest is not.

In this order: size (by the codec), what is known already, signature, the author's right, sound
bytes, bounds, order; then it is applied, and given to the journal. Whoever follows the document,
and other nodes, hear of it when it is durable.

Rules:
- Whoever sends what no honest node can send is at fault, relay or not: it could have checked.
- What an honest relay may not know (the author's right, our own bounds) is its author's fault
  alone, and only where the author itself sends it.
- An author's deltas are taken in the order of its clock; what comes too early is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from meshslm import limits, state_limits
from meshslm.core.documents import Documents
from meshslm.core.outbox import Outbox
from meshslm.core.state_authors import StateAuthors
from meshslm.core.state_events import StoredDelta, StoredSnapshot
from meshslm.core.state_holdings import apply, delta_in
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId
from meshslm.state.names import check_name
from meshslm.state.part import Part, PartKey, Poisoned, client_id
from meshslm.state.validate import check_update
from meshslm.wire.admission import SIGNED_PREFIX
from meshslm.wire.state import Delta, Holding, PartClock, SignedDelta

Heard = Callable[[tuple[Holding, ...], Instant], None]


class Verdict(Enum):
    """What became of a delta."""

    TAKEN = auto()
    KNOWN = auto()
    BEHIND = auto()
    """Something before it is missing here."""
    REFUSED = auto()


@dataclass(slots=True)
class Batch:
    """Deltas of one message that were taken, before they are given to the journal."""

    stored: list[StoredDelta] = field(default_factory=list)
    snapshots: list[StoredSnapshot] = field(default_factory=list)
    keys: dict[str, dict[str, None]] = field(default_factory=dict)
    parts: dict[PartKey, None] = field(default_factory=dict)
    dropped: list[PartKey] = field(default_factory=list)
    behind: dict[PartKey, None] = field(default_factory=dict)
    unknown: dict[NodeId, None] = field(default_factory=dict)
    """Authors whose rights nobody here knows."""
    refused: dict[PartKey, None] = field(default_factory=dict)
    """Parts of which something was not kept: what follows it lacks nothing that would be."""


class StateIntake:
    """The way in for others' changes."""

    def __init__(
        self,
        documents: Documents,
        out: Outbox,
        authors: StateAuthors,
        heard: Heard,
    ) -> None:
        self._documents = documents
        self._library = documents.holdings
        self._out = out
        self._authors = authors
        self._heard = heard
        self.taken = 0
        self.refused = 0
        self.known = 0
        """Deltas that came again: sent twice on the way, or replayed; what they cost is the
        sender's allowance of messages."""
        self.quarantined: dict[str, None] = {}

    @property
    def of_use(self) -> int:
        """Deltas that are held here since they came, or were already."""
        return self.taken + self.known

    def take(
        self, deltas: tuple[SignedDelta, ...], sender: NodeId, now: Instant
    ) -> tuple[PartKey, ...]:
        """Take what can be taken; the parts of which something before it is missing.

        Raises `PeerFault` for what the sender must not send; what came before that is kept.
        """
        batch = Batch()
        try:
            for signed in deltas:
                self._take(signed, sender, batch)
        finally:
            self._journal(batch)
        for author in batch.unknown:
            self._authors.ask(author, sender, now)
        return tuple(batch.behind)

    def _take(self, signed: SignedDelta, sender: NodeId, batch: Batch) -> None:
        delta = delta_in(signed.payload)
        key = PartKey(delta.document, delta.author, delta.generation)
        check_name(delta.document)
        verdict = self._place(delta, key)
        if verdict is Verdict.BEHIND and key not in batch.refused:
            batch.behind[key] = None
        if verdict is not Verdict.TAKEN:
            self.known += verdict is Verdict.KNOWN
            return
        self._check_signed(delta, signed)
        if self._authors.unknown(delta.author):
            batch.unknown[delta.author] = batch.refused[key] = None
            return
        refusal = self._refusal(delta, key)
        if refusal:
            self.refused += 1
            batch.refused[key] = None
            self._out.tell("state.refused", f"{delta.document}: {refusal}", peer=delta.author)
            if sender == delta.author:
                raise PeerFault(f"{delta.document}: {refusal}")
            return
        self._check_updates(delta, key)
        self._apply(delta, key, signed, batch)

    def _place(self, delta: Delta, key: PartKey) -> Verdict:
        """Where it stands against what is here."""
        documents = self._documents
        if not documents.ready or self._library.loading(key):
            return Verdict.REFUSED
        if key.author != documents.node and not documents.wanted(key.document):
            return Verdict.REFUSED
        if documents.over(key.document):
            return Verdict.REFUSED
        if documents.forgotten.covers(key.document, key.author, key.generation):
            return Verdict.KNOWN
        if documents.journal.full:
            return Verdict.REFUSED
        document = self._library.find(key.document)
        if document is not None and document.is_outdated(key.author, key.generation):
            return Verdict.KNOWN
        part = document.part(key.author, key.generation) if document is not None else None
        clock = part.clock if part is not None else 0
        if delta.after <= clock:
            return Verdict.KNOWN
        return Verdict.TAKEN if delta.before <= clock else Verdict.BEHIND

    def _check_signed(self, delta: Delta, signed: SignedDelta) -> None:
        config = self._documents.config
        assert config is not None, "who has no documents takes none"
        if delta.mesh != config.mesh:
            raise PeerFault("a delta of another mesh")
        if not config.verify(delta.author, SIGNED_PREFIX + signed.payload, signed.signature):
            raise PeerFault(f"a delta is not signed by {delta.author}")

    def _refusal(self, delta: Delta, key: PartKey) -> str:
        """Why this node does not keep it, though it is genuine."""
        if not self._authors.may_write(delta.author, delta.document):
            return "its author may not write here"
        document = self._library.find(key.document)
        own = document.own(key.author) if document is not None else []
        if not own and self._library.authored(key.author) >= state_limits.DOCUMENTS_PER_AUTHOR:
            return f"its author has parts in {state_limits.DOCUMENTS_PER_AUTHOR} documents already"
        if document is None and len(self._library.documents) >= state_limits.DOCUMENTS:
            return f"there are {state_limits.DOCUMENTS} documents already"
        part = document.part(key.author, key.generation) if document is not None else None
        if part is None and document is not None and len(document.parts) >= state_limits.PARTS:
            return f"the document has {state_limits.PARTS} parts already"
        most = state_limits.DOCUMENT_MIB * limits.MIB
        live = sum(p.live_bytes for p in own)
        full = sum(p.full_bytes for p in own) + len(delta.updates) * 16
        if live > 2 * most or full > (state_limits.STATE_REBUILD_RATIO + 2) * most:
            return f"its author has {live} bytes here, {full} with what it wrote over"
        if sum(len(p.live) for p in own) > 2 * state_limits.DOCUMENT_KEYS:
            return f"its author has over {state_limits.DOCUMENT_KEYS} entries here"
        return ""

    def _check_updates(self, delta: Delta, key: PartKey) -> None:
        part = self._library.part(key)
        clock = part.clock if part is not None else 0
        if delta.before != clock:
            raise PeerFault(f"a delta from {delta.before} overlaps what ends at {clock}")
        if part is not None and part.sealed:
            raise PeerFault(f"a delta behind the seal of {key.document}")
        client = client_id(key)
        made: dict[str, None] = {}
        for update in delta.updates:
            changes = check_update(update, client, clock)
            clock += changes.count
            for name in changes.made:
                if name in made or (part is not None and name in part.live):
                    raise PeerFault("a delta makes a key that is there")
                made[name] = None
        if clock != delta.after or not delta.updates:
            raise PeerFault(f"a delta says that it ends at {delta.after}, and ends at {clock}")

    def _apply(self, delta: Delta, key: PartKey, signed: SignedDelta, batch: Batch) -> None:
        part = self._library.part(key) or self._library.make(key)
        try:
            keys = apply(part, delta)
        except Poisoned as error:
            self._library.poisoned(part, error)
            raise PeerFault(f"a delta of {key.author} cannot be applied") from error
        document = self._library.documents[key.document]
        document.changed(part, keys)
        self.taken += 1
        batch.stored.append(StoredDelta(key, delta.before, delta.after, signed))
        batch.snapshots += self._library.journalled(part, len(signed.payload))
        batch.keys.setdefault(key.document, {}).update(dict.fromkeys(keys))
        batch.parts[key] = None
        if key.author == self._documents.node:
            self._documents.behind_ourselves(key)
        if delta.base:
            self._drop(document.outdated(part), batch)

    def _drop(self, outdated: list[Part], batch: Batch) -> None:
        for old in outdated:
            self._library.drop(old)
            batch.dropped.append(old.key)

    def _journal(self, batch: Batch) -> None:
        if not batch.stored:
            return
        kept = tuple(s for s in batch.stored if s.part not in batch.dropped)
        snapshots = tuple(s for s in batch.snapshots if s.part not in batch.dropped)
        self._documents.journal.persist(
            lambda at: self._durable(batch, at), kept, snapshots, tuple(batch.dropped)
        )

    def _durable(self, batch: Batch, now: Instant) -> None:
        for name, keys in batch.keys.items():
            self._documents.changed(name, tuple(sorted(keys)), now)
        found = [(key, self._library.part(key)) for key in batch.parts]
        self._heard(
            tuple(
                Holding(key.document, PartClock(key.author, key.generation, part.clock))
                for key, part in found
                if part is not None
            ),
            now,
        )
