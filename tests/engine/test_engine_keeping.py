"""A real worker in its sandbox keeps states in its folder, and the next one begins with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from tests.adapters.engine_client import Reply, chat, serving

pytestmark = pytest.mark.model

LONG = "Tell me a story about " + ", ".join(f"the {n}th cat of the house" for n in range(60))


async def test_a_worker_begins_with_what_the_one_before_it_kept(
    model_path: Path, tmp_path: Path
) -> None:
    spec = EngineSpec(
        "m", model_path, 1024, 2, sandbox="auto", states=str(tmp_path / "s"), states_mib=500
    )
    replies: list[Reply] = []
    for _ in range(2):
        async with serving(EngineProcess(spec)) as client:
            with trio.fail_after(120):
                await client.until_ready()
                replies.append(await client.ask(chat(LONG, 8)))
    first, second = replies
    assert first.ended is not None
    assert second.ended is not None
    assert first.ended.usage.cached_tokens == 0
    assert second.ended.usage.cached_tokens >= 256
    assert first.tokens() == second.tokens()
