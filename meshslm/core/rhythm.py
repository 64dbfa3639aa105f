"""When this node tells its presence: with peers that are near, where that is soon anyway.

What it costs a daemon at rest to be woken is most of what it costs to hear a message. Where each
node keeps a beat of its own, it is woken once a second for each of its peers; where near ones fall
in with each other, a few times a second for all of them.

Effects: the timer of the tick.

Rules:
- A tick comes `PRESENCE_MS` after the one before at the latest, and half of that at the earliest,
  whatever peers do.
- Nobody leads: each node takes up a beat that it hears, so groups that meet end with one or two.
- Only with those who are near: two that are half a beat apart would hurry each other on for ever.
"""

from __future__ import annotations

from typing import Final

from meshslm import limits
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, after, ms_between

TICK: Final = "tick"
NEAR_MS: Final = 50.0
"""Round trip up to which a peer is near: a machine, a building, a town."""


class Rhythm:
    """The next tick of one node."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._due: Instant | None = None

    def plan(self, wait_ms: float, now: Instant) -> None:
        """Tick after so long."""
        self._due = after(now, wait_ms)
        self._out.start_timer(TICK, "", wait_ms)

    def stop(self) -> None:
        """Tick no more."""
        self._due = None
        self._out.stop_timer(TICK, "")

    def fall_in(self, rtt_ms: float | None, now: Instant) -> None:
        """A peer so far away ticks: so does this node, where that would be within half a beat."""
        if self._due is None or rtt_ms is None or rtt_ms > NEAR_MS:
            return
        if 1 < ms_between(now, self._due) < limits.PRESENCE_MS / 2:
            self.plan(0, now)
