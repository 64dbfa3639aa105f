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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import trio

from bench.bench_engine import PROMPTS, default_model
from bench.table import Row, spread
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost, EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.engine.cores import cores
from meshslm.ids import RunId
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest

TARGET = 0.8
TOKENS = 160
ROUNDS = 5
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


class Client:
    """Asks one engine."""

    def __init__(self, path: Path, threads: int | None) -> None:
        self.engine = EngineProcess(EngineSpec("m", path, context=512, slots=4, threads=threads))
        self.ready = trio.Event()
        self._over = trio.Event()
        self._open = 0
        self._tokens = 0
        self._run = 0

    async def post(self, event: Event) -> None:
        """Hear what it says."""
        match event:
            case EngineReady():
                self.ready.set()
            case RunProduced(_, chunk):
                self._tokens += len(chunk.tokens)
            case RunEnded():
                self._open -= 1
                if not self._open:
                    self._over.set()
            case RunFailed() | EngineLost():
                raise SystemExit(f"the engine failed: {event}")
            case _:
                pass

    async def speed(self, concurrent: int) -> float:
        """Tokens a second of so many requests at a time."""
        self._over, self._tokens, self._open = trio.Event(), 0, concurrent
        began = time.perf_counter()
        for prompt in PROMPTS[:concurrent]:
            self._run += 1
            request = TaskRequest(
                "m",
                messages=(ChatMessage("user", prompt),),
                max_tokens=TOKENS,
                sampling=Sampling(temperature=0.0),
            )
            self.engine.start_run(RunId(self._run), request)
        await self._over.wait()
        return self._tokens / (time.perf_counter() - began)


Speeds = dict[int | None, list[float]]
"""Threads, None for the adaptive ones -> a speed from each turn."""


async def _turns(clients: dict[int | None, Client], concurrent: int, rounds: int) -> Speeds:
    speeds: Speeds = {threads: [] for threads in clients}
    await trio.sleep(SETTLE_S)
    for _ in range(rounds):
        for threads, client in clients.items():
            speeds[threads].append(await client.speed(concurrent))
    return speeds


def _row(situation: str, concurrent: int, speeds: Speeds) -> Row:
    fixed = {threads: median(found) for threads, found in speeds.items() if threads is not None}
    best = max(fixed, key=lambda threads: fixed[threads])
    adaptive = speeds[None]
    ratio = median(a / b for a, b in zip(adaptive, speeds[best], strict=True))
    others = ", ".join(f"{n} threads {speed:.0f}" for n, speed in fixed.items() if n != best)
    return Row(
        f"{situation}, {concurrent} at a time",
        spread(adaptive, "tokens/s"),
        f"{best} fixed thread{'s' * (best > 1)} {spread(speeds[best], 'tokens/s')}; {others}",
        f"{ratio:.2f}",
        f"at least {TARGET}",
        ratio >= TARGET,
    )


async def _measure(path: Path, concurrency: Sequence[int], rounds: int) -> list[Row]:
    counts = (
        [*range(1, len(cores()) + 1)] if len(cores()) <= 4 else [1, len(cores()) // 2, len(cores())]
    )
    choices: list[int | None] = [*counts, None]
    clients = {threads: Client(path, threads) for threads in choices}
    situations: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "nobody else": nullcontext,
        "a busy neighbour anywhere": lambda: neighbour(None),
        "a busy neighbour on one core": lambda: neighbour(frozenset({min(cores())})),
    }
    rows = []
    async with trio.open_nursery() as nursery:
        for client in clients.values():
            nursery.start_soon(client.engine.run, client.post)
            await client.ready.wait()
        for client in clients.values():
            await client.speed(1)
        for situation, make in situations.items():
            for concurrent in concurrency:
                with make():
                    rows.append(
                        _row(situation, concurrent, await _turns(clients, concurrent, rounds))
                    )
        nursery.cancel_scope.cancel()
    return rows


def measure(concurrency: Sequence[int] = (1, 4), rounds: int = ROUNDS) -> list[Row]:
    """The rows for the page of figures, with the default model."""
    return trio.run(_measure, default_model(), concurrency, rounds)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    for row in measure(given.concurrent, given.rounds):
        print(f"{row.what}: {row.value} | {row.against} | {row.ratio}", flush=True)


if __name__ == "__main__":
    main()
