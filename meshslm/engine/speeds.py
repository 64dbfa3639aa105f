"""How fast the worker is, as measured in its steps, and how long a run would wait.

Rules:
- Smoothed, so that one slow step says little; what was not measured yet is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshslm.engine.prefix_cache import TILE
from meshslm.engine.protocol import Measured, Report
from meshslm.engine.steps import Outlook, Step

REVISE_S: Final = 1.0
"""Time between two looks at the load of others, and between two reports of speeds."""
SMOOTHING: Final = 0.2
"""Weight of the newest step in a measured speed: about the last ten count."""
PAUSE_S: Final = 0.3
"""Longest pause of running streams for others' prompts. A longer one serves those sooner and wastes
less on decode steps of few streams: eight requests of 45 tokens at once took 0.96 of a bare loop's
speed with 64 rows between decode steps, 0.98 with 128, 0.985 with no bound."""


class Speeds:
    """Measured speeds, smoothed."""

    def __init__(self) -> None:
        self.prefill_tps = 0.0
        self.decode_tps = 0.0
        self.run_s = 0.0
        """From its slot to its end."""
        self.pause_s = 0.0
        """Of streams, between the last two decode steps."""
        self._told: tuple[float, float, tuple[int, ...]] = (0.0, 0.0, ())
        self._told_at = 0.0
        self._last_decode = 0.0

    def step(self, step: Step, began: float, ended: float, tokens: int) -> None:
        """A step was computed between these times, and gave its streams so many tokens each."""
        if step.decode:
            # Streams see the time from one decode step to the next, prompts in between included.
            since = self._last_decode if began - self._last_decode < REVISE_S else began
            self.pause_s = ended - since
            self.decode_tps = _smooth(self.decode_tps, tokens / max(self.pause_s, 1e-6))
            self._last_decode = ended
        else:
            self.prefill_tps = _smooth(self.prefill_tps, step.rows / max(ended - began, 1e-6))

    def ended(self, seconds: float) -> None:
        """A run was in its slot for so long."""
        self.run_s = _smooth(self.run_s, seconds)

    @property
    def beside_rows(self) -> int:
        """Prompt rows between two decode steps, by what was measured; a tile at least."""
        return max(TILE, int(self.prefill_tps * PAUSE_S))

    def wait_ms(self, outlook: Outlook, slots: int) -> float:
        """When a run with this outlook has its first token; what was not measured counts as 0."""
        wait_s = outlook.runs * self.run_s / slots
        if self.prefill_tps:
            wait_s += outlook.rows / self.prefill_tps
        return 1000.0 * wait_s

    def news(self, now: float, look: Callable[[], tuple[int, ...]], *, idle: bool) -> list[Report]:
        """What to tell the daemon where it changed: once a second, and when there is no work.

        `look` says which runs are warm; it is not asked between.
        """
        if not (idle or now - self._told_at >= REVISE_S):
            return []
        warm = look()
        speeds = (round(self.prefill_tps, 1), round(self.decode_tps, 1))
        told = (*speeds, warm)
        if told == self._told or not all(speeds):
            return []
        self._told, self._told_at = told, now
        return [Measured(*speeds, warm)]


def _smooth(old: float, new: float) -> float:
    return new if old == 0.0 else old + SMOOTHING * (new - old)
