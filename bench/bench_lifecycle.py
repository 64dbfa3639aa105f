"""How long a model takes to come, to come back, and to go; and what two workers of it weigh.

A worker is killed as the kernel would kill it, in the middle of a reply; the time counts until the
next one takes requests.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import trio

from bench.engines import GREEDY, default_model
from bench.table import Row, spread
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineReady, Event, RunProduced
from meshslm.ids import RunId
from meshslm.wire.messages import ChatMessage, TaskRequest

TIMES = 7
RESTART_S = 2.0
MIB = 1024 * 1024
LONG = TaskRequest(
    "m",
    messages=(ChatMessage("user", "Write a very long and detailed story about a dragon."),),
    max_tokens=400,
    sampling=GREEDY,
)


@dataclass
class Heard:
    """What an engine said."""

    ready: int = 0
    tokens: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    async def post(self, *events: Event) -> None:
        """Count."""
        for event in events:
            self.ready += isinstance(event, EngineReady)
            self.tokens += isinstance(event, RunProduced)
            self.changed.set()

    async def until(self, ready: int = 0, tokens: int = 0) -> None:
        """Wait until it has said so many things."""
        while self.ready < ready or self.tokens < tokens:
            self.changed = trio.Event()
            await self.changed.wait()


async def _restarts(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Seconds to load, from a kill to ready, and to unload."""
    loads, restarts, unloads = [], [], []
    for _ in range(TIMES):
        heard = Heard()
        engine = EngineProcess(EngineSpec("m", path))
        async with trio.open_nursery() as nursery:
            began = time.perf_counter()
            nursery.start_soon(engine.run, heard.post)
            await heard.until(ready=1)
            loads.append(time.perf_counter() - began)
            engine.start_run(RunId(1), LONG)
            await heard.until(tokens=3)
            assert engine.pid is not None
            began = time.perf_counter()
            os.kill(engine.pid, signal.SIGKILL)
            await heard.until(ready=2)
            restarts.append(time.perf_counter() - began)
            began = time.perf_counter()
            nursery.cancel_scope.cancel()
        unloads.append(time.perf_counter() - began)
    return loads, restarts, unloads


async def _weights(path: Path) -> tuple[float, float]:
    """MiB of weights mapped by two workers in use, as each sees them, and as they really are."""
    engines = [EngineProcess(EngineSpec("m", path)) for _ in range(2)]
    heard = [Heard() for _ in engines]
    rss = pss = 0
    async with trio.open_nursery() as nursery:
        for engine, ears in zip(engines, heard, strict=True):
            nursery.start_soon(engine.run, ears.post)
            await ears.until(ready=1)
            engine.start_run(RunId(1), LONG)
            await ears.until(tokens=3)
        for engine in engines:
            assert engine.pid is not None
            for entry in psutil.Process(engine.pid).memory_maps():
                if entry.path == str(path):
                    rss += entry.rss
                    pss += entry.pss
        nursery.cancel_scope.cancel()
    return rss / MIB, pss / MIB


def measure() -> list[Row]:
    """The rows for the page of figures, with the default model."""
    path = default_model().resolve()
    loads, restarts, unloads = trio.run(_restarts, path)
    rss, pss = trio.run(_weights, path)
    return [
        Row("from starting a worker to ready", spread(loads, "s", 2)),
        Row(
            "from the death of a worker to the next one ready",
            spread(restarts, "s", 2),
            target=f"under {RESTART_S} s",
            reached=median(restarts) < RESTART_S,
        ),
        Row("unloading", spread(unloads, "s", 2)),
        Row(
            "weights of two workers in memory",
            f"{pss:.0f} MiB",
            f"mapped by each, added up: {rss:.0f} MiB",
            f"{pss / rss:.2f}",
        ),
    ]


def main() -> None:
    """Run as a program."""
    for row in measure():
        print(f"{row.what}: {row.value} {row.against} {row.ratio} {row.target}")


if __name__ == "__main__":
    main()
