"""A bug leaves a recording behind; other ends leave none."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshslm import limits
from meshslm.adapters.crash_files import FOLDER, kept_on_crash
from meshslm.errors import OurFault


def kept(data: Path) -> list[Path]:
    return sorted((data / FOLDER).glob("*"))


def crash(data: Path, failure: BaseException, boot: int = 1) -> None:
    with pytest.raises(type(failure)), kept_on_crash(lambda why: why.encode(), data, boot):
        raise failure


@pytest.mark.parametrize(
    "bug",
    [
        KeyError("x"),
        ExceptionGroup("nursery", [ExceptionGroup("inner", [KeyError("x")])]),
        ExceptionGroup("both", [KeyError("x"), OurFault("foreseen")]),
    ],
)
def test_a_bug_leaves_a_file_for_its_owner(tmp_path: Path, bug: Exception) -> None:
    crash(tmp_path, bug, boot=3)
    (file,) = kept(tmp_path)
    assert file.name == "crash-00000003.jsonl.gz"
    assert file.read_bytes() == b"crash: KeyError"
    assert file.stat().st_mode & 0o077 == file.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "end",
    [
        OurFault("no disk"),
        ExceptionGroup("nursery", [OurFault("no disk")]),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
)
def test_what_is_no_bug_leaves_nothing(tmp_path: Path, end: BaseException) -> None:
    crash(tmp_path, end)
    assert kept(tmp_path) == []


def test_few_are_kept(tmp_path: Path) -> None:
    for boot in range(1, limits.RECORDINGS_KEPT + 4):
        crash(tmp_path, KeyError("x"), boot)
    names = [file.name for file in kept(tmp_path)]
    assert len(names) == limits.RECORDINGS_KEPT
    assert names[-1] == f"crash-{limits.RECORDINGS_KEPT + 3:08d}.jsonl.gz"


def test_a_full_disk_does_not_hide_the_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    crash(tmp_path, KeyError("x"))
    assert "could not be kept" in caplog.text


def test_without_a_recorder_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), kept_on_crash(None, tmp_path, 1):
        raise KeyError("x")
    assert kept(tmp_path) == []
