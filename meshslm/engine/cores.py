"""The load of others on our cores, and the number of threads that is chosen with its help.

Rules:
- A reading costs two small files; the load of others is what was busy less what we used ourselves.
- Without /proc/stat every core counts as free.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshslm.engine.threads import Climb

REVISE_S: Final = 1.0
"""Time between two readings: /proc/stat counts in 10 ms, so a second tells the load to 2 %."""
PAUSE_S: Final = 10.0
"""After so long without work the machine counts as another."""
RECENT_S: Final = 2.0
"""A reading over a longer time says little of the load as it is now."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor time up to a moment, all in seconds."""

    at: float
    busy: float
    """Of all processes on our cores, time stolen by other machines included."""
    own: float


def cores() -> frozenset[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def read(stat: Path = Path("/proc/stat")) -> Reading | None:
    """A reading now; None where the system does not tell."""
    own = time.process_time()
    at = time.monotonic()
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    mine = {f"cpu{core}" for core in cores()}
    busy = 0
    for line in lines:
        name, *fields = line.split()
        if name in mine:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
    return Reading(at, busy / tick, own)


def worthwhile(earlier: Reading, later: Reading, count: int) -> int:
    """Threads that the `count` cores had room for between two readings, at least one."""
    passed = later.at - earlier.at
    if passed <= 0:
        return count
    others = (later.busy - earlier.busy - (later.own - earlier.own)) / passed
    return max(1, min(count, int(count - others + 0.5)))


def runnable(loadavg: Path = Path("/proc/loadavg")) -> int | None:
    """Threads of the whole system that run or wait for a core now, this one among them."""
    try:
        return int(loadavg.read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return None


class ThreadChoice:
    """The number of threads, revised as steps and the load of others change."""

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._count = len(cores())
        self._last = read()
        self._climb = Climb(self._count, fixed or self._count)
        self._worked = 0.0
        self._began = 0.0
        self._step = (1, 1)

    @property
    def threads(self) -> int:
        """The number to begin with."""
        return self._climb.threads

    def begin(self) -> None:
        """Work begins, after a time without. What was learned lately still holds."""
        if self._fixed is not None or time.monotonic() - self._worked < PAUSE_S:
            return
        now, others = read(), runnable()
        if now is not None and self._last is not None and now.at - self._last.at < RECENT_S:
            self._climb.start(worthwhile(self._last, now, self._count))
        elif others is not None:
            self._climb.start(max(1, min(self._count, self._count - (others - 1))))
        self._last = now

    def timed(self, rows: int, use: Callable[[int], None]) -> ThreadChoice:
        """Compute a step of so many rows in this block, with the number that `use` is told."""
        threads = self.choose(rows)
        use(threads)
        self._step = (rows, threads)
        return self

    def __enter__(self) -> None:
        """The step begins."""
        self._began = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """It ended; one that failed says nothing of speeds."""
        if kind is None:
            self._worked = time.monotonic()
            self.learn(*self._step, self._worked - self._began)

    def choose(self, rows: int) -> int:
        """The number for a step of so many rows."""
        now = time.monotonic()
        if self._fixed is not None or self._count == 1:
            return self._climb.threads
        if self._last is not None and now - self._last.at >= REVISE_S:
            reading = read()
            if reading is not None:
                self._climb.room(worthwhile(self._last, reading, self._count), now)
            self._last = reading
        return self._climb.choose(rows, now)

    def learn(self, rows: int, threads: int, seconds: float) -> None:
        """A step of so many rows with so many threads took so long."""
        self._climb.learn(rows, threads, seconds, self._worked)
