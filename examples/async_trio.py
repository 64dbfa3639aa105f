"""Three questions at the same time, on trio: the mesh answers each where it is known best.

    python examples/async_trio.py

Needs a running node (`meshslm up`, or `make run`) and trio.
"""

from __future__ import annotations

import os

import trio

from meshslm.client import DEFAULT_URL, AsyncClient

QUESTIONS = (
    "Write a Python function that adds two numbers.",
    "Write the first sentence of a fairy tale.",
    "What is the capital of France?",
)


async def main() -> None:
    """Ask all of them, and print the answers as they come."""
    async with AsyncClient(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:

        async def ask(question: str) -> None:
            answer = await mesh.ask(question, max_tokens=80)
            print(f"--- {question} ({answer.node_name}, {answer.profile})\n{answer.text}\n")

        async with trio.open_nursery() as nursery:
            for question in QUESTIONS:
                nursery.start_soon(ask, question)


if __name__ == "__main__":
    trio.run(main)
