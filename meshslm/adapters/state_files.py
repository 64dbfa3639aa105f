"""Saving a node's documents to a file, putting them back, and reading them without the node.

Rules:
- A backup is taken with SQLite's own means, whole and consistent, while the node may write.
- What is put back was checked before anything is moved, and says that its last life did not end
  cleanly: the node then begins new parts, as others may hold what it wrote after the backup.
- What was there before is kept beside it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from meshslm.adapters.sqlite_journal import SqliteJournal
from meshslm.core.outbox import Outbox
from meshslm.core.state_holdings import StateHoldings
from meshslm.errors import OurFault
from meshslm.state.document import Document


def back_up(source: Path, target: Path) -> int:
    """Save; the bytes of the file. Raises `OurFault`."""
    if not source.exists():
        raise OurFault(f"there is no {source}: this node keeps no documents yet")
    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    with _blamed(f"save {source} to {target}"):
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(fresh)) as new:
            old.backup(new)
            new.execute("DELETE FROM meta WHERE name = 'ended'")
            new.commit()
        descriptor = os.open(fresh, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(target)
        return target.stat().st_size


def put_back(backup: Path, target: Path) -> Path | None:
    """Put a backup in place; where what was there is kept, if anything was. Raises `OurFault`."""
    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    back_up(backup, fresh)
    try:
        stored_documents(fresh)
        with _blamed(f"put {backup} in place of {target}"), closing(sqlite3.connect(fresh)) as new:
            (found,) = new.execute("PRAGMA integrity_check").fetchone()
            if found != "ok":
                raise OurFault(f"{backup} is damaged: {found}")
            new.execute("PRAGMA journal_mode=DELETE")
        kept = None
        with _blamed(f"put {backup} in place of {target}"):
            if target.exists():
                kept = target.with_name(f"{target.name}.before-{int(time.time())}")
                for ending in ("", "-wal", "-shm"):
                    part = target.with_name(target.name + ending)
                    if part.exists():
                        part.replace(kept.with_name(kept.name + ending))
            fresh.replace(target)
        return kept
    finally:
        for ending in ("", "-wal", "-shm"):
            fresh.with_name(fresh.name + ending).unlink(missing_ok=True)


def stored_documents(path: Path) -> dict[str, Document]:
    """What a file holds, read while a node may write to it. Raises `OurFault`."""
    if not path.exists():
        raise OurFault(f"there is no {path}: this node keeps no documents yet")
    journal = SqliteJournal(path)
    library = StateHoldings(Outbox())
    try:
        for stored in journal.look():
            library.restore(stored)
    finally:
        journal.abandon()
    return library.documents


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OurFault(f"cannot {what}: {error}") from error
