"""The example programs run against a node as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import trio

from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import Step, calls, greeting
from tests.gateway.served import Served

EXAMPLES = Path(__file__).parents[2] / "examples"


def answered(request: TaskRequest) -> Iterable[Step]:
    """What a good model would answer to the examples."""
    last = request.messages[-1] if request.messages else None
    if request.constraint is not None:
        person = '{"name": "Ada Lovelace", "born": 1815, "known_for": "a program"}'
        return calls(text=person)(request)
    if request.tools and last is not None and last.role == "tool":
        return calls(text=f"The product is {last.content}.")(request)
    if request.tools:
        return calls(("call_a", "multiply", '{"a": 6, "b": 7}'))(request)
    return greeting(request)


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("ask.py", "answered by beta with coder"),
        ("stream.py", "beta: first token after"),
        ("async_trio.py", "(beta, coder)\nHello!"),
        ("async_asyncio.py", "Hello!\n... that is enough."),
        ("openai_client.py", "Hello!"),
        ("tools.py", 'called multiply with {"a": 6, "b": 7}: 42\nThe product is 42.'),
        ("json_schema.py", "name: Ada Lovelace\nborn: 1815\n"),
        ("embeddings.py", "3 numbers each, by beta with smollm2\n"),
    ],
)
async def test_an_example(served: Served, name: str, shows: str) -> None:
    served.service.script = answered
    run = partial(
        subprocess.run,
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=EXAMPLES.parent,
        env={**os.environ, "MESHSLM_URL": served.url, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    done = await trio.to_thread.run_sync(run)
    assert done.returncode == 0, done.stderr
    assert shows in done.stdout


def test_every_example_is_run() -> None:
    named = {name for name, _ in test_an_example.pytestmark[0].args[1]}  # type: ignore[attr-defined]  # put there by pytest's mark
    assert named == {path.name for path in EXAMPLES.glob("*.py")}
