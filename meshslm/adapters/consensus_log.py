"""A coordinator's log on disk: one SQLite file with a write-ahead log, synced at every commit.

Rules:
- A file is made by the first write: a node that never coordinates has none.
- A transaction is whole or not there, also after kill -9 or a write that was torn: SQLite checks
  the frames of its write-ahead log, and leaves out what was not committed.
- Every row has a checksum of ours. One that does not hold is damage to what was promised to others:
  it raises, and nothing is guessed. Without the file a node comes back with another store, which
  learns anew before it has a vote.
- Blocking; for one thread at a time.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshslm.core.consensus.events import LogRecovered, PersistLog, Snapshot
from meshslm.errors import OurFault, PeerFault
from meshslm.ids import NodeId
from meshslm.wire.codec import decode, encode
from meshslm.wire.consensus import Configuration, Entry, Kept

FILE = "consensus.sqlite"
VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store INTEGER NOT NULL, founding INTEGER NOT NULL, grp TEXT NOT NULL,
    term INTEGER NOT NULL, vote TEXT, sum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, data BLOB NOT NULL, sum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS snapshot (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL, term INTEGER NOT NULL,
    seats BLOB NOT NULL, data BLOB NOT NULL, sum INTEGER NOT NULL
);
"""


class ConsensusLog:
    """The log of one node, in its data folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._store = 0
        self._founding = 0
        self._open: sqlite3.Connection | None = None

    def recover(self, store: int) -> LogRecovered:
        """What the log holds; `store` is the number of one that is made only now.

        Raises `OurFault` where it cannot be read, or does not hold together.
        """
        self._store = store
        if not self.path.exists():
            return LogRecovered(store)
        with self._told(), self._connection() as connection:
            row = connection.execute(
                "SELECT store, founding, grp, term, vote, sum FROM state"
            ).fetchone()
            if row is None:
                return LogRecovered(store)
            self._store, self._founding, group, term, vote, checksum = row
            self._check(_sum(self._store, self._founding, group, term, vote), checksum)
            snapshot = self._snapshot(connection)
            entries = tuple(self._entries(connection, snapshot.index if snapshot else 0))
        return LogRecovered(
            self._store,
            group,
            term,
            NodeId(vote) if vote is not None else None,
            snapshot,
            entries,
            founding=bool(self._founding),
        )

    def persist(self, changes: list[PersistLog]) -> None:
        """Write changes in order, durably, all or none. Raises `OurFault`."""
        with self._told(), self._connection() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._write(connection, change)

    def found(self, store: int) -> None:
        """Note that a group is to begin here, unless the log is of one already."""
        if not self.recover(store).group:
            self._founding = 1
            with self._told(), self._connection() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                self._put_state(connection, "", 0, None)
        self.close()

    def forget(self) -> None:
        """Delete the log: this node is in no group any more."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    # --- writing --------------------------------------------------------------------------------
    def _write(self, connection: sqlite3.Connection, change: PersistLog) -> None:
        if change.cut is not None:
            connection.execute("DELETE FROM entries WHERE position >= ?", (change.cut,))
        if change.snapshot is not None:
            self._put_snapshot(connection, change.snapshot)
        connection.executemany(
            "INSERT INTO entries VALUES (?, ?, ?)",
            ((entry.index, *_packed(entry)) for entry in change.entries),
        )
        self._put_state(connection, change.group, change.term, change.vote)

    def _put_state(
        self, connection: sqlite3.Connection, group: str, term: int, vote: str | None
    ) -> None:
        checksum = _sum(self._store, self._founding, group, term, vote)
        connection.execute(
            "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?)",
            (self._store, self._founding, group, term, vote, checksum),
        )

    def _put_snapshot(self, connection: sqlite3.Connection, kept: Snapshot) -> None:
        seats = encode(Kept(configuration=kept.configuration))
        checksum = _sum(kept.index, kept.term, seats, kept.data)
        connection.execute(
            "INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?, ?, ?)",
            (kept.index, kept.term, seats, kept.data, checksum),
        )
        connection.execute("DELETE FROM entries WHERE position <= ?", (kept.index,))

    # --- reading --------------------------------------------------------------------------------
    def _snapshot(self, connection: sqlite3.Connection) -> Snapshot | None:
        row = connection.execute("SELECT position, term, seats, data, sum FROM snapshot").fetchone()
        if row is None:
            return None
        index, term, seats, data, checksum = row
        self._check(_sum(index, term, seats, data), checksum)
        kept = self._decoded(seats)
        return Snapshot(index, term, kept.configuration or Configuration(), data)

    def _entries(self, connection: sqlite3.Connection, last: int) -> Iterator[Entry]:
        rows = connection.execute("SELECT position, data, sum FROM entries ORDER BY position")
        for index, data, checksum in rows:
            self._check(_sum(index, data), checksum)
            entry = self._decoded(data).entry
            last += 1
            if entry is None or not index == entry.index == last:
                raise OurFault(f"{self.path} lacks entry {last}")
            yield entry

    def _decoded(self, data: bytes) -> Kept:
        try:
            kept = decode(data)
        except PeerFault as fault:
            raise OurFault(f"{self.path} holds what cannot be read: {fault}") from fault
        if not isinstance(kept, Kept):
            raise OurFault(f"{self.path} holds a {type(kept).__name__}")
        return kept

    def _check(self, found: int, noted: int) -> None:
        if found != noted:
            fault = OurFault(f"{self.path} is damaged: a checksum does not hold")
            fault.add_note("move it away, and this node learns anew from the other coordinators")
            raise fault

    # --- the file -------------------------------------------------------------------------------
    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise SQLite's errors as ours."""
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            self.close()
            raise OurFault(f"{self.path} cannot be used: {error}") from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._open is None:
            made = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._open = made
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = FULL")
            version = made.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                self.close()
                raise OurFault(f"{self.path} has version {version}; this program reads {VERSION}")
            made.executescript(_SCHEMA)
            made.execute(f"PRAGMA user_version = {VERSION}")
        yield self._open


def _packed(entry: Entry) -> tuple[bytes, int]:
    data = encode(Kept(entry))
    return data, _sum(entry.index, data)


def _sum(*parts: object) -> int:
    """A checksum over the parts of a row, in order."""
    found = 0
    for part in parts:
        raw = part if isinstance(part, bytes) else repr(part).encode()
        found = zlib.crc32(raw, zlib.crc32(b"%d:" % len(raw), found))
    return found
