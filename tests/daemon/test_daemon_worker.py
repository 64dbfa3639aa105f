"""A node above a real worker that dies, hangs or lies: what becomes of its clients' requests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.errors import FaultCode
from meshslm.limits import KIB
from tests.adapters.engine_client import private_bytes
from tests.daemon.box import Box, Outcome
from tests.daemon.real_node import real_node

pytestmark = pytest.mark.model
LONG = "Write a very long and detailed story about a dragon who is afraid of heights."


@asynccontextmanager
async def node(model_path: Path, *, slots: int = 2) -> AsyncIterator[Box[EngineProcess]]:
    """A node with one real model, ready."""
    spec = EngineSpec("m", model_path, context=1024, slots=slots, hang_s=2.0)
    async with real_node(spec) as box:
        yield box


async def until(fact: Callable[[], object]) -> None:
    while not fact():  # noqa: ASYNC110 - the worker is another process
        await trio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP])
async def test_a_dead_worker_costs_nobody_a_request(
    model_path: Path, number: signal.Signals
) -> None:
    """Two have begun: the next worker goes on with them, and answers those that wait."""
    async with node(model_path, slots=2) as box, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(box.ask, "p", LONG, 160)
        await until(lambda: len(begun(box)) == 2)
        for _ in range(4):
            nursery.start_soon(box.ask, "p", "Hello", 4)
        await until(lambda: box.service.status().tasks.active == 6)
        pid = box.engines["m"].pid
        assert pid is not None
        os.kill(pid, number)
        await until(lambda: all(outcome.over for outcome in box.asked))
    assert not [outcome.failed for outcome in box.asked if outcome.failed]
    assert all(outcome.text for outcome in box.asked)
    tasks = box.service.status().tasks
    assert tasks.retried >= 6
    assert tasks.continued == 2


def begun(box: Box[EngineProcess]) -> list[Outcome]:
    return [outcome for outcome in box.asked if outcome.text]


async def test_a_worker_killed_while_idle_is_replaced_unseen(model_path: Path) -> None:
    async with node(model_path) as box:
        pid = box.engines["m"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        outcome = await box.ask("p", "Hello", 4)
        assert outcome.failed is None
        assert outcome.text
        assert box.engines["m"].pid != pid


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's memory")
async def test_a_worker_that_runs_out_of_memory_says_so_and_costs_no_waiting_request(
    model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its limit is drawn close around what it has, so that the next large thing does not fit."""
    async with node(model_path, slots=2) as box, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(box.ask, "p", LONG, 160)
        await until(lambda: len(begun(box)) == 2)
        pid = box.engines["m"].pid
        assert pid is not None
        most = private_bytes(pid) + 256 * KIB
        psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (most, most))
        nursery.start_soon(box.ask, "p", "x " * 250_000, 4)
        for _ in range(3):
            nursery.start_soon(box.ask, "p", "Hello", 4)
        await until(lambda: len(box.asked) == 6 and all(outcome.over for outcome in box.asked))
        assert box.engines["m"].pid not in (None, pid), "there is another worker"
    assert "it ran out of memory" in caplog.text
    first, large, waiting = box.asked[:2], box.asked[2:3], box.asked[3:]
    assert all(outcome.failed is None and outcome.text for outcome in first), "they went on"
    assert sorted(o.failed is None for o in [*large, *waiting]) == [False, True, True, True]
    (refused,) = (o.failed for o in [*large, *waiting] if o.failed)
    assert refused.code is FaultCode.CONTEXT_OVERFLOW, "asked again, it gets its real answer"
