"""All timers of one node on one heap, in one trio task.

Rules:
- A started timer replaces the one of the same key; a stopped one does not fire. Those that are due
  together are told together, so that a node wakes once for them: whoever is told passes over one
  that an earlier of them stopped.
- Replaced entries stay on the heap until their time comes, and are then passed over; when most of
  the heap is such, it is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

import trio

from meshslm import limits
from meshslm.core.events import StartTimer, TimerFired, TimerKey
from meshslm.ids import MICROSECONDS_PER_MS, Instant, after
from meshslm.ports import Clock, Handle

REBUILD_ABOVE = 1024
"""Heap size below which stale entries are not worth clearing."""

MOST_SLEEP_S = 3600.0


class Timers:
    """Timers waiting to fire."""

    def __init__(self, clock: Clock, fire: Handle) -> None:
        self._clock = clock
        self._fire = fire
        self._heap: list[tuple[Instant, int, TimerKey]] = []
        self._current: dict[TimerKey, int] = {}
        self._earlier = trio.Event()

    def start(self, effect: StartTimer) -> None:
        """Fire once after the effect's delay."""
        at = after(self._clock.now(), effect.after_ms)
        if not self._heap or at < self._heap[0][0]:
            self._earlier.set()
        self._current[effect.key] = effect.generation
        heappush(self._heap, (at, effect.generation, effect.key))
        if len(self._heap) > REBUILD_ABOVE and len(self._heap) > 4 * len(self._current):
            self._heap = [e for e in self._heap if self._current.get(e[2]) == e[1]]
            heapify(self._heap)

    def stop(self, key: TimerKey) -> None:
        """Do not fire."""
        self._current.pop(key, None)

    async def run(self) -> None:
        """Fire what is due, for ever."""
        while True:
            self._earlier = trio.Event()
            wait_us = self._heap[0][0] - self._clock.now() if self._heap else None
            if wait_us is not None and wait_us <= 0:
                self._fire(*self._take_due())
                await trio.lowlevel.checkpoint()
                continue
            seconds = MOST_SLEEP_S if wait_us is None else wait_us / MICROSECONDS_PER_MS / 1000
            with trio.move_on_after(seconds):
                await self._earlier.wait()

    def _take_due(self) -> Iterator[TimerFired]:
        """What is to fire now, in order, as much as is handled at a time."""
        now, taken = self._clock.now(), 0
        while self._heap and self._heap[0][0] <= now and taken < limits.EVENTS_PER_TURN:
            taken += 1
            _, generation, key = heappop(self._heap)
            if self._current.get(key) == generation:
                del self._current[key]
                yield TimerFired(key, generation)
