"""Backups of shared documents: taken while they change, checked, and put back."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from meshslm.adapters.sqlite_journal import STATE_FILE, SqliteJournal
from meshslm.adapters.state_files import back_up, put_back, stored_documents
from meshslm.core.state_events import Persist
from meshslm.errors import OurFault
from tests.core.state_mesh import DOC, StateMesh


def filled(folder: Path, keys: int) -> SqliteJournal:
    """A journal, still open, with what a node wrote."""
    mesh = StateMesh()
    mesh.join("a")
    for number in range(keys):
        mesh.put("a", f"k{number}", b"v%d" % number)
    journal = SqliteJournal(folder / STATE_FILE)
    journal.start()
    deltas = tuple(
        delta for part in mesh.disks[next(iter(mesh.disks))].parts() for delta in part.deltas
    )

    async def store() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run, lambda _event: None)
            journal.perform(Persist(1, deltas))
            await journal.drained()
            nursery.cancel_scope.cancel()

    trio.run(store)
    return journal


def test_a_backup_of_a_running_node_holds_everything(tmp_path: Path) -> None:
    journal = filled(tmp_path, 30)
    assert back_up(tmp_path / STATE_FILE, tmp_path / "saved") > 0
    journal.abandon()
    document = stored_documents(tmp_path / "saved")[DOC]
    assert len(document) == 30
    entry = document.get("k29")
    assert entry is not None
    assert entry.value == b"v29"
    assert (tmp_path / "saved").stat().st_mode & 0o077 == 0


def test_what_was_put_back_is_there_and_is_not_taken_for_the_last_life(tmp_path: Path) -> None:
    journal = filled(tmp_path, 5)
    journal.close(7)
    back_up(tmp_path / STATE_FILE, tmp_path / "saved")
    (tmp_path / "other").mkdir()
    filled(tmp_path / "other", 1).close(9)
    kept = put_back(tmp_path / "saved", tmp_path / "other" / STATE_FILE)
    assert kept is not None
    assert len(stored_documents(kept)[DOC]) == 1
    again = SqliteJournal(tmp_path / "other" / STATE_FILE)
    opened = again.start(7)
    assert not opened.clean
    assert len(opened.parts[0].deltas) == 5
    again.abandon()
    assert not list((tmp_path / "other").glob("*.new*"))


def test_a_damaged_backup_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    filled(tmp_path, 5).close(1)
    (tmp_path / "bad").write_bytes(b"this is no database" * 1000)
    with pytest.raises(OurFault):
        put_back(tmp_path / "bad", tmp_path / STATE_FILE)
    assert len(stored_documents(tmp_path / STATE_FILE)[DOC]) == 5


def test_without_documents_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="keeps no documents"):
        back_up(tmp_path / STATE_FILE, tmp_path / "saved")
