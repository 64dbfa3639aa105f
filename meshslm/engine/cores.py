"""How many threads are worth having: as many as there are cores that nobody else uses.

llama.cpp's threads meet at barriers many times a token, so one thread that has lost its core stalls
all of them: with one busy neighbour on two cores, two threads were measured at a fifth of the speed
of one.

Rules:
- A reading costs two small files; the load of others is what was busy less what we used ourselves.
- Without /proc/stat every core counts as free.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHORTEST_S: Final = 0.05
"""Shortest time between two readings that says anything: /proc/stat counts in 10 ms."""


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


class ThreadChoice:
    """The number of threads, revised as the load of others changes."""

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._count = len(cores())
        self._last = read()
        self.threads = fixed or self._count

    def revise(self) -> int:
        """The number to use now. Cheap; call it at the start of work and once a second."""
        if self._fixed is not None or self._last is None:
            return self.threads
        now = read()
        if now is not None and now.at - self._last.at >= SHORTEST_S:
            self.threads = worthwhile(self._last, now, self._count)
            self._last = now
        return self.threads
