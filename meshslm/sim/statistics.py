"""Whether two sets of measurements differ: medians, a bootstrap interval, and a rank-sum test.

Why these: figures of runs are few, skewed, and of no known distribution; none is assumed here.

Rules:
- Resampling draws from a `Chance` that is handed in, so that a comparison can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import erfc, sqrt
from statistics import median

from meshslm.chance import Chance

RESAMPLES = 2000
"""Percentiles of 2.5 and 97.5 then rest on fifty values each."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second set has more than the first, in the median."""

    median_a: float
    median_b: float
    low: float
    high: float
    """Bounds of the difference of the medians: 95 %, by bootstrap."""
    p: float
    """Chance of ranks at least so uneven if there were no difference, two-sided."""

    @property
    def difference(self) -> float:
        """Of the medians."""
        return self.median_b - self.median_a

    @property
    def clear(self) -> bool:
        """Whether both agree that there is a difference: at 5 %."""
        return self.p < 0.05 and not self.low <= 0.0 <= self.high


def compare(a: Sequence[float], b: Sequence[float], chance: Chance) -> Difference:
    """How `b` differs from `a`; neither may be empty."""
    drawn = sorted(median(_again(b, chance)) - median(_again(a, chance)) for _ in range(RESAMPLES))
    low, high = drawn[RESAMPLES // 40], drawn[-RESAMPLES // 40 - 1]
    return Difference(median(a), median(b), low, high, mann_whitney(a, b))


def _again(values: Sequence[float], chance: Chance) -> list[float]:
    return [chance.pick(values) for _ in values]


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the rank-sum test, by its normal approximation with ties and continuity.

    With fewer than about eight values a side the approximation is rough.
    """
    ranks = _ranks([*a, *b])
    count_a, count_b = len(a), len(b)
    total = count_a + count_b
    u = sum(ranks[:count_a]) - count_a * (count_a + 1) / 2
    ties = sum(n**3 - n for n in (len(list(run)) for _, run in groupby(sorted([*a, *b]))))
    spread = count_a * count_b / 12 * (total + 1 - ties / (total * (total - 1)))
    if spread <= 0:
        return 1.0
    away = max(0.0, abs(u - count_a * count_b / 2) - 0.5)
    return erfc(away / sqrt(spread) / sqrt(2))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks = [0.0] * len(values)
    begin = 0
    for _, run in groupby(order, key=lambda place: values[place]):
        places = list(run)
        for place in places:
            ranks[place] = begin + (len(places) + 1) / 2
        begin += len(places)
    return ranks
