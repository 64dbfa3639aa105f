"""Running another program to its end, watching it and never leaving it behind.

Rules:
- It has its own session, so that Ctrl-C reaches only us and we end it.
- It talks to a log file, so that it can never block on us; the end of the log explains a failure.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from meshslm.errors import OurFault
from meshslm.models.disk import system_faults
from meshslm.models.progress import TICK_S

LOG_BYTES = 64 * 1024
"""Read from the end of a log."""


class ChildFailed(OurFault):
    """The program ended with an error; `log` is the end of what it said."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"it ended with exit code {code}: {log}")
        self.code = code
        self.log = log


def run_child(
    argv: Sequence[str], *, log: Path, watch: Callable[[], None], environment: Mapping[str, str]
) -> None:
    """Run `argv`, calling `watch` while it runs; an exception of `watch` ends it.

    Raises `ChildFailed` where it fails.
    """
    with system_faults(log), log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - callers check every argument
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        while True:
            watch()
            try:
                code = child.wait(TICK_S)
                break
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        child.kill()
        child.wait()
        raise
    if code != 0:
        raise ChildFailed(code, _tail(log))


def _tail(log: Path) -> str:
    with system_faults(log), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode(errors="replace").strip()
