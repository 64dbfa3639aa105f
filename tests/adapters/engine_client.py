"""A client of one engine, for tests: ask it and wait for the whole reply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from meshslm.core.events import (
    EngineLoading,
    EngineLost,
    EngineMeasured,
    EngineReady,
    Event,
    RunEnded,
    RunFailed,
    RunProduced,
)
from meshslm.ids import RunId
from meshslm.limits import KIB
from meshslm.ports import Engine
from meshslm.wire.messages import ChatMessage, Chunk, Sampling, TaskRequest

PATIENCE = 120.0
"""Seconds until a missing event fails a test; generous, as the machine may be busy."""


def chat(content: str, max_tokens: int = 32, **fields: Any) -> TaskRequest:
    """A chat request of one turn, greedy unless it says otherwise."""
    sampling = fields.pop("sampling", None) or Sampling(temperature=0.0)
    messages = (ChatMessage("user", content),)
    return TaskRequest("m", messages=messages, max_tokens=max_tokens, sampling=sampling, **fields)


@dataclass(slots=True)
class Reply:
    """What came of one run so far."""

    chunks: list[Chunk] = field(default_factory=list)
    ended: RunEnded | None = None
    failed: RunFailed | None = None
    changed: trio.Event = field(default_factory=trio.Event)

    def text(self, choice: int = 0) -> str:
        return "".join(chunk.text for chunk in self.chunks if chunk.choice == choice)

    def tokens(self, choice: int = 0) -> list[int]:
        return [t for chunk in self.chunks if chunk.choice == choice for t in chunk.tokens]

    def finish(self, choice: int = 0) -> list[str]:
        return [c.finish for c in self.chunks if c.choice == choice and c.finish]


class EngineClient:
    """Keeps what an engine posts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.states: list[EngineReady | EngineLost] = []
        self.measured: list[EngineMeasured] = []
        self.loading: list[float] = []
        self.replies: dict[int, Reply] = {}
        self._changed = trio.Event()

    async def post(self, *events: Event) -> None:
        for event in events:
            match event:
                case EngineReady() | EngineLost():
                    self.states.append(event)
                case EngineLoading(_, fraction):
                    self.loading.append(fraction)
                case EngineMeasured():
                    self.measured.append(event)
                case RunProduced(run, chunk):
                    reply = self.replies[run]
                    assert reply.ended is None
                    assert reply.failed is None
                    reply.chunks.append(chunk)
                case RunEnded(run):
                    self.replies[run].ended = event
                case RunFailed(run):
                    self.replies[run].failed = event
                case _:
                    raise AssertionError(f"an engine does not post {event}")
            self._changed.set()

    def start(self, request: TaskRequest) -> tuple[RunId, Reply]:
        run = RunId(len(self.replies) + 1)
        reply = self.replies[run] = Reply()
        self.engine.start_run(run, request)
        return run, reply

    async def ask(self, request: TaskRequest) -> Reply:
        _, reply = self.start(request)
        await self.over(reply)
        return reply

    async def ask_all(self, requests: list[TaskRequest]) -> list[Reply]:
        """All at the same time."""
        replies = [self.start(request)[1] for request in requests]
        for reply in replies:
            await self.over(reply)
        return replies

    async def over(self, reply: Reply) -> None:
        await self.until(lambda: reply.ended is not None or reply.failed is not None)

    async def until(self, fact: Any) -> None:
        """Wait until `fact()`; it is looked at after each event."""
        with trio.fail_after(PATIENCE):
            while not fact():
                await self._changed.wait()
                self._changed = trio.Event()

    async def until_ready(self) -> None:
        await self.until(lambda: self.states and isinstance(self.states[-1], EngineReady))


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[EngineClient]:
    """Run an engine and wait until it is ready."""
    client = EngineClient(engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run, client.post)
        await client.until_ready()
        yield client
        nursery.cancel_scope.cancel()


def private_bytes(pid: int) -> int:
    """Memory of a process that its limit counts."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmData:"))
    return int(kib) * KIB
