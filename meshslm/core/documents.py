"""Shared documents: what every node has a replica of and nobody owns.

The door for every machine of the core, and for local programs by `StateWrite`. For example:

    documents.write(name, (Change("k", b"v"),), done=lambda failure, now: ...)
        applies it here at once and calls `done("")` when it is durable on this node, or
        `done(reason)` while it cannot be made so; then it goes to others. Revisions are returned.
        Raises `RequestFault`: not ready, no right, wrong revision, too large, too many waiting.
    documents.read(name, "k")              the `Entry` that holds, or None (deleted, never there)
    documents.keys(name, "prefix", after)  keys in order, deleted ones included
    documents.each(name, "k")              every author's own entry: what counters add up
    documents.watch("memory/*", callback)  callback(name, keys, now) when changes are durable,
                                           from here and from others
    documents.want("journal/17")           keep a replica of this too, from others
    documents.write(..., seal=True)        the last write of this node to that document
    named(DocumentClass.LEDGER, day)       the name of a document; it exists once it is written to

Local first: a write needs nobody else. Each author writes to parts of its own, signed, so that
whoever relays them is believed, and nobody writes over what somebody else wrote: the entry with
the highest revision holds (`state.document`). Writes that come while others are being made durable
are made durable, signed and sent together.

Rules:
- Nothing is told as done, or sent, before it is durable here. It can be read here at once.
- A write that failed for want of disk may still come true later: the journal tries again.
- A node without a `StateConfig` has no documents, and costs nothing.
- Entries that ran out are still there; who reads compares `Entry.alive` with the wall clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from meshslm import state_limits
from meshslm.core.document_reading import DocumentReading
from meshslm.core.outbox import Outbox
from meshslm.core.state_config import StateConfig
from meshslm.core.state_events import Change, StateChanged, StateOpened, StoredDelta, StoredSnapshot
from meshslm.core.state_holdings import StateHoldings, changes_in
from meshslm.core.state_journal import StateJournal
from meshslm.core.state_writing import Done, Outgoing, Rebuilds, check_changes
from meshslm.errors import FaultCode, RequestFault
from meshslm.ids import Instant, NodeId
from meshslm.state.entry import REVISIONS, Entry, pack
from meshslm.state.forgotten import Forgotten
from meshslm.state.names import complaint, matches, wanted
from meshslm.state.part import Part, PartKey, Poisoned
from meshslm.wire.admission import SIGNED_PREFIX
from meshslm.wire.codec import encode
from meshslm.wire.state import Delta, SignedDelta

GENERATION_BITS = 16
"""Generations begin with the number of the boot, so that none comes twice, and count below it."""

Watcher = Callable[[str, tuple[str, ...], Instant], None]
MayWrite = Callable[[NodeId, str], bool]
Publish = Callable[[tuple[tuple[PartKey, SignedDelta], ...], Instant], None]


class Documents(DocumentReading):
    """The shared documents of one node."""

    def __init__(
        self,
        node: NodeId,
        config: StateConfig | None,
        out: Outbox,
        may_write: MayWrite,
    ) -> None:
        self.node = node
        self.config = config
        super().__init__(StateHoldings(out))
        self.forgotten = Forgotten()
        self.journal = StateJournal(out)
        self._out = out
        self._may_write = may_write
        self._publish: Publish = lambda _deltas, _now: None
        self._rebuilds: Rebuilds | None = None
        self.interests: tuple[str, ...] = config.interests if config is not None else ()
        self._watchers: list[tuple[str, Watcher]] = []
        self._writing: dict[str, Part] = {}
        self._outgoing: dict[str, list[Outgoing]] = {}
        self._committing: deque[list[Done]] = deque()
        self._commits = 0
        """Commits of our own writes on their way; those that come meanwhile wait for them."""
        self.first_days: dict[str, str] = {}
        """Per class of document, the first day of which any are kept."""
        self._first = 0
        """The least generation that this life may write to."""
        self.ready = False

    def attach(self, publish: Publish, rebuilds: Rebuilds) -> None:
        """Name who sends what is durable, and who rebuilds; once."""
        self._publish = publish
        self._rebuilds = rebuilds

    # --- following ------------------------------------------------------------------------------
    def watch(self, pattern: str, watcher: Watcher) -> None:
        """Call `watcher` with a document, keys and the time whenever these are durably changed."""
        self._watchers.append((pattern, watcher))

    def unwatch(self, watcher: Watcher) -> None:
        """Do not call it any more."""
        self._watchers = [entry for entry in self._watchers if entry[1] is not watcher]

    def want(self, pattern: str) -> None:
        """Keep replicas of these documents too; at most `state_limits.INTERESTS` patterns."""
        if pattern not in self.interests:
            if len(self.interests) >= state_limits.INTERESTS:
                raise RequestFault(FaultCode.BAD_REQUEST, "too many patterns of documents")
            self.interests = (*self.interests, pattern)

    def wanted(self, document: str) -> bool:
        """Whether this node keeps a replica of a document."""
        if self.over(document):
            return False
        return document in self._writing or wanted(self.interests, document)

    def over(self, document: str) -> bool:
        """Whether nobody keeps a document any more, as its day was too long ago."""
        head, _, day = document.partition("/")
        first = self.first_days.get(head)
        return first is not None and day < first and len(day) == len(first)

    def forget(self, document: str) -> None:
        """Drop all of a document, here alone."""
        self._commit()
        self._writing.pop(document, None)
        dropped = self.holdings.drop_document(document)
        self.journal.persist(lambda _now: None, dropped=dropped)

    def let_go(self, parts: list[Part], forgotten: tuple[PartKey, ...] = ()) -> None:
        """Drop parts, and have that durable together with what is given up for ever."""
        self._commit()
        changed: dict[str, dict[str, None]] = {}
        for part in parts:
            changed.setdefault(part.key.document, {}).update(dict.fromkeys(part.live))
            if self._writing.get(part.key.document) is part:
                del self._writing[part.key.document]
            self.holdings.drop(part)

        def durable(now: Instant) -> None:
            for name, keys in changed.items():
                self.changed(name, tuple(sorted(keys)), now)

        dropped = tuple(part.key for part in parts)
        self.journal.persist(durable, dropped=dropped, forgotten=forgotten)

    def changed(self, document: str, keys: tuple[str, ...], now: Instant) -> None:
        """Keys of a document have durably changed: tell whoever follows it."""
        entries = tuple(self.entry(document, key) for key in keys)
        self._out.put(StateChanged(document, keys, entries))
        for pattern, watcher in tuple(self._watchers):
            if matches(pattern, document):
                watcher(document, keys, now)

    # --- opening --------------------------------------------------------------------------------
    def take_stored(self, event: StateOpened, boot: int) -> None:
        """Take what the journal holds; writes are possible from now on."""
        if self.config is None:
            return
        self._first = boot << GENERATION_BITS
        for stored in event.parts:
            part = self.holdings.restore(stored)
            if part is None or part.key.author != self.node or part.sealed:
                continue
            if event.clean or part.key.generation >= self._first:
                self._resume(part)
        for name in self.names():
            self._drop_outdated(name)
        self.ready = True

    def _resume(self, part: Part) -> None:
        before = self._writing.get(part.key.document)
        if before is None or before.key.generation < part.key.generation:
            self._writing[part.key.document] = part

    def _drop_outdated(self, name: str) -> None:
        document = self.holdings.documents[name]
        parts = list(document.parts.values())
        outdated = dict.fromkeys(old for part in parts for old in document.outdated(part))
        for old in outdated:
            self.holdings.drop(old)
        if outdated:
            self.journal.persist(lambda _now: None, dropped=tuple(old.key for old in outdated))

    # --- writing --------------------------------------------------------------------------------
    def write(
        self,
        document: str,
        changes: tuple[Change, ...],
        *,
        done: Done | None = None,
        unix_ms: int = 0,
        seal: bool = False,
    ) -> tuple[int, ...]:
        """Change entries of a document, all or none; the new revisions, in order.

        `unix_ms` stands in the entries for people to read. Raises `RequestFault`.
        """
        self._check_write(document, changes)
        entries = {c.key: self._next(document, c, unix_ms) for c in changes}
        packed = {key: pack(entry) for key, entry in entries.items()}
        part = self._own_part(document, packed)
        before = part.clock
        try:
            update = part.write(packed)
        except Poisoned as error:
            self._commit()
            self._writing.pop(document, None)
            self.holdings.poisoned(part, error)
            raise RequestFault(FaultCode.INTERNAL, f"{document} is being loaded again") from error
        found = self.holdings.documents[document]
        found.changed(part, packed)
        if self._rebuilds is not None:
            self._rebuilds.written(document, tuple(packed))
        self._collect(part, before, update, packed)
        waiting = self._outgoing[document][-1]
        if done is not None:
            waiting.done.append(done)
        if seal:
            waiting.sealed = part.sealed = True
            self._writing.pop(document, None)
        if not self._commits:
            self._commit()
        return tuple(entry.revision for entry in entries.values())

    @property
    def waiting(self) -> int:
        """Writes of local programs that are not durable yet."""
        return self._not_given() + sum(map(len, self._committing))

    def _not_given(self) -> int:
        return sum(len(o.updates) for each in self._outgoing.values() for o in each)

    def _check_write(self, document: str, changes: tuple[Change, ...]) -> None:
        why = complaint(document)
        if why:
            raise RequestFault(FaultCode.BAD_REQUEST, why, param="namespace")
        if self.over(document):
            raise RequestFault(FaultCode.BAD_REQUEST, f"{document} is not kept any more")
        if self.config is None or not self.ready:
            raise RequestFault(FaultCode.NOT_READY, "shared documents are not open on this node")
        if self.journal.trouble:
            why = f"nothing can be stored on this node now: {self.journal.trouble}"
            raise RequestFault(FaultCode.NOT_READY, why, retry_after_ms=5_000)
        if not self._may_write(self.node, document):
            why = f"this node's certificate does not let it write to {document}"
            raise RequestFault(FaultCode.FORBIDDEN, why, param="namespace")
        waiting = self._not_given()
        if waiting >= state_limits.STATE_WRITES_WAITING:
            why = f"{waiting} writes wait for the disk; try again"
            raise RequestFault(FaultCode.OVERLOADED, why, retry_after_ms=100)
        check_changes(changes)

    def _next(self, document: str, change: Change, unix_ms: int) -> Entry:
        present = self.entry(document, change.key)
        found = 0 if present is None or present.deleted else present.revision
        if change.revision is not None and change.revision != found:
            why = f"{change.key!r} has revision {found}, not {change.revision}"
            raise RequestFault(FaultCode.CONFLICT, why, param="revision")
        revision = min(1 + (present.revision if present is not None else 0), REVISIONS)
        deleted = change.value is None
        return Entry(change.value or b"", revision, unix_ms, change.expires_ms, deleted)

    def _own_part(self, document: str, packed: dict[str, bytes]) -> Part:
        """The part that this node writes to, with room for these."""
        assert self.config is not None, "checked before"
        part = self._writing.get(document)
        known = self.holdings.find(document)
        own = known.own(self.node) if known is not None else []
        if part is None:
            if own and own[-1].sealed:
                raise RequestFault(FaultCode.BAD_REQUEST, f"{document} is sealed by this node")
            if known is None and len(self.holdings.documents) >= state_limits.DOCUMENTS:
                raise RequestFault(
                    FaultCode.OVERLOADED, f"over {state_limits.DOCUMENTS} documents here"
                )
            if not own and self.holdings.authored(self.node) >= state_limits.DOCUMENTS_PER_AUTHOR:
                most = state_limits.DOCUMENTS_PER_AUTHOR
                why = f"this node has written to {most} documents already"
                raise RequestFault(FaultCode.OVERLOADED, why)
        live = sum(p.live_bytes for p in own) + sum(map(len, packed.values()))
        keys = sum(len(p.live) for p in own) + len(packed)
        if live > self.config.document_bytes or keys > state_limits.DOCUMENT_KEYS:
            why = (
                f"{document} would have {keys} entries of {live} bytes by this node; at most "
                f"{state_limits.DOCUMENT_KEYS} and {self.config.document_bytes} are kept"
            )
            raise RequestFault(FaultCode.OVERLOADED, why)
        if part is None:
            part = self.holdings.make(PartKey(document, self.node, self.next_generation(document)))
            self._writing[document] = part
        return part

    def next_generation(self, document: str) -> int:
        """One that nobody has seen."""
        known = self.holdings.find(document)
        own = known.own(self.node) if known is not None else []
        least = max(self._first, self.forgotten.until(document, self.node) + 1)
        return max(least, own[-1].key.generation + 1 if own else 0)

    # --- committing -----------------------------------------------------------------------------
    def _collect(self, part: Part, before: int, update: bytes, keys: dict[str, bytes]) -> None:
        pieces = self._outgoing.setdefault(part.key.document, [])
        last = pieces[-1] if pieces else None
        if (
            last is None
            or last.part is not part
            or last.size + len(update) > state_limits.UPDATE_BYTES
            or len(last.updates) >= state_limits.DELTA_UPDATES
        ):
            last = Outgoing(part, before)
            pieces.append(last)
        last.updates.append(update)
        last.keys.update(dict.fromkeys(keys))
        last.size += len(update)

    def _commit(self) -> None:
        """Give everything that waits to the journal, in one transaction."""
        pieces = [piece for each in self._outgoing.values() for piece in each]
        self._outgoing = {}
        if not pieces:
            return
        stored = [self.signed(p.part, p.before, p.updates, sealed=p.sealed) for p in pieces]
        snapshots: list[StoredSnapshot] = []
        for piece, delta in zip(pieces, stored, strict=True):
            snapshots += self.holdings.journalled(piece.part, len(delta.signed.payload))
        self._commits += 1
        self._committing.append([done for piece in pieces for done in piece.done])
        self.journal.persist(
            lambda at: self._committed(pieces, stored, at), tuple(stored), tuple(snapshots)
        )

    def _committed(self, pieces: list[Outgoing], stored: list[StoredDelta], now: Instant) -> None:
        self._commits -= 1
        for done in self._committing.popleft():
            done("", now)
        self._publish(tuple((delta.part, delta.signed) for delta in stored), now)
        for piece in pieces:
            self.changed(piece.part.key.document, tuple(sorted(piece.keys)), now)
        if self._rebuilds is not None:
            for name in dict.fromkeys(piece.part.key.document for piece in pieces):
                self._rebuilds.consider(name)
        if not self._commits:
            self._commit()

    def not_persisted(self, reason: str, now: Instant) -> None:
        """The journal cannot write at present: whoever waits is told."""
        self.journal.failed(reason)
        failed = [done for each in self._committing for done in each]
        self._committing = deque([] for _ in self._committing)
        for each in self._outgoing.values():
            for piece in each:
                failed += piece.done
                piece.done = []
        for done in failed:
            done(reason, now)

    def signed(
        self, part: Part, before: int, updates: list[bytes], *, base: bool = False, sealed: bool
    ) -> StoredDelta:
        """The delta of some of this node's own changes, as it is stored and sent."""
        assert self.config is not None, "only who has documents signs"
        after = before + sum(map(changes_in, updates))
        key = part.key
        payload = encode(
            Delta(
                self.config.mesh,
                key.author,
                key.document,
                key.generation,
                before,
                after,
                tuple(updates),
                base,
                sealed,
            )
        )
        signature = self.config.sign(SIGNED_PREFIX + payload)
        return StoredDelta(key, before, after, SignedDelta(payload, signature))

    def flush(self) -> None:
        """Give what waits to the journal now, whatever is on its way there."""
        self._commit()

    def publish_later(self, deltas: tuple[tuple[PartKey, SignedDelta], ...], now: Instant) -> None:
        """Send deltas that are durable."""
        self._publish(deltas, now)

    # --- what others hold of us -----------------------------------------------------------------
    def replaced(self, part: Part) -> None:
        """This node writes to `part` from now on, or to nothing where that is sealed."""
        if part.sealed:
            self._writing.pop(part.key.document, None)
        else:
            self._writing[part.key.document] = part

    def behind_ourselves(self, key: PartKey) -> None:
        """Others hold more of one of our parts than we do: our store is an old one.

        We must not go on in that part, as what we write would clash with what we wrote before.
        """
        writing = self._writing.get(key.document)
        if writing is not None and writing.key == key:
            self._out.tell("state.store-is-old", str(key.document))
            del self._writing[key.document]
            self._first = max(self._first, key.generation + 1)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.holdings.check()
        self.journal.check()
        for name, part in self._writing.items():
            assert part.key.document == name, f"{part.key} is written to as {name}"
            assert not part.sealed, f"{part.key} is sealed and written to"
