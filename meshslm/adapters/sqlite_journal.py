"""Where shared documents are kept: one SQLite file with a write-ahead log.

Signed deltas are kept as they came, so that they can be handed on and checked by whoever gets
them; snapshots are this node's own short cut to the same. What one `Persist` holds, and all that
waits when a write begins, is one transaction and one flush to the disk: so writes that come
together cost one flush together.

Rules:
- `synchronous=FULL`: what was answered is on the disk, whatever kills the process or the machine.
- The file says by its own version what is in it; a newer one is refused, an older one migrated.
- A disk that is full or fails loses nothing that was answered: the transaction is undone, told of,
  and tried again until it succeeds.
- Everything that touches the file runs in a thread, one piece of work at a time.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import trio

from meshslm import state_limits
from meshslm.core.events import Event
from meshslm.core.state_events import (
    DeltasRead,
    PartReloaded,
    Persist,
    ReadDeltas,
    ReloadPart,
    StateNotPersisted,
    StateOpened,
    StatePersisted,
    StoredDelta,
    StoredPart,
    StoredSnapshot,
)
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.state.part import PartKey
from meshslm.wire.state import SignedDelta

STATE_FILE = "state.sqlite"
VERSION = 2
RETRY_S = 1.0
"""Wait before a write that failed is tried again: somebody has to make room first."""

Work = Persist | ReadDeltas | ReloadPart
Handle = Callable[[Event], None]

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE parts (
    id INTEGER PRIMARY KEY,
    document TEXT NOT NULL,
    author TEXT NOT NULL,
    generation BLOB NOT NULL,
    UNIQUE (document, author, generation)
);
CREATE TABLE deltas (
    part INTEGER NOT NULL,
    before INTEGER NOT NULL,
    after INTEGER NOT NULL,
    payload BLOB NOT NULL,
    signature BLOB NOT NULL,
    UNIQUE (part, before)
);
CREATE TABLE snapshots (
    part INTEGER PRIMARY KEY,
    clock INTEGER NOT NULL,
    content BLOB NOT NULL,
    base INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    logged INTEGER NOT NULL,
    deltas INTEGER NOT NULL,
    state BLOB NOT NULL
);
"""
_MIGRATIONS = (
    """
CREATE TABLE forgotten (
    document TEXT NOT NULL,
    author TEXT NOT NULL,
    generation BLOB NOT NULL,
    PRIMARY KEY (document, author)
) WITHOUT ROWID;
""",
)
"""What takes version n + 1 to n + 2, in order."""


class SqliteJournal:
    """The journal of one node. `start` first, then `run`; `perform` at any time between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None
        self._parts: dict[PartKey, int] = {}
        self._waiting: deque[Work] = deque()
        self._more = trio.Event()
        self._idle = trio.Event()

    # --- life -----------------------------------------------------------------------------------
    def start(self, last_boot: int = 0) -> StateOpened:
        """Open or make the file; what it holds. Raises `OurFault` where it cannot be used.

        Its last life counts as ended cleanly only if that life was `last_boot`.
        """
        with self._blamed("open"):
            database = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._database = database
            self.path.chmod(0o600)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            self._migrate(database)
            stored = self._everything(database)
            (ended,) = database.execute(
                "SELECT ifnull((SELECT value FROM meta WHERE name = 'ended'), -1)"
            ).fetchone()
            database.execute("DELETE FROM meta WHERE name = 'ended'")
            rows = database.execute(
                "SELECT document, author, generation FROM forgotten ORDER BY 1, 2"
            )
            forgotten = tuple(_key(*row) for row in rows)
        return StateOpened(stored, bool(last_boot) and ended == last_boot, forgotten)

    def look(self) -> tuple[StoredPart, ...]:
        """What the file holds, without changing it; a node may be writing. Raises `OurFault`."""
        with self._blamed("read"):
            self._database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
            self._database.execute("BEGIN")
            return self._everything(self._database)

    def _everything(self, database: sqlite3.Connection) -> tuple[StoredPart, ...]:
        rows = database.execute("SELECT id, document, author, generation FROM parts")
        self._parts = {_key(*row): number for number, *row in rows}
        return tuple(self._stored(key) for key in sorted(self._parts))

    def close(self, boot: int) -> None:
        """The life `boot` ends here, and all it was told is kept."""
        database = self._connected()
        with self._blamed("close"), closing(database):
            database.execute("INSERT OR REPLACE INTO meta VALUES ('ended', ?)", (boot,))
        self._database = None

    def abandon(self) -> None:
        """Close without saying that all is well."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _connected(self) -> sqlite3.Connection:
        assert self._database is not None, "the journal is open from `start` to `close`"
        return self._database

    def _migrate(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise OurFault(
                f"{self.path} has format {version}; this version of meshslm reads up to {VERSION}"
            )
        with _transaction(database):
            for step in (_SCHEMA, *_MIGRATIONS)[version:]:
                for statement in step.split(";"):
                    if statement.strip():
                        database.execute(statement)
            database.execute(f"PRAGMA user_version={VERSION}")

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.abandon()
            raise OurFault(
                f"cannot {what} {self.path}: {error}. If it is damaged, stop the node and put a "
                "backup in its place with `meshslm state restore`, or move it away: others have "
                "what this node wrote, and it will get it back"
            ) from error

    # --- work -----------------------------------------------------------------------------------
    def perform(self, effect: Work) -> None:
        """Queue what the core asks for."""
        self._waiting.append(effect)
        self._more.set()

    async def run(self, handle: Handle) -> None:
        """Do what is asked for, in order, and hand what comes of it to the core; for ever."""
        while True:
            while not self._waiting:
                self._idle.set()
                self._more = trio.Event()
                await self._more.wait()
            if self._idle.is_set():
                self._idle = trio.Event()
            work, self._waiting = list(self._waiting), deque()
            while work:
                events, done = await trio.to_thread.run_sync(partial(self._work, work))
                work = work[done:]
                for event in events:
                    handle(event)
                if work:
                    await trio.sleep(RETRY_S)

    async def drained(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._waiting or not self._idle.is_set():
            await self._idle.wait()

    def _work(self, work: list[Work]) -> tuple[list[Event], int]:
        """Do it; what came of it, and how much was done."""
        events: list[Event] = []
        place = 0
        while place < len(work):
            item = work[place]
            if isinstance(item, Persist):
                batch = [item]
                while place + len(batch) < len(work):
                    further = work[place + len(batch)]
                    if not isinstance(further, Persist):
                        break
                    batch.append(further)
                try:
                    self._persist(batch)
                except sqlite3.Error as error:
                    events.append(StateNotPersisted(item.number, str(error)))
                    return events, place
                events.append(StatePersisted(batch[-1].number))
                place += len(batch)
            else:
                events.append(self._read(item) if isinstance(item, ReadDeltas) else self._all(item))
                place += 1
        return events, place

    def _persist(self, batch: Iterable[Persist]) -> None:
        database = self._connected()
        known = dict(self._parts)
        try:
            with _transaction(database):
                for effect in batch:
                    self._write(database, effect)
        except sqlite3.Error:
            self._parts = known
            raise

    def _write(self, database: sqlite3.Connection, effect: Persist) -> None:
        database.executemany(
            "INSERT OR REPLACE INTO deltas VALUES (?, ?, ?, ?, ?)",
            [
                (self._number(d.part), d.before, d.after, d.signed.payload, d.signed.signature)
                for d in effect.deltas
            ],
        )
        for snapshot in effect.snapshots:
            row = (
                self._number(snapshot.part),
                snapshot.clock,
                snapshot.content,
                snapshot.base,
                snapshot.sealed,
                snapshot.logged,
                snapshot.deltas,
                snapshot.state,
            )
            database.execute("INSERT OR REPLACE INTO snapshots VALUES (?,?,?,?,?,?,?,?)", row)
        for key in effect.dropped:
            number = self._parts.pop(key, None)
            if number is not None:
                for table, column in (("deltas", "part"), ("snapshots", "part"), ("parts", "id")):
                    database.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))  # noqa: S608 - names are ours, from the line above

        rows = [(k.document, k.author, k.generation.to_bytes(8, "big")) for k in effect.forgotten]
        database.executemany("INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)", rows)

    def _number(self, key: PartKey) -> int:
        number = self._parts.get(key)
        if number is None:
            found = self._connected().execute(
                "INSERT INTO parts (document, author, generation) VALUES (?, ?, ?) RETURNING id",
                (key.document, key.author, key.generation.to_bytes(8, "big")),
            )
            ((number,),) = found.fetchall()
            assert isinstance(number, int), "ids are numbers"
            self._parts[key] = number
        return number

    # --- reading --------------------------------------------------------------------------------
    def _read(self, effect: ReadDeltas) -> DeltasRead:
        found: list[StoredDelta] = []
        size = 0
        rows = self._rows(effect.part, "after > ?", effect.clock)
        with closing(rows):
            for row in rows:
                delta = _delta(effect.part, *row)
                size += len(delta.signed.payload)
                full = len(found) >= state_limits.STATE_SYNC_DELTAS or size > effect.most_bytes
                if found and full:
                    return DeltasRead(effect.request, tuple(found), more=True)
                found.append(delta)
        return DeltasRead(effect.request, tuple(found))

    def _all(self, effect: ReloadPart) -> PartReloaded:
        return PartReloaded(self._stored(effect.part))

    def _rows(self, key: PartKey, where: str, clock: int) -> sqlite3.Cursor:
        text = (
            "SELECT before, after, payload, signature FROM deltas "  # noqa: S608 - ours alone
            f"WHERE part = ? AND {where} ORDER BY before"
        )
        return self._connected().execute(text, (self._parts.get(key, -1), clock))

    def _stored(self, key: PartKey) -> StoredPart:
        row = (
            self._connected()
            .execute(
                "SELECT clock, content, base, sealed, logged, deltas, state FROM snapshots "
                "WHERE part = ?",
                (self._parts.get(key, -1),),
            )
            .fetchone()
        )
        snapshot = None
        if row is not None:
            clock, content, base, sealed, logged, deltas, state = row
            snapshot = StoredSnapshot(
                key, clock, content, bool(base), bool(sealed), logged, deltas, state
            )
        begin = snapshot.clock if snapshot is not None else 0
        with closing(self._rows(key, "before >= ?", begin)) as rows:
            return StoredPart(key, snapshot, tuple(_delta(key, *row) for row in rows))


def _key(document: str, author: str, generation: bytes) -> PartKey:
    return PartKey(document, NodeId(author), int.from_bytes(generation, "big"))


def _delta(key: PartKey, before: int, after: int, payload: bytes, signature: bytes) -> StoredDelta:
    return StoredDelta(key, before, after, SignedDelta(payload, signature))


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    try:
        database.execute("COMMIT")
    except sqlite3.Error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
