"""What a model computed outlives its time in memory: unloaded and loaded by order, or killed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import FinishTask
from meshslm.core.residency import Order
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest
from tests.daemon.box import Box, Outcome
from tests.daemon.real_node import real_node

pytestmark = pytest.mark.model

STORY = "The lighthouse keeper counts the ships that pass and writes each name in a book. " * 18
"""About 310 tokens, of which whole tiles are kept."""
TURNS = (ChatMessage("user", STORY + "How does it go on?"),)
KEPT_TOKENS = 256


@asynccontextmanager
async def node(model_path: Path, states: Path) -> AsyncIterator[Box[EngineProcess]]:
    spec = EngineSpec("m", model_path, 512, 1, states=str(states), states_mib=128)
    async with real_node(spec) as box:
        yield box


async def asked(box: Box[EngineProcess], *turns: ChatMessage) -> tuple[str, int]:
    """The answer to a conversation, and how much of its prompt was not computed again."""
    request = TaskRequest("p", turns, max_tokens=8, sampling=Sampling(temperature=0.0))
    outcome = Outcome()
    async with box.service.submit(request) as stream:
        async for item in stream:
            outcome.items.append(item)
    end = outcome.items[-1]
    assert isinstance(end, FinishTask), end
    return outcome.text, end.usage.cached_tokens


async def away_and_back(box: Box[EngineProcess]) -> None:
    """Unload the model and load it again, by order."""
    box.service.order_model("m", Order.UNLOAD)
    await box.until(m="absent")
    assert box.engines["m"].pid is None
    box.service.order_model("m", Order.LOAD)
    await box.until(m="ready")


async def test_a_conversation_goes_on_after_unload_and_load(
    model_path: Path, tmp_path: Path
) -> None:
    states = tmp_path / "states"
    async with node(model_path, states) as box:
        first, cached = await asked(box, *TURNS)
        assert cached == 0
        assert not any(states.iterdir()), "nothing is written while it is loaded"
        await away_and_back(box)
        assert any(states.iterdir())
        more = (ChatMessage("assistant", first), ChatMessage("user", "And then?"))
        _, cached = await asked(box, *TURNS, *more)
        assert cached >= KEPT_TOKENS
        again, cached = await asked(box, *TURNS)
        assert (again, cached >= KEPT_TOKENS) == (first, True), "the same answer from what was kept"


async def test_a_worker_that_is_killed_has_kept_nothing(model_path: Path, tmp_path: Path) -> None:
    states = tmp_path / "states"
    async with node(model_path, states) as box:
        await asked(box, *TURNS)
        pid = box.engines["m"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert (await asked(box, *TURNS))[1] == 0
        assert not any(states.iterdir())
