"""Two scenarios or versions, many seeds each: which figures differ, and whether by chance.

Another version is another program: it runs a scenario file and prints what `sim run --json` does.

Rules:
- Both run with the same seeds, so that they see the same draws as far as they are alike.
- A run whose checks fail counts like any other; how many did is told.
- What a version does not measure is not compared.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshslm.chance import Chance
from meshslm.errors import OurFault
from meshslm.sim.run import run
from meshslm.sim.scenario import Scenario
from meshslm.sim.statistics import Difference, compare

Told = dict[str, Any]
"""`Report.as_dict`, of this version or another."""

Figure = Callable[[Told], float | None]


def _converged(report: Told, which: Callable[[list[float]], float]) -> float | None:
    took = [c["took_ms"] for c in report["convergence"] if c["took_ms"] is not None]
    return which(took) if took else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


FIGURES: Final[dict[str, Figure]] = {
    "answered %": lambda r: _percent(r["tasks"]["answered"], r["tasks"]["sent"]),
    "refused %": lambda r: _percent(r["tasks"]["refused"], r["tasks"]["sent"]),
    "moved %": lambda r: _percent(r["tasks"]["moved"], r["tasks"]["answered"]),
    "right domain %": lambda r: _percent(
        r["routing"]["classified_right"], r["routing"]["classified"]
    ),
    "first token p50 ms": lambda r: r["first_token_ms"]["p50"],
    "first token p99 ms": lambda r: r["first_token_ms"]["p99"],
    "whole answer p50 ms": lambda r: r["total_ms"]["p50"],
    "whole answer p99 ms": lambda r: r["total_ms"]["p99"],
    "convergence mean ms": lambda r: _converged(r, _mean),
    "convergence most ms": lambda r: _converged(r, max),
    "bytes of a node /s": lambda r: r["traffic"]["bytes"],
    "bytes of the busiest /s": lambda r: r["traffic"]["bytes_most"],
    "messages of a node /s": lambda r: r["traffic"]["messages"],
}
"""What is compared of two runs; None: there was nothing to measure."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two scenarios, or one with two versions, side by side."""

    a: str
    b: str
    seeds: int
    failed_a: int
    """Runs of which a check failed."""
    failed_b: int
    figures: dict[str, Difference | None]
    """None: one of them has nothing to measure."""


def reports(scenario: Scenario, seeds: Iterable[int]) -> Iterator[Told]:
    """One run for each seed."""
    return (run(scenario, seed=seed).as_dict() for seed in seeds)


def reports_by(
    program: Path, file: Path, seeds: Iterable[int], options: Iterable[str] = ()
) -> Iterator[Told]:
    """One run of a scenario file for each seed, by the `meshslm` of another version.

    `options` are of `sim run`. Raises `OurFault` where the program does not run it.
    """
    for seed in seeds:
        words = [str(program), "sim", "run", "--scenario", str(file), "--seed", str(seed), "--json"]
        try:
            done = subprocess.run(  # noqa: S603 - the user names the program
                [*words, *options], capture_output=True, text=True, check=False, errors="replace"
            )
        except OSError as error:
            raise OurFault(f"cannot run {program}: {error.strerror}") from None
        told = _report_in(done.stdout)
        if told is None:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise OurFault(f"{program} gave no report of {file}: {said[:300]}")
        yield told


def _report_in(text: str) -> Told | None:
    try:
        told = json.loads(text)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "ok" in told and "scenario" in told else None


def comparison(a: list[Told], b: list[Told]) -> Comparison:
    """Compare runs of two sides; there must be as many of each."""
    chance = Chance.from_int(len(a)).fork("bootstrap")
    figures: dict[str, Difference | None] = {}
    for name, figure in FIGURES.items():
        values_a, values_b = (_measured(figure, side) for side in (a, b))
        both = values_a and values_b
        figures[name] = compare(values_a, values_b, chance.fork(name)) if both else None
    failed_a, failed_b = (sum(not report["ok"] for report in side) for side in (a, b))
    return Comparison(a[0]["scenario"], b[0]["scenario"], len(a), failed_a, failed_b, figures)


def _measured(figure: Figure, side: list[Told]) -> list[float]:
    try:
        return [value for value in map(figure, side) if value is not None]
    except (KeyError, TypeError):  # another version, which tells it otherwise or not at all
        return []


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
