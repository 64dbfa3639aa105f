"""Things to compare take turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench.table import Row, spread

Side = Callable[[int], Awaitable[float]]
"""Measures once; gets the number of the turn, 0 for the one that warms up."""
Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How often to measure: as often as there is time, but within bounds."""

    least: int = 3
    most: int = 7
    budget_s: float = 40.0

    def enough(self, turns: int, passed_s: float) -> bool:
        """Whether to stop after so many turns, which took so long."""
        if turns == 0:
            return False
        over = passed_s + passed_s / turns > self.budget_s
        # A server that spins where others work can take ages for one turn.
        return turns >= self.most or (
            over and (turns >= self.least or passed_s > 2 * self.budget_s)
        )


async def take_turns(sides: Mapping[str, Side], effort: Effort) -> Samples:
    """Measure all, again and again, every other time in the opposite order."""
    samples: Samples = {name: [] for name in sides}
    for side in sides.values():
        await side(0)
    began, turn = time.monotonic(), 0
    while not effort.enough(turn, time.monotonic() - began):
        turn += 1
        for name in sides if turn % 2 else reversed([*sides]):
            samples[name].append(await sides[name](turn))
    return samples


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of neighbouring turns."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def speeds(
    what: str,
    ours: Sequence[float],
    name: str,
    theirs: Sequence[float],
    least: float | None = None,
    unit: str = "tokens/s",
    digits: int = 1,
) -> Row:
    """A row of two speeds; `least` is the ratio to reach."""
    found = ratio(ours, theirs)
    return Row(
        what,
        spread(ours, unit, digits),
        f"{name} {spread(theirs, unit, digits)}",
        f"{found:.3f}",
        "" if least is None else f"at least {least}",
        None if least is None else found >= least,
    )


def percentiles(samples: Sequence[float], unit: str = "ms") -> str:
    """Such as `p50 31 ms, p95 40 ms`."""
    middle, high = median(samples), quantiles(samples, n=20, method="inclusive")[-1]
    return f"p50 {middle:.0f} {unit}, p95 {high:.0f} {unit}"


def say(what: str) -> None:
    """Tell who waits what is measured now."""
    print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
