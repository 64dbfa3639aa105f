"""Vectors together and one by one, and what adapters cost, each against the other in turn.

Ratios are medians of the ratios of neighbouring turns, so that what else the machine does hits both
sides.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

import trio

from bench.table import Row, spread
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost, EngineReady, Event, RunEnded, RunFailed
from meshslm.ids import RunId
from meshslm.models.model_library import ModelLibrary
from meshslm.settings import default_directories
from meshslm.wire.messages import Sampling, TaskRequest
from tests.engine.small_lora import write_adapter

TURNS = 5
TEXTS = tuple(
    f"{who} {does} {where}."
    for who in ("A cat", "My neighbour", "The old ship", "Nobody here", "A young engineer")
    for does in ("sleeps near", "looks for", "has forgotten", "is proud of", "talks about")
    for where in ("the harbour", "a red door", "the last summer", "its own shadow", "the north")
)
STREAMS = 4
LAYERS = tuple(f"{part}.weight" for part in ("_q", "_k", "_v", "_output", "_gate", "_up", "_down"))
TOKENS = 48


class Driver:
    """Runs requests through an engine process."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self.ready = trio.Event()
        self._number = 0
        self._open = 0
        self._done = trio.Event()

    async def post(self, event: Event) -> None:
        """Hear what the engine says."""
        match event:
            case EngineReady():
                self.ready.set()
            case RunEnded():
                self._open -= 1
                if not self._open:
                    self._done.set()
            case RunFailed() | EngineLost():
                raise SystemExit(f"the engine failed: {event}")
            case _:
                pass

    async def seconds(self, requests: Sequence[TaskRequest]) -> float:
        """Time for all of them at once."""
        self._open, self._done = len(requests), trio.Event()
        began = time.perf_counter()
        for request in requests:
            self._number += 1
            self._engine.start_run(RunId(self._number), request)
        await self._done.wait()
        return time.perf_counter() - began


def measure() -> list[Row]:
    """The rows of the page."""
    store = Path(default_directories(os.environ, Path.home()).models)
    library = ModelLibrary(store, environment=os.environ)
    reader = library.ensure("all-minilm-l6-v2", lambda _: None).path
    chat = library.ensure(library.catalogue.default.name, lambda _: None).path
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):
            write_adapter(Path(folder) / name, chat, rank=8, size=0.01, targets=LAYERS)
        spec = EngineSpec("bench", chat, 512, 2 * STREAMS, readable=(folder,))
        adapted = EngineProcess(spec, find_adapter=lambda name: Path(folder) / name)
        return [
            *trio.run(_in, EngineProcess(EngineSpec("bench", reader, 256, 8)), _vectors),
            *trio.run(_in, adapted, _adapters),
        ]


async def _in(engine: EngineProcess, work: Callable[[Driver], Awaitable[list[Row]]]) -> list[Row]:
    driver = Driver(engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run, driver.post)
        await driver.ready.wait()
        rows = await work(driver)
        nursery.cancel_scope.cancel()
    return rows


async def _vectors(driver: Driver) -> list[Row]:
    together, single = [], []
    for turn in range(TURNS + 1):
        fast = await driver.seconds([_embed(*TEXTS)])
        slow = sum([await driver.seconds([_embed(text)]) for text in TEXTS])
        if turn:  # the first warms up
            together.append(len(TEXTS) / fast)
            single.append(len(TEXTS) / slow)
    ratio = median(a / b for a, b in zip(together, single, strict=True))
    row = Row(
        f"Vectors of {len(TEXTS)} sentences in one request",
        spread(together, "texts/s", 0),
        f"one request each, in turn: {spread(single, 'texts/s', 0)}",
        f"{ratio:.2f}",
    )
    return [row]


async def _adapters(driver: Driver) -> list[Row]:
    kinds = {
        "without an adapter": [""] * STREAMS,
        "all with one adapter": ["first"] * STREAMS,
        "half with each of two adapters": ["first", "second"] * (STREAMS // 2),
    }
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(TURNS + 1):
        for name, adapters in kinds.items():
            passed = await driver.seconds([_generate(adapter) for adapter in adapters])
            if turn:
                speeds[name].append(STREAMS * TOKENS / passed)
    base, *others = speeds
    rows = []
    for name in others:
        ratio = median(a / b for a, b in zip(speeds[name], speeds[base], strict=True))
        rows.append(
            Row(
                f"{STREAMS} streams, {name} (rank 8 on all matrices of all layers)",
                spread(speeds[name], "tokens/s"),
                f"{base}: {spread(speeds[base], 'tokens/s')}",
                f"{ratio:.2f}",
            )
        )
    return rows


def _embed(*texts: str) -> TaskRequest:
    return TaskRequest("bench", operation="embed", inputs=texts)


def _generate(adapter: str) -> TaskRequest:
    return TaskRequest(
        "bench",
        prompt="Once upon a time there was",
        max_tokens=TOKENS,
        sampling=Sampling(temperature=0.0),
        adapter=adapter,
    )
