"""Vectors together and one by one, and what adapters cost, each against the other in turn.

Ratios are medians of the ratios of neighbouring turns, so that what else the machine does hits both
sides.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from bench.engines import GREEDY, default_model, library, repeated, running
from bench.table import Row
from bench.turns import Effort, say, speeds, take_turns
from meshslm.adapters.engine_process import EngineSpec
from meshslm.wire.messages import TaskRequest
from tests.engine.small_lora import write_adapter

EFFORT = Effort(least=3, most=5, budget_s=30)
TEXTS = tuple(
    f"{who} {does} {where}."
    for who in ("A cat", "My neighbour", "The old ship", "Nobody here", "A young engineer")
    for does in ("sleeps near", "looks for", "has forgotten", "is proud of", "talks about")
    for where in ("the harbour", "a red door", "the last summer", "its own shadow", "the north")
)
STREAMS = 4
LAYERS = tuple(f"{part}.weight" for part in ("_q", "_k", "_v", "_output", "_gate", "_up", "_down"))
TOKENS = 48


def measure() -> list[Row]:
    """The rows of the page."""
    models = library()
    reader = models.ensure("all-minilm-l6-v2", lambda _: None).path
    return [*trio.run(_vectors, reader), *trio.run(_adapters, default_model())]


async def _vectors(reader: Path) -> list[Row]:
    say("vectors")
    async with running(EngineSpec("bench", reader, 256, 8)) as client:

        async def together(_: int) -> float:
            return len(TEXTS) / await client.seconds([_embed(*TEXTS)])

        async def single(_: int) -> float:
            return len(TEXTS) / sum([await client.seconds([_embed(text)]) for text in TEXTS])

        made = await take_turns({"together": together, "single": single}, EFFORT)
    what = f"Vectors of {len(TEXTS)} sentences in one request"
    one = "one request each, in turn:"
    return [speeds(what, made["together"], one, made["single"], unit="texts/s", digits=0)]


async def _adapters(chat: Path) -> list[Row]:
    say("adapters")
    kinds = {
        "without an adapter": [""] * STREAMS,
        "all with one adapter": ["first"] * STREAMS,
        "half with each of two adapters": ["first", "second"] * (STREAMS // 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):
            write_adapter(Path(folder) / name, chat, rank=8, size=0.01, targets=LAYERS)
        spec = EngineSpec("bench", chat, 512, 2 * STREAMS, readable=(folder,))
        async with running(spec, find_adapter=lambda name: Path(folder) / name) as client:
            sides = {
                kind: repeated(client, [_generate(name) for name in names])
                for kind, names in kinds.items()
            }
            made = await take_turns(sides, EFFORT)
    base, *others = made
    return [
        speeds(
            f"{STREAMS} streams, {name} (rank 8 on all matrices of all layers)",
            made[name],
            f"{base}:",
            made[base],
        )
        for name in others
    ]


def _embed(*texts: str) -> TaskRequest:
    return TaskRequest("bench", operation="embed", inputs=texts)


def _generate(adapter: str) -> TaskRequest:
    return TaskRequest(
        "bench",
        prompt="Once upon a time there was",
        max_tokens=TOKENS,
        sampling=GREEDY,
        adapter=adapter,
    )
