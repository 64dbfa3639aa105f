"""The journal of shared documents: what was answered is there again, whatever happens between."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from meshslm.adapters.sqlite_journal import VERSION, SqliteJournal
from meshslm.core.events import Event
from meshslm.core.state_events import (
    DeltasRead,
    PartReloaded,
    Persist,
    ReadDeltas,
    ReloadPart,
    StateNotPersisted,
    StatePersisted,
    StoredDelta,
    StoredSnapshot,
)
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.state.part import PartKey
from meshslm.wire.state import SignedDelta

KEY = PartKey("memory/x", NodeId("author"), 2**63 + 5)
OTHER = PartKey("memory/y", NodeId("author"), 1)


def delta(number: int, key: PartKey = KEY, size: int = 8) -> StoredDelta:
    payload = b"%d" % number + bytes(size)
    return StoredDelta(key, number, number + 1, SignedDelta(payload, b"s" * 64))


def snapshot(clock: int, key: PartKey = KEY) -> StoredSnapshot:
    return StoredSnapshot(key, clock, bytes(16), False, True, 9, clock, b"state")


async def done(journal: SqliteJournal, *work: Persist | ReadDeltas | ReloadPart) -> list[Event]:
    """Have it all done; what came of it."""
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run, events.append)
        for item in work:
            journal.perform(item)
        await journal.drained()
        nursery.cancel_scope.cancel()
    return events


async def test_what_was_answered_is_there_again(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "state.sqlite")
    assert journal.start().parts == ()
    first = Persist(1, (delta(0), delta(1), delta(0, OTHER)))
    second = Persist(2, (delta(2),), (snapshot(2),))
    assert await done(journal, first, second) == [StatePersisted(2)]
    journal.abandon()
    again = SqliteJournal(tmp_path / "state.sqlite")
    opened = again.start()
    assert not opened.clean
    by_key = {part.part: part for part in opened.parts}
    assert by_key[KEY].snapshot == snapshot(2)
    assert by_key[KEY].deltas == (delta(2),)
    assert by_key[OTHER].deltas == (delta(0, OTHER),)
    again.abandon()


async def test_a_part_that_was_dropped_is_gone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "state.sqlite")
    journal.start()
    await done(journal, Persist(1, (delta(0),), (snapshot(1),)), Persist(2, dropped=(KEY,)))
    journal.abandon()
    assert SqliteJournal(tmp_path / "state.sqlite").start().parts == ()


async def test_only_the_life_that_said_goodbye_last_counts_as_clean(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    for last, boot, clean in ((0, 1, False), (1, 2, True), (1, 3, False), (3, 4, True)):
        journal = SqliteJournal(path)
        assert journal.start(last).clean is clean
        journal.close(boot)
    journal = SqliteJournal(path)
    assert journal.start(4).clean
    journal.abandon()
    assert not SqliteJournal(path).start(4).clean


async def test_readers_see_what_was_given_before_them_in_pieces(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "state.sqlite")
    journal.start()
    many = Persist(1, tuple(delta(n, size=1_000) for n in range(10)))
    events = await done(journal, many, ReadDeltas(7, KEY, 3, 2_500), ReloadPart(KEY))
    _, read, reloaded = events
    assert read == DeltasRead(7, tuple(delta(n, size=1_000) for n in (3, 4)), more=True)
    assert isinstance(reloaded, PartReloaded)
    assert len(reloaded.stored.deltas) == 10
    (small,) = await done(journal, ReadDeltas(8, KEY, 9, 1))
    assert small == DeltasRead(8, (delta(9, size=1_000),))
    (none,) = await done(journal, ReadDeltas(9, OTHER, 0, 100))
    assert none == DeltasRead(9, ())
    journal.abandon()


async def test_a_full_disk_is_told_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    journal = SqliteJournal(tmp_path / "state.sqlite")
    journal.start()
    await done(journal, Persist(1, (delta(0),)))
    database = journal._connected()
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count={pages}")
    events: list[Event] = []

    def handle(event: Event) -> None:
        events.append(event)
        if isinstance(event, StateNotPersisted):
            assert "full" in event.reason
            database.execute("PRAGMA max_page_count=1000000")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run, handle)
        journal.perform(Persist(2, tuple(delta(n, size=50_000) for n in range(1, 9))))
        await journal.drained()
        nursery.cancel_scope.cancel()
    assert isinstance(events[0], StateNotPersisted)
    journal.abandon()
    (part,) = SqliteJournal(tmp_path / "state.sqlite").start().parts
    assert len(part.deltas) == 9


def test_what_is_no_journal_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(OurFault, match="meshslm state restore"):
        SqliteJournal(path).start()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    SqliteJournal(path).start()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    with pytest.raises(OurFault, match="format"):
        SqliteJournal(path).start()


async def test_a_torn_tail_of_the_log_costs_only_what_was_not_answered(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "state.sqlite")
    journal.start()
    await done(journal, Persist(1, (delta(0),)))
    answered = (tmp_path / "state.sqlite-wal").read_bytes()
    await done(journal, Persist(2, (delta(1, size=9_000),)))
    whole = (tmp_path / "state.sqlite-wal").read_bytes()
    main = (tmp_path / "state.sqlite").read_bytes()
    journal.abandon()
    for cut in range(len(answered), len(whole), 997):
        torn = tmp_path / f"torn{cut}"
        torn.mkdir()
        (torn / "state.sqlite").write_bytes(main)
        (torn / "state.sqlite-wal").write_bytes(whole[:cut])
        again = SqliteJournal(torn / "state.sqlite")
        (part,) = again.start().parts
        assert part.deltas[0] == delta(0)
        again.abandon()


async def test_what_is_given_up_is_remembered_with_what_was_dropped(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    journal = SqliteJournal(path)
    journal.start()
    gone = PartKey(OTHER.document, OTHER.author, 7)
    later = PartKey(OTHER.document, OTHER.author, 2**62)
    await done(
        journal,
        Persist(1, (delta(0), delta(0, OTHER))),
        Persist(2, dropped=(OTHER,), forgotten=(gone, KEY)),
        Persist(3, forgotten=(later,)),
    )
    journal.abandon()
    opened = SqliteJournal(path).start()
    assert [part.part for part in opened.parts] == [KEY]
    assert opened.forgotten == (KEY, later)


async def test_a_file_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    journal = SqliteJournal(path)
    journal.start()
    await done(journal, Persist(1, (delta(0),)))
    journal.abandon()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE forgotten")
        database.execute("PRAGMA user_version=1")
    database.close()
    opened = SqliteJournal(path).start()
    assert [part.part for part in opened.parts] == [KEY]
    assert opened.forgotten == ()
