"""The engine against a bare loop over the same low-level calls, in the same run.

`python -m bench.bench_engine [MODEL.gguf]` prints a table; `measure()` gives its rows. Both sides
get the same prompts, threads, context and greedy choice, and take turns, so that what else the
machine does hits both. The ratio is the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from meshslm.engine import openmp

os.environ.update(openmp.settings(os.environ))

import llama_cpp as llama
import numpy as np
import trio

from bench.table import Row, spread
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost, EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.engine.cores import cores
from meshslm.engine.gguf import read_header
from meshslm.engine.llama import Vocabulary
from meshslm.engine.templates import ChatTemplate
from meshslm.ids import RunId
from meshslm.models.model_library import ModelLibrary
from meshslm.settings import default_directories
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest

CONTEXT = 512
TOKENS = 128
BATCH = 512
TARGETS = {8: 0.97}
SUBJECTS = (
    "a dragon who is afraid of heights", "the lighthouse at the end of the world", "two robots",
    "a village that lost its bell", "the first winter on Mars", "a baker and her talking oven",
    "a ship in a bottle", "the last train to the north", "a library under the sea",
    "three brothers and one map", "the girl who painted the wind", "a clock that ran backwards",
    "an orchard on the moon", "the keeper of small keys", "a fox at the royal court",
    "the bridge that nobody built",
)  # fmt: skip
PROMPTS = tuple(f"Write a very long and detailed story about {subject}." for subject in SUBJECTS)


@dataclass(frozen=True, slots=True)
class Case:
    """What was measured with so many requests at the same time; one entry each turn."""

    concurrent: int
    engine_tps: list[float]
    bare_tps: list[float]
    first_ms: list[float]
    """Until each request had its first token."""
    same_tokens: bool
    """Both sides made the same tokens."""

    @property
    def ratio(self) -> float:
        """Engine against bare loop; 1 is the limit."""
        pairs = zip(self.engine_tps, self.bare_tps, strict=True)
        return median(engine / bare for engine, bare in pairs)


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured."""

    load_ms: float
    """From starting the worker to ready."""
    threads: int
    cases: list[Case]


class Bare:
    """The least that could be done: fill a batch, decode, take the maximum."""

    def __init__(self, path: Path, slots: int, threads: int) -> None:
        model_parameters = llama.llama_model_default_params()
        model_parameters.use_extra_bufts = False
        model = llama.llama_model_load_from_file(str(path).encode(), model_parameters)
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = CONTEXT * slots
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_seq_max = slots
        parameters.n_outputs_max = slots
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = llama.llama_init_from_model(model, parameters)
        self.memory = llama.llama_get_memory(self.context)
        self.vocabulary = Vocabulary(llama.llama_model_get_vocab(model))
        self.batch = llama.llama_batch_init(BATCH, 0, 1)
        self.template = ChatTemplate(read_header(path).chat_template)

    def tokens(self, prompt: str) -> list[int]:
        """The prompt's tokens, as the engine has them."""
        parts = self.template.render((ChatMessage("user", prompt),), date.min)
        return [
            token for part in parts for token in self.vocabulary.tokens(part.text, special=True)
        ]

    def decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Compute rows of (token, position, sequence, logits wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for place, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = sequence
            batch.logits[place] = wanted
        if llama.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama_decode failed")

    def best(self, count: int) -> list[int]:
        """The likeliest tokens of the `count` rows that were wanted."""
        address = ctypes.cast(llama.llama_get_logits(self.context), ctypes.c_void_p).value
        assert address is not None
        size = self.vocabulary.size
        flat = np.ctypeslib.as_array((ctypes.c_float * (count * size)).from_address(address))
        return [int(token) for token in flat.reshape(count, size).argmax(axis=1)]

    def run(self, prompts: Sequence[list[int]]) -> tuple[float, list[list[int]]]:
        """Tokens a second, and the tokens."""
        llama.llama_memory_clear(self.memory, False)  # noqa: FBT003 - a C call
        began = time.perf_counter()
        made: list[list[int]] = []
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            self.decode([(t, place, sequence, place == last) for place, t in enumerate(prompt)])
            made.append(self.best(1))
        going = list(range(len(prompts)))
        while going := [
            one for one in going
            if len(made[one]) < TOKENS and not self.vocabulary.ends(made[one][-1])
        ]:  # fmt: skip
            self.decode(
                [
                    (made[one][-1], len(prompts[one]) + len(made[one]) - 1, one, True)
                    for one in going
                ]
            )
            for one, token in zip(going, self.best(len(going)), strict=True):
                made[one].append(token)
        passed = time.perf_counter() - began
        made = [[token for token in one if not self.vocabulary.ends(token)] for one in made]
        return sum(map(len, made)) / passed, made


class Driver:
    """Runs requests through an engine process."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.ready = trio.Event()
        self._number = 0
        self._open = 0
        self._done = trio.Event()
        self._made: dict[int, list[int]] = {}
        self._first: list[float] = []

    async def post(self, event: Event) -> None:
        """Hear what the engine says."""
        match event:
            case EngineReady():
                self.ready.set()
            case RunProduced(run, chunk):
                if not self._made[run] and chunk.tokens:
                    self._first.append(time.perf_counter())
                self._made[run] += chunk.tokens
            case RunEnded():
                self._open -= 1
                if not self._open:
                    self._done.set()
            case RunFailed() | EngineLost():
                raise SystemExit(f"the engine failed: {event}")
            case _:
                pass

    async def run(self, prompts: Sequence[str]) -> tuple[float, list[float], list[list[int]]]:
        """Tokens a second, times to the first tokens in ms, and the tokens."""
        self._made, self._first, self._done = {}, [], trio.Event()
        self._open = len(prompts)
        began = time.perf_counter()
        for prompt in prompts:
            self._number += 1
            self._made[self._number] = []
            request = TaskRequest(
                "bench",
                messages=(ChatMessage("user", prompt),),
                max_tokens=TOKENS,
                sampling=Sampling(temperature=0.0),
            )
            self.engine.start_run(RunId(self._number), request)
        await self._done.wait()
        passed = time.perf_counter() - began
        made = list(self._made.values())
        first = [1000 * (at - began) for at in self._first]
        return sum(map(len, made)) / passed, first, made


async def _measure(path: Path, threads: int, concurrent: Sequence[int], rounds: int) -> Measured:
    slots = max(concurrent)
    engine = EngineProcess(EngineSpec("bench", path, CONTEXT, slots, threads, BATCH))
    driver = Driver(engine)
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        nursery.start_soon(engine.run, driver.post)
        await driver.ready.wait()
        load_ms = 1000 * (time.perf_counter() - began)
        bare = Bare(path, slots, threads)
        cases = [await _case(driver, bare, count, rounds) for count in concurrent]
        nursery.cancel_scope.cancel()
    return Measured(load_ms, threads, cases)


async def _case(driver: Driver, bare: Bare, count: int, rounds: int) -> Case:
    prompts = PROMPTS[:count]
    tokenised = [bare.tokens(prompt) for prompt in prompts]
    engine_tps, bare_tps, first_ms, same = [], [], [], True
    for turn in range(rounds + 1):
        bare_speed, bare_made = bare.run(tokenised)
        engine_speed, first, engine_made = await driver.run(prompts)
        same = same and bare_made == engine_made
        if turn:  # the first warms up
            bare_tps.append(bare_speed)
            engine_tps.append(engine_speed)
            first_ms += first
    return Case(count, engine_tps, bare_tps, first_ms, same)


def measure_cases(
    path: Path,
    *,
    threads: int | None = None,
    concurrent: Sequence[int] = (1, 4, 8, 16),
    rounds: int = 5,
) -> Measured:
    """Measure the model at `path`; takes minutes."""
    return trio.run(_measure, path, threads or len(cores()), concurrent, rounds)


def default_model() -> Path:
    """The default model, prepared, out of the program's own store."""
    store = default_directories(os.environ, Path.home()).models
    library = ModelLibrary(Path(store), environment=os.environ)
    return library.ensure(library.catalogue.default.name, lambda _: None).path


def measure() -> list[Row]:
    """The rows for the page of figures, with the default model."""
    measured = measure_cases(default_model())
    rows = [
        Row(f"Model load, from starting the worker, {measured.threads} threads",
            f"{measured.load_ms:.0f} ms"),
    ]  # fmt: skip
    for case in measured.cases:
        target = TARGETS.get(case.concurrent)
        rows.append(
            Row(
                f"{case.concurrent} at a time",
                spread(case.engine_tps, "tokens/s"),
                f"bare loop {spread(case.bare_tps, 'tokens/s')}",
                f"{case.ratio:.3f}",
                "" if target is None else f"at least {target}",
                None if target is None else case.ratio >= target,
            )
        )
        rows.append(
            Row(f"First token, {case.concurrent} at a time", spread(case.first_ms, "ms", 0))
        )
    return rows


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 4, 8, 16])
    given = parser.parse_args()
    measured = measure_cases(
        given.model or default_model(),
        threads=given.threads,
        concurrent=given.concurrent,
        rounds=given.rounds,
    )
    print(f"load {measured.load_ms:.0f} ms, {measured.threads} threads")
    for case in measured.cases:
        print(
            f"{case.concurrent:3d} at a time: engine {spread(case.engine_tps, 'tokens/s')}, "
            f"bare {spread(case.bare_tps, 'tokens/s')}, ratio {case.ratio:.3f}, first token "
            f"{spread(case.first_ms, 'ms', 0)}, {'same' if case.same_tokens else 'OTHER'} tokens"
        )


if __name__ == "__main__":
    main()
