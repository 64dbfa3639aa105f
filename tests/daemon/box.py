"""A node of the daemon's real parts, without a network, and with whatever engines a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import EmitChunk, FailTask, FinishTask, Started
from meshslm.core.node import NodeCore
from meshslm.core.views import ModelView
from meshslm.daemon.executor import Executor
from meshslm.daemon.hosting import Hosting, Room, Shape
from meshslm.daemon.pump import Pump
from meshslm.daemon.service import NodeService
from meshslm.daemon.task_stream import ClientEffect
from meshslm.daemon.timers import Timers
from meshslm.errors import OurFault
from meshslm.ids import Instant, NodeId
from meshslm.ports import Engine, Post
from meshslm.profiles import Profile
from meshslm.wire.messages import ChatMessage, Hardware, TaskRequest

E = TypeVar("E", bound=Engine)


class TrioClock:
    def now(self) -> Instant:
        return Instant(int(trio.current_time() * 1e6))


class NoLink:
    """A link that nobody is connected to."""

    node_id = NodeId("a")
    addresses: tuple[str, ...] = ()

    def send(self, *_: object) -> None: ...

    def dial(self, address: str) -> None: ...

    def disconnect(self, *_: object) -> None: ...

    async def run(self, post: Post, *, started: Callable[[], None]) -> None: ...


@dataclass(frozen=True)
class OnDisk:
    name: str
    digest: str = "d"
    quantisation: str = "Q8_0"


@dataclass
class Outcome:
    """What a client got."""

    items: list[ClientEffect] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(item.chunk.text for item in self.items if isinstance(item, EmitChunk))

    @property
    def over(self) -> bool:
        return bool(self.items) and isinstance(self.items[-1], FinishTask | FailTask)

    @property
    def failed(self) -> FailTask | None:
        end = self.items[-1]
        assert isinstance(end, FinishTask | FailTask)
        return end if isinstance(end, FailTask) else None


@dataclass
class Box(Generic[E]):
    """The node."""

    make_engine: Callable[[str], E]
    profiles: tuple[Profile, ...]
    needs: dict[str, float]
    room: Room
    missing: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    """Digests by name."""

    def __post_init__(self) -> None:
        self.asked: list[Outcome] = []
        clock = TrioClock()
        self.engines: dict[str, E] = {}
        self.core = NodeCore(CoreConfig(NodeId("a"), "a"), Chance.from_int(1))
        self.pump = Pump(self.core, clock)
        self.timers = Timers(clock, self.pump.handle)
        self.service = NodeService(
            self.core, self.pump, clock, Chance.from_int(2), readiness=lambda: (True, "")
        )
        executor = Executor(NoLink(), self.timers, self.service, self.pump)
        self.pump.attach(executor.perform)
        self.hosting = Hosting(
            self.profiles,
            Hardware(),
            self.pump,
            executor,
            ensure=self.ensure,
            make_engine=self.make,
            room=self.room,
            adapters=lambda _: self.adapters,
        )

    def ensure(self, model: str) -> tuple[OnDisk, Shape]:
        if model in self.missing:
            raise OurFault(self.missing[model])
        operations = ("generate", "template")
        unknown = self.unknown.get(model, "")
        weights_mib = self.needs[model] / 3
        return OnDisk(model), Shape(2048, 2, self.needs[model], unknown, operations, weights_mib)

    def make(self, model: OnDisk) -> E:
        engine = self.engines[model.name] = self.make_engine(model.name)
        return engine

    async def run(self) -> None:
        self.pump.handle(Started(1, ()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.timers.run)
            nursery.start_soon(self.hosting.run)

    def models(self) -> dict[str, ModelView]:
        return {view.model: view for view in self.service.status().models}

    def states(self) -> dict[str, str]:
        return {view.model: view.state for view in self.service.status().models}

    async def until(self, **states: str) -> None:
        while self.states() != states:  # noqa: ASYNC110 - the core has no waiters
            await trio.sleep(0.01)

    async def ask(self, model: str, text: str = "hi", max_tokens: int = 0) -> Outcome:
        request = TaskRequest(
            model, (ChatMessage("user", text),), max_tokens=max_tokens, deadline_ms=90_000
        )
        outcome = Outcome()
        self.asked.append(outcome)
        async with self.service.submit(request) as stream:
            async for item in stream:
                outcome.items.append(item)
        return outcome
