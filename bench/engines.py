"""An engine process as a client has it: asks, and notes when each token came."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from bench.turns import Side
from meshslm.adapters.engine_process import EngineProcess, EngineSpec, FindAdapter
from meshslm.core.events import EngineLost, EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.ids import RunId
from meshslm.models.model_library import ModelLibrary
from meshslm.settings import default_directories
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest, Usage

GREEDY = Sampling(temperature=0.0)
GOING = 30
"""Tokens after which a stream is at its pace."""
SUBJECTS = (
    "a dragon who is afraid of heights", "the lighthouse at the end of the world", "two robots",
    "a village that lost its bell", "the first winter on Mars", "a baker and her talking oven",
    "a ship in a bottle", "the last train to the north", "a library under the sea",
    "three brothers and one map", "the girl who painted the wind", "a clock that ran backwards",
    "an orchard on the moon", "the keeper of small keys", "a fox at the royal court",
    "the bridge that nobody built",
)  # fmt: skip
PROMPTS = tuple(f"Write a very long and detailed story about {subject}." for subject in SUBJECTS)


def library() -> ModelLibrary:
    """The models of the program's own store."""
    return ModelLibrary(
        Path(default_directories(os.environ, Path.home()).models), environment=os.environ
    )


def default_model() -> Path:
    """The default model, prepared."""
    models = library()
    return models.ensure(models.catalogue.default.name, lambda _: None).path


def chat(*turns: ChatMessage, tokens: int) -> TaskRequest:
    """A request for the likeliest tokens."""
    return TaskRequest("bench", messages=turns, max_tokens=tokens, sampling=GREEDY)


def question(prompt: str, tokens: int) -> TaskRequest:
    """A chat of one message."""
    return chat(ChatMessage("user", prompt), tokens=tokens)


def stories(
    count: int, turn: int, tokens: int | None = None, series: str = ""
) -> list[TaskRequest]:
    """So many requests whose prompts nobody has seen: what is known of them cannot help.

    Who asks one server twice names another `series` the second time.
    Answers are short in turn 0, which warms up, and where many come at the same time.
    """
    if tokens is None:
        tokens = 8 if turn == 0 else 64 if count <= 8 else 48
    return [
        chat(
            ChatMessage("system", f"{series}{turn}-{number}: you tell stories to children."),
            ChatMessage("user", PROMPTS[number % len(PROMPTS)]),
            tokens=tokens,
        )
        for number in range(count)
    ]


class Answering(Protocol):
    """An engine or a server."""

    async def speed(self, requests: Sequence[TaskRequest]) -> float:
        """Tokens a second of all at the same time."""
        ...


def at_a_time(who: Answering, count: int, series: str = "") -> Side:
    """Its speed with so many requests at the same time, new ones in each turn."""
    return lambda turn: who.speed(stories(count, turn, series=series))


@dataclass(slots=True)
class Reply:
    """What came of a run, and when, in seconds."""

    run: RunId
    began: float
    at: list[float] = field(default_factory=list)
    """Of each token."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    going: trio.Event = field(default_factory=trio.Event)
    """It has made `GOING` tokens, or ended."""
    done: trio.Event = field(default_factory=trio.Event)

    @property
    def first_ms(self) -> float:
        """Until the first token."""
        return 1000 * (self.at[0] - self.began)

    @property
    def pace(self) -> float:
        """Tokens a second behind the first."""
        return (len(self.at) - 1) / (self.at[-1] - self.at[0])


class Client:
    """Asks one engine process."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.ready = trio.Event()
        self._replies: dict[RunId, Reply] = {}
        self._last = 0

    async def post(self, *events: Event) -> None:
        """Hear what the engine says."""
        for event in events:
            match event:
                case EngineReady():
                    self.ready.set()
                case RunProduced(run, chunk) if run in self._replies:
                    reply = self._replies[run]
                    reply.at += [time.perf_counter()] * len(chunk.tokens)
                    reply.tokens += chunk.tokens
                    reply.text += chunk.text
                    if len(reply.at) >= GOING:
                        reply.going.set()
                case RunEnded(run, usage) if run in self._replies:
                    reply = self._replies.pop(run)
                    reply.usage = usage
                    reply.going.set()
                    reply.done.set()
                case RunFailed() | EngineLost():
                    raise SystemExit(f"the engine failed: {event}")
                case _:
                    pass

    def start(self, request: TaskRequest) -> Reply:
        """Begin a run."""
        self._last += 1
        run = RunId(self._last)
        reply = self._replies[run] = Reply(run, time.perf_counter())
        self.engine.start_run(run, request)
        return reply

    async def ask(self, request: TaskRequest) -> Reply:
        """Run to the end."""
        reply = self.start(request)
        await reply.done.wait()
        return reply

    async def ask_all(self, requests: Sequence[TaskRequest]) -> list[Reply]:
        """Run all at the same time, to the end of the last."""
        replies = [self.start(request) for request in requests]
        for reply in replies:
            await reply.done.wait()
        return replies

    async def seconds(self, requests: Sequence[TaskRequest]) -> float:
        """How long all of them take at the same time."""
        began = time.perf_counter()
        await self.ask_all(requests)
        return time.perf_counter() - began

    async def run(self, requests: Sequence[TaskRequest]) -> tuple[float, list[Reply]]:
        """Tokens a second of all at the same time, and what they were."""
        began = time.perf_counter()
        replies = await self.ask_all(requests)
        made = sum(len(reply.tokens) for reply in replies)
        return made / (time.perf_counter() - began), replies

    async def speed(self, requests: Sequence[TaskRequest]) -> float:
        """Tokens a second of all at the same time."""
        return (await self.run(requests))[0]

    async def first_ms(self, request: TaskRequest) -> float:
        """Until the first token of this one."""
        return (await self.ask(request)).first_ms

    @asynccontextmanager
    async def streaming(self, requests: Sequence[TaskRequest]) -> AsyncIterator[None]:
        """While these run; they are stopped at the end."""
        replies = [self.start(request) for request in requests]
        for reply in replies:
            await reply.going.wait()
        yield
        for reply in replies:
            if self._replies.pop(reply.run, None):
                self.engine.stop_run(reply.run)


def repeated(client: Client, requests: Sequence[TaskRequest]) -> Side:
    """Its speed with the same requests in each turn."""
    return lambda _: client.speed(requests)


@asynccontextmanager
async def running(
    spec: EngineSpec, find_adapter: FindAdapter = lambda _: None
) -> AsyncIterator[Client]:
    """An engine that is ready."""
    client = Client(EngineProcess(spec, find_adapter=find_adapter))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.engine.run, client.post)
        await client.ready.wait()
        yield client
        nursery.cancel_scope.cancel()
