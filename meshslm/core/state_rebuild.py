"""Growth is bounded: a node rebuilds its part of a document when most of it is no longer live.

A rebuild writes this node's own newest entries, in the order of their keys, into a new generation,
a few at a time; what is written meanwhile goes on in the old one and is taken over at the end.
With its last delta the new generation takes the place of all earlier ones, here and everywhere.

Rules:
- Nobody has to agree: each author rebuilds its own parts, and entries keep their revisions.
- A deletion is left out once no other author has the key; it would else bring that entry back.
- A rebuild that a crash cut short leaves doubles, and the next one clears them away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshslm import state_limits
from meshslm.core.documents import Documents
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import StoredDelta
from meshslm.ids import Instant, NodeId
from meshslm.state.document import Document
from meshslm.state.entry import revision_of, unpack
from meshslm.state.part import Part, PartKey

TIMER = "state.rebuild"
STEP_MS = 20


@dataclass(slots=True)
class Rebuild:
    """One that is under way."""

    part: Part
    keys: list[str]
    """Still to be taken over, the last first."""
    changed: dict[str, None] = field(default_factory=dict)
    """Written to meanwhile."""


class StateRebuild:
    """Rebuilds of this node's own parts, one document at a time."""

    def __init__(self, documents: Documents, out: Outbox) -> None:
        self._documents = documents
        self._library = documents.holdings
        self._out = out
        self._under_way: dict[str, Rebuild] = {}
        self.done = 0

    def consider(self, document: str) -> None:
        """A document was written to: begin, where it has grown enough."""
        found = self._library.find(document)
        if found is None or self._under_way or not self._due(found):
            return
        node = self._documents.node
        generation = self._documents.next_generation(document)
        keys = sorted({key for part in found.own(node) for key in part.live}, reverse=True)
        part = self._library.make(PartKey(document, node, generation))
        self._under_way[document] = Rebuild(part, keys)
        self._out.start_timer(TIMER, document, STEP_MS)

    def _due(self, document: Document) -> bool:
        own = document.own(self._documents.node)
        if not own or own[-1].sealed:
            return False
        live = sum(part.live_bytes for part in own)
        full = sum(part.full_bytes for part in own)
        deltas = sum(self._library.deltas(part) for part in own)
        needed = live // state_limits.UPDATE_BYTES + sum(len(p.live) for p in own) // 256
        return (
            full > state_limits.STATE_REBUILD_BYTES + state_limits.STATE_REBUILD_RATIO * live
            or len(own) > state_limits.STATE_OWN_PARTS
            or deltas > state_limits.STATE_DELTAS_KEPT + state_limits.STATE_REBUILD_RATIO * needed
        )

    def written(self, document: str, keys: tuple[str, ...]) -> None:
        """Keys have changed in the old generation."""
        rebuild = self._under_way.get(document)
        if rebuild is not None:
            rebuild.changed.update(dict.fromkeys(keys))

    def step(self, document: str, _now: Instant) -> None:
        """Take over a few more entries, or end."""
        rebuild = self._under_way[document]
        found = self._library.find(document)
        if found is None or found.parts.get(_name(rebuild.part)) is not rebuild.part:
            del self._under_way[document]  # the library failed on it; another time
            return
        last = not rebuild.keys
        if last:
            rebuild.keys = sorted(rebuild.changed, reverse=True)
            rebuild.changed = {}
        entries = self._next(found, rebuild)
        ended = last and not rebuild.keys and not rebuild.changed
        if not ended:
            self._out.start_timer(TIMER, document, STEP_MS)
        if entries:
            self._write(found, rebuild, entries, ended=ended)
        elif ended:
            self._end_with_something(found, rebuild)

    def _next(self, document: Document, rebuild: Rebuild) -> dict[str, bytes]:
        entries: dict[str, bytes] = {}
        size = 0
        while rebuild.keys and len(entries) < state_limits.STATE_REBUILD_STEP:
            key = rebuild.keys[-1]
            newest = self._newest(document, key)
            if newest is not None and newest != rebuild.part.live.get(key):
                size += len(newest) + len(key) + 64
                if entries and size > state_limits.UPDATE_BYTES // 2:
                    break
                entries[key] = newest
            rebuild.keys.pop()
        return entries

    def _newest(self, document: Document, key: str) -> bytes | None:
        """This node's own newest entry; None for a deletion that is not needed any more."""
        node = self._documents.node
        found = [p.live[key] for p in document.own(node) if key in p.live]
        newest = max(found, key=revision_of, default=None)
        if newest is None or not unpack(newest).deleted:
            return newest
        others = (p for (who, _), p in document.parts.items() if who != node)
        return newest if any(key in part.live for part in others) else None

    def _end_with_something(self, document: Document, rebuild: Rebuild) -> None:
        """A delta needs a change: the last entry again, or the deletion of the last key."""
        part = rebuild.part
        key = next(iter(sorted(part.live)), None)
        if key is not None:
            self._write(document, rebuild, {key: part.live[key]}, ended=True)
            return
        old = next(p for p in document.own(self._documents.node) if p.live)
        key = min(old.live)
        self._write(document, rebuild, {key: old.live[key]}, ended=True)

    def _write(
        self, document: Document, rebuild: Rebuild, entries: dict[str, bytes], *, ended: bool
    ) -> None:
        part = rebuild.part
        before = part.clock
        update = part.write(entries)
        document.changed(part, entries)
        dropped: tuple[PartKey, ...] = ()
        part.base = ended
        part.sealed = ended and any(p.sealed for p in document.own(self._documents.node))
        delta = self._documents.signed(part, before, [update], base=ended, sealed=part.sealed)
        snapshots = self._library.journalled(part, len(delta.signed.payload))
        if ended:
            dropped = self._end(document, part)
        self._documents.journal.persist(
            lambda at: self._durable(delta, at), (delta,), snapshots, dropped
        )

    def _end(self, document: Document, part: Part) -> tuple[PartKey, ...]:
        self._documents.flush()
        outdated = document.outdated(part)
        for old in outdated:
            self._library.drop(old)
        self._documents.replaced(part)
        del self._under_way[document.name]
        self.done += 1
        self._out.tell("state.rebuilt", f"{document.name}: {part.live_bytes} bytes live")
        return tuple(old.key for old in outdated)

    def _durable(self, delta: StoredDelta, now: Instant) -> None:
        self._documents.publish_later(((delta.part, delta.signed),), now)


def _name(part: Part) -> tuple[NodeId, int]:
    return part.key.author, part.key.generation
