"""Threads that follow free cores: the adaptive engine against every fixed number of threads.

For each situation (nobody else, a busy neighbour that may run anywhere, one pinned to a core) every
fixed number of threads and the adaptive choice take turns on workers that stay loaded, and the
adaptive one is held against the best fixed one: the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

import trio

from bench.engines import PROMPTS, Client, default_model, question, repeated, running
from bench.table import Row, markdown
from bench.turns import Effort, say, speeds, take_turns
from meshslm.adapters.engine_process import EngineSpec
from meshslm.engine.cores import cores

TARGET = 0.8
TOKENS = 96
EFFORT = Effort(least=3, most=5, budget_s=40)
SETTLE_S = 1.0
"""Time that a neighbour has been busy for when a turn begins: every turn meets the same machine."""
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:  # it does not outlive a benchmark that is killed
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def neighbour(pinned: frozenset[int] | None) -> Iterator[None]:
    """A process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        if pinned is not None:
            os.sched_setaffinity(process.pid, pinned)
        yield
    finally:
        process.kill()
        process.wait()


Speeds = dict[int | None, list[float]]
"""Threads, None for the adaptive ones -> a speed from each turn."""


async def _turns(clients: dict[int | None, Client], concurrent: int, effort: Effort) -> Speeds:
    await trio.sleep(SETTLE_S)
    requests = [question(prompt, TOKENS) for prompt in PROMPTS[:concurrent]]
    sides = {str(threads): repeated(client, requests) for threads, client in clients.items()}
    made = await take_turns(sides, effort)
    return {threads: made[str(threads)] for threads in clients}


def _row(situation: str, concurrent: int, made: Speeds) -> Row:
    fixed = {threads: median(found) for threads, found in made.items() if threads is not None}
    best = max(fixed, key=lambda threads: fixed[threads])
    others = ", ".join(f"{n} threads {speed:.0f}" for n, speed in fixed.items() if n != best)
    row = speeds(
        f"{situation}, {concurrent} at a time",
        made[None],
        f"{best} fixed thread{'s' * (best > 1)}",
        made[best],
        TARGET,
    )
    return replace(row, against=f"{row.against}; {others}")


async def _measure(path: Path, concurrency: Sequence[int], effort: Effort) -> list[Row]:
    most = len(cores())
    choices: list[int | None] = [*(range(1, most + 1) if most <= 4 else (1, most // 2, most)), None]
    situations: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "nobody else": nullcontext,
        "a busy neighbour anywhere": lambda: neighbour(None),
        "a busy neighbour on one core": lambda: neighbour(frozenset({min(cores())})),
    }
    rows = []
    async with AsyncExitStack() as stack:
        clients = {
            threads: await stack.enter_async_context(
                running(EngineSpec("bench", path, context=512, slots=4, threads=threads))
            )
            for threads in choices
        }
        for situation, make in situations.items():
            for concurrent in concurrency:
                say(f"{situation}, {concurrent} at a time")
                with make():
                    made = await _turns(clients, concurrent, effort)
                rows.append(_row(situation, concurrent, made))
    return rows


def measure(concurrency: Sequence[int] = (1, 4), effort: Effort = EFFORT) -> list[Row]:
    """The rows for the page of figures, with the default model."""
    return trio.run(_measure, default_model(), concurrency, effort)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=EFFORT.most)
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    effort = Effort(min(EFFORT.least, given.rounds), given.rounds, EFFORT.budget_s)
    print(markdown(measure(given.concurrent, effort)))


if __name__ == "__main__":
    main()
