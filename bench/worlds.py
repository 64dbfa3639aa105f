"""Simulated worlds side by side: each in a process of its own, as one world keeps one core busy.

Rules:
- What a world gives depends on nothing but its arguments, so never on what runs beside it; only
  figures of speed do, and who wants those measures them alone.
- Results come in the order in which they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter
from typing import Any

from bench.turns import say
from meshslm.sim.stopwatch import Timing
from meshslm.sim.topology import Group

AT_ONCE = 2

PLACES: dict[str, tuple[Group, ...]] = {
    "LAN": (),
    "WAN": (
        Group(name="a", region="us-east"),
        Group(name="b", region="europe"),
        Group(name="c", region="japan"),
    ),
}
"""Where nodes stand: in one room, or a third of them on each of three continents."""


@dataclass(frozen=True, slots=True)
class Work:
    """A function that a process can import, and what to call it with."""

    what: str
    measure: Callable[..., Any]
    arguments: tuple[Any, ...]
    minutes: float = 0.0
    """About; what takes long begins first."""


def side_by_side(works: Sequence[Work]) -> list[Any]:
    """What each gives, in their order."""
    begun = perf_counter()
    queue = sorted(works, key=lambda work: -work.minutes)
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
        futures = {id(work): pool.submit(work.measure, *work.arguments) for work in queue}
        names = {future: work.what for work, future in zip(queue, futures.values(), strict=True)}
        for count, done in enumerate(as_completed(names), 1):
            done.result()
            passed = perf_counter() - begun
            say(f"{count} of {len(works)} worlds after {passed:.0f} s: {names[done]}")
        return [futures[id(work)].result() for work in works]


def worst(timings: Sequence[Timing]) -> Timing:
    """The latest of each; None where one never came to it."""
    return Timing(
        _latest([t.first_ms for t in timings]),
        _latest([t.most_ms for t in timings]),
        _latest([t.all_ms for t in timings]),
    )


def _latest(times: Sequence[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return max(known) if len(known) == len(times) else None


def words(timing: Timing) -> str:
    """For a table."""
    first, most, every = (
        f"{time / 1000:.2f} s" if time is not None else "never"
        for time in (timing.first_ms, timing.most_ms, timing.all_ms)
    )
    return f"by the first after {first}, 99 of 100 {most}, all {every}"


def within(timing: Timing, first_ms: float, most_ms: float, all_ms: float) -> bool:
    """Whether each came in time."""
    pairs = zip(
        (timing.first_ms, timing.most_ms, timing.all_ms),
        (first_ms, most_ms, all_ms),
        strict=True,
    )
    return all(time is not None and time <= bound for time, bound in pairs)
