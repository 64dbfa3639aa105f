"""Why a worker ended, in words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from meshslm.adapters.memory import oom_kills
from meshslm.adapters.worker_death import cause_of_death


@pytest.mark.parametrize(
    ("code", "words", "kills", "told"),
    [
        (7, "", 0, "the worker ended with exit code 7"),
        (7, "a\nthe last\n\n", 0, "the worker ended with exit code 7: the last"),
        (-signal.SIGKILL, "", 1, "ran out of memory, and the kernel killed it"),
        (-signal.SIGKILL, "", 0, "is how a system that runs out of memory ends a process"),
        (1, "Traceback\nMemoryError", 0, "MemoryError (it ran out of memory, of which it may"),
        (-signal.SIGABRT, "what():  std::bad_alloc\n", 3, "signal 6: what():  std::bad_alloc (it"),
        (1, "libgomp: Thread creation failed: Resource\n", 0, "it may have 300 MiB)"),
    ],
)
def test_the_cause_is_told(code: int, words: str, kills: int, told: str) -> None:
    said = cause_of_death(code, words, oom_kills=kills, private_mib=300)
    assert told in said
    assert "300" not in cause_of_death(code, words, oom_kills=kills, private_mib=0)


@pytest.mark.parametrize(
    ("text", "kills"),
    [("pgfault 9\noom_kill 3\n", 3), ("oom_kill x\n", 0), ("oom_killer 4\n", 0), (None, 0)],
)
def test_what_the_kernel_counts(tmp_path: Path, text: str | None, kills: int) -> None:
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/vmstat").write_text(text)
    assert oom_kills(tmp_path) == kills
