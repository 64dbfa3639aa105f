"""Two scenarios, many seeds each: which figures differ, and whether that can be chance.

Rules:
- Both run with the same seeds, so that they see the same draws as far as they are alike.
- A run whose checks fail counts like any other; how many did is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from meshslm.chance import Chance
from meshslm.sim.report import Report
from meshslm.sim.run import run
from meshslm.sim.scenario import Scenario
from meshslm.sim.statistics import Difference, compare

Figure = Callable[[Report], float | None]


def _converged(report: Report, which: Callable[[list[float]], float]) -> float | None:
    took = [entry.took_ms for entry in report.convergence if entry.took_ms is not None]
    return which(took) if took else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


FIGURES: Final[dict[str, Figure]] = {
    "answered %": lambda r: _percent(r.tasks.answered, r.tasks.sent),
    "refused %": lambda r: _percent(r.tasks.refused, r.tasks.sent),
    "moved %": lambda r: _percent(r.tasks.moved, r.tasks.answered),
    "right domain %": lambda r: _percent(r.routing.classified_right, r.routing.classified),
    "first token p50 ms": lambda r: r.first_token_ms.p50,
    "first token p99 ms": lambda r: r.first_token_ms.p99,
    "whole answer p50 ms": lambda r: r.total_ms.p50,
    "whole answer p99 ms": lambda r: r.total_ms.p99,
    "convergence mean ms": lambda r: _converged(r, _mean),
    "convergence most ms": lambda r: _converged(r, max),
    "bytes of a node /s": lambda r: r.traffic.bytes,
    "bytes of the busiest /s": lambda r: r.traffic.bytes_most,
    "messages of a node /s": lambda r: r.traffic.messages,
}
"""What is compared of two runs; None: there was nothing to measure."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two scenarios side by side."""

    a: str
    b: str
    seeds: int
    failed_a: int
    """Runs of which a check failed."""
    failed_b: int
    figures: dict[str, Difference | None]
    """None: one of them has nothing to measure."""


def reports(scenario: Scenario, seeds: Iterable[int]) -> Iterator[Report]:
    """One run for each seed."""
    return map(partial(_run, scenario), seeds)


def _run(scenario: Scenario, seed: int) -> Report:
    return run(scenario, seed=seed)


def comparison(a: list[Report], b: list[Report]) -> Comparison:
    """Compare runs of two scenarios; there must be as many of each."""
    chance = Chance.from_int(len(a)).fork("bootstrap")
    figures: dict[str, Difference | None] = {}
    for name, figure in FIGURES.items():
        values_a, values_b = ([v for v in map(figure, side) if v is not None] for side in (a, b))
        both = values_a and values_b
        figures[name] = compare(values_a, values_b, chance.fork(name)) if both else None
    failed_a, failed_b = (sum(not report.ok for report in side) for side in (a, b))
    return Comparison(a[0].scenario, b[0].scenario, len(a), failed_a, failed_b, figures)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
