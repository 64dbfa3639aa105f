"""A coordinator's log on disk, held against the simulator's disk, and against damage."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm.adapters.consensus_log import FILE, ConsensusLog
from meshslm.core.consensus.events import LogRecovered, PersistLog, Snapshot
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.sim.consensus_machine import Disk
from meshslm.wire.consensus import Command, Configuration, Entry, Proposal, Seat

STORE = 7
SEATS = Configuration((Seat(NodeId("a"), STORE), Seat(NodeId("b"), 8)))


def entry(index: int, term: int) -> Entry:
    proposal = Proposal(f"{index:032x}", 0, Command("revoke", f"subject {index}", value="x" * 50))
    return Entry(index, term, None if index % 5 == 0 else proposal)


def changes(kinds: list[int]) -> list[PersistLog]:
    """A history that a machine could have had: entries come, are cut off, are compacted."""
    made: list[PersistLog] = []
    last, base, term = 0, 0, 1
    for number, kind in enumerate(kinds, 1):
        change = PersistLog(number, "g" * 32, term, NodeId("a") if kind % 2 else None)
        if kind < 6:
            fresh = tuple(entry(last + 1 + more, term) for more in range(kind))
            change = replace(change, entries=fresh)
            last += kind
        elif kind < 8 and last > base:
            term += 1
            last -= 1
            change = replace(change, term=term, cut=last + 1)
        elif last > base:
            base = last
            change = replace(change, snapshot=Snapshot(last, term, SEATS, b"state %d" % last))
        made.append(change)
    return made


def held(disk: Disk, number: int) -> LogRecovered:
    assert number >= 0
    return disk.recovered()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 4))
def test_it_holds_what_the_simulated_disk_holds(kinds: list[int], at_once: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Disk(STORE)
        log = ConsensusLog(folder)
        assert log.recover(STORE) == disk.recovered()
        made = changes(kinds)
        for start in range(0, len(made), at_once):
            log.persist(made[start : start + at_once])
            for change in made[start : start + at_once]:
                disk.write(change)
            assert log.recover(STORE) == disk.recovered()
        log.close()
        again = ConsensusLog(folder)
        assert again.recover(STORE + (0 if not made else 1)) == disk.recovered()
        again.close()


def test_a_torn_write_leaves_whole_transactions(tmp_path: Path) -> None:
    """What was written is what some number of transactions made, wherever the file ends."""
    folder = tmp_path / "log"
    folder.mkdir()
    log, disk = ConsensusLog(folder), Disk(STORE)
    states = [log.recover(STORE)]
    for change in changes([3, 2, 6, 4, 9, 1, 5, 7, 2]):
        log.persist([change])
        disk.write(change)
        states.append(disk.recovered())
    wal = (folder / f"{FILE}-wal").read_bytes()
    seen = set()
    for turn, size in enumerate(range(0, len(wal) + 1, max(1, len(wal) // 60))):
        torn = tmp_path / f"torn {turn}"
        torn.mkdir()
        shutil.copy(folder / FILE, torn / FILE)
        (torn / f"{FILE}-wal").write_bytes(wal[:size])
        found = ConsensusLog(torn)
        state = found.recover(STORE)
        assert state in states
        seen.add(states.index(state))
        found.close()
    log.close()
    assert len(seen) > 5


def test_damage_is_told_and_nothing_is_guessed(tmp_path: Path) -> None:
    log = ConsensusLog(tmp_path)
    log.persist(changes([3, 3]))
    log.close()
    with sqlite3.connect(tmp_path / FILE) as file:
        file.execute("UPDATE entries SET data = CAST(data || x'00' AS BLOB) WHERE position = 4")
    file.close()
    with pytest.raises(OurFault, match="checksum") as fault:
        ConsensusLog(tmp_path).recover(STORE)
    assert "learns anew" in fault.value.__notes__[0]


def test_a_missing_entry_is_told(tmp_path: Path) -> None:
    log = ConsensusLog(tmp_path)
    log.persist(changes([3, 3]))
    log.close()
    with sqlite3.connect(tmp_path / FILE) as file:
        file.execute("DELETE FROM entries WHERE position = 2")
    file.close()
    with pytest.raises(OurFault, match="lacks entry 2"):
        ConsensusLog(tmp_path).recover(STORE)


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 200])
def test_a_file_that_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(OurFault, match="cannot be used"):
        ConsensusLog(tmp_path).recover(STORE)


def test_a_later_version_is_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as file:
        file.execute("PRAGMA user_version = 9")
    file.close()
    with pytest.raises(OurFault, match="version 9"):
        ConsensusLog(tmp_path).recover(STORE)


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    log = ConsensusLog(tmp_path)
    log.persist(changes([3]))
    before = log.recover(STORE)
    twice = PersistLog(2, "g" * 32, 1, None, entries=(entry(4, 1), entry(2, 1)))
    with pytest.raises(OurFault):
        log.persist([twice])
    assert log.recover(STORE) == before
    log.close()


def test_founding_is_noted_once(tmp_path: Path) -> None:
    log = ConsensusLog(tmp_path)
    log.found(STORE)
    assert log.recover(1) == LogRecovered(STORE, founding=True)
    log.persist(changes([2]))
    log.found(9)
    assert log.recover(1).group == "g" * 32
    log.forget()
    assert log.recover(1) == LogRecovered(1)
    assert not list(tmp_path.iterdir())
