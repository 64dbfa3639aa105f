"""`meshslm state`: what is saved comes back, and what is exported can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.adapters.test_state_files import filled

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_export_prints_every_entry(run: Run, tmp_path: Path) -> None:
    filled(tmp_path, 3).close(1)
    told = run("state", "export", "--data-dir", str(tmp_path))
    assert told.code == 0
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [(x["document"], x["key"], x["value"]) for x in lines] == [
        ("memory/notes", f"k{n}", f"v{n}") for n in range(3)
    ]


def test_a_backup_is_put_back(run: Run, tmp_path: Path) -> None:
    filled(tmp_path, 3).close(1)
    saved = tmp_path / "saved"
    assert run("state", "backup", str(saved), "--data-dir", str(tmp_path)).code == 0
    assert run("state", "backup", str(saved), "--data-dir", str(tmp_path)).code == 1
    (tmp_path / "state.sqlite").unlink()
    told = run("state", "restore", str(saved), "--data-dir", str(tmp_path))
    assert told.code == 0, told.err
    assert len(run("state", "export", "--data-dir", str(tmp_path)).out.splitlines()) == 3


def test_a_node_that_runs_is_not_put_back(run: Run, tmp_path: Path) -> None:
    from meshslm.adapters.keyring import DirectoryLock

    filled(tmp_path, 1).close(1)
    run("state", "backup", str(tmp_path / "saved"), "--data-dir", str(tmp_path))
    with DirectoryLock(tmp_path):
        told = run("state", "restore", str(tmp_path / "saved"), "--data-dir", str(tmp_path))
    assert told.code == 1
    assert "already in use" in told.err


def test_without_a_node_show_and_verify_say_so(run: Run) -> None:
    for what in ("show", "verify"):
        told = run("state", what, "--url", "http://127.0.0.1:1")
        assert told.code == 1
        assert "no node answers" in told.err
