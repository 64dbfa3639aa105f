"""All shared documents of one node in memory, and how stored parts become them again.

Rules:
- What the journal holds was checked before it was written, and is checked again when it is read
  only by its sum, on demand.
- A part that the CRDT library failed on is thrown away and read again from the journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import state_limits
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import ReloadPart, StoredPart, StoredSnapshot
from meshslm.errors import PeerFault
from meshslm.ids import NodeId
from meshslm.state.document import Document
from meshslm.state.part import Part, PartKey, Poisoned
from meshslm.wire.codec import decode
from meshslm.wire.state import CONTENT_BYTES, Delta


@dataclass(slots=True)
class Growth:
    """What was journalled of a part since its last snapshot."""

    logged: int = 0
    snapshot: int = 0
    """Size of that snapshot."""
    deltas: int = 0
    """All deltas that the journal has of it."""


class StateHoldings:
    """Documents by name."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self.documents: dict[str, Document] = {}
        self._growth: dict[PartKey, Growth] = {}
        self._reloading: dict[PartKey, None] = {}
        self._count: dict[NodeId, int] = {}
        """Documents that each author has a part in."""

    # --- finding --------------------------------------------------------------------------------
    def find(self, name: str) -> Document | None:
        """A document, if anything of it is here."""
        return self.documents.get(name)

    def part(self, key: PartKey) -> Part | None:
        """A part, if anything of it is here."""
        document = self.documents.get(key.document)
        return document.part(key.author, key.generation) if document is not None else None

    def make(self, key: PartKey) -> Part:
        """A new and empty part; its document comes with it."""
        part = Part(key)
        self._add(part)
        return part

    def authored(self, author: NodeId) -> int:
        """How many documents have a part of an author."""
        return self._count.get(author, 0)

    def loading(self, key: PartKey) -> bool:
        """Whether a part is being read again."""
        return key in self._reloading

    def _add(self, part: Part) -> None:
        key = part.key
        document = self.documents.setdefault(key.document, Document(key.document))
        if not document.own(key.author):
            self._count[key.author] = self.authored(key.author) + 1
        document.add(part)
        self._growth.setdefault(key, Growth())

    def drop(self, part: Part) -> None:
        """A part is no more, and its document neither where it was the last."""
        document = self.documents[part.key.document]
        document.drop(part)
        self._growth.pop(part.key, None)
        if not document.own(part.key.author):
            self._uncount(part.key.author)
        if not document.parts:
            del self.documents[document.name]

    def drop_document(self, name: str) -> tuple[PartKey, ...]:
        """A document is no more; what it consisted of."""
        keys = tuple(part.key for part in self.documents.pop(name).parts.values())
        for key in keys:
            self._growth.pop(key, None)
        for author in dict.fromkeys(key.author for key in keys):
            self._uncount(author)
        return keys

    def _uncount(self, author: NodeId) -> None:
        self._count[author] -= 1
        if not self._count[author]:
            del self._count[author]

    # --- storing --------------------------------------------------------------------------------
    def journalled(self, part: Part, size: int) -> tuple[StoredSnapshot, ...]:
        """A delta of a part goes to the journal; the snapshot that is due with it, if one is."""
        growth = self._growth[part.key]
        growth.deltas += 1
        growth.logged += size
        if growth.logged < max(state_limits.STATE_REBUILD_BYTES, growth.snapshot):
            return ()
        state = part.snapshot()
        growth.logged, growth.snapshot = 0, len(state)
        snapshot = StoredSnapshot(
            part.key,
            part.clock,
            part.content.to_bytes(CONTENT_BYTES, "big"),
            part.base,
            part.sealed,
            part.full_bytes,
            growth.deltas,
            state,
        )
        return (snapshot,)

    def deltas(self, part: Part) -> int:
        """How many deltas the journal has of a part."""
        return self._growth[part.key].deltas

    def restore(self, stored: StoredPart) -> Part | None:
        """Make a part from what the journal has; None where that fails, which is told."""
        part = Part(stored.part)
        growth = Growth()
        try:
            snapshot = stored.snapshot
            if snapshot is not None:
                part.load(snapshot.state, snapshot.clock, int.from_bytes(snapshot.content, "big"))
                part.base, part.sealed = snapshot.base, snapshot.sealed
                part.full_bytes = snapshot.logged
                growth.snapshot, growth.deltas = len(snapshot.state), snapshot.deltas
            for delta in stored.deltas:
                apply(part, delta_in(delta.signed.payload))
                growth.deltas += 1
                growth.logged += len(delta.signed.payload)
        except (Poisoned, PeerFault) as error:
            self._out.tell("state.damaged", f"{stored.part}: {error}")
            return None
        if not part.clock:
            return None
        self._add(part)
        self._growth[part.key] = growth
        return part

    def poisoned(self, part: Part, error: Poisoned) -> None:
        """The library failed on a part: it is read again from the journal."""
        self._out.tell("state.poisoned", str(error))
        self.drop(part)
        self._reloading[part.key] = None
        self._out.put(ReloadPart(part.key))

    def reloaded(self, stored: StoredPart) -> Part | None:
        """It was read."""
        self._reloading.pop(stored.part, None)
        return self.restore(stored)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self.documents) <= state_limits.DOCUMENTS
        for document in self.documents.values():
            assert document.parts, f"{document.name} is empty"
            for part in document.parts.values():
                assert part.key in self._growth, f"{part.key} is not counted"


def delta_in(payload: bytes) -> Delta:
    """The delta in a signed payload. Raises `PeerFault`."""
    statement = decode(payload)
    if not isinstance(statement, Delta):
        raise PeerFault(f"a signed {type(statement).__name__} where a delta must be")
    return statement


def apply(part: Part, delta: Delta) -> tuple[str, ...]:
    """Take a delta that was checked; the keys that changed. Raises `Poisoned`."""
    keys: dict[str, None] = {}
    for position, update in enumerate(delta.updates):
        last = position == len(delta.updates) - 1
        after = delta.after if last else part.clock + changes_in(update)
        keys.update(dict.fromkeys(part.apply(update, after)))
    part.base = part.base or delta.base
    part.sealed = part.sealed or delta.sealed
    return tuple(sorted(keys))


def changes_in(update: bytes) -> int:
    """How many changes a checked update makes: its second number."""
    number, shift, at = 0, 0, 1
    while True:
        number |= (update[at] & 0x7F) << shift
        if update[at] < 0x80:
            return number
        shift += 7
        at += 1
