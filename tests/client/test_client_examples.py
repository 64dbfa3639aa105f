"""The example programs run against a node as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.gateway.served import Served

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("ask.py", "answered by beta with coder"),
        ("stream.py", "beta: first token after"),
        ("async_trio.py", "(beta, coder)\nHello!"),
        ("async_asyncio.py", "Hello!\n... that is enough."),
        ("openai_client.py", "Hello!"),
    ],
)
async def test_an_example(served: Served, name: str, shows: str) -> None:
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
