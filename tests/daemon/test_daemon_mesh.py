"""Whole nodes in one process: production shell and core, an in-process link, a hand-made engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
import trio.lowlevel

from meshslm.adapters.memory_link import MemoryLink, MemoryNetwork
from meshslm.adapters.scripted_port import ScriptedPort
from meshslm.adapters.system_clock import SystemClock
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    EmitChunk,
    EngineReady,
    FailTask,
    FinishTask,
    HostingChanged,
    RouteChosen,
    RunEnded,
    RunProduced,
    ShutdownRequested,
    Started,
)
from meshslm.core.node import NodeCore
from meshslm.daemon.engine_room import EngineRoom
from meshslm.daemon.executor import Executor
from meshslm.daemon.pump import Pump
from meshslm.daemon.service import NodeService
from meshslm.daemon.timers import Timers
from meshslm.errors import FaultCode
from meshslm.gateway import create_app
from meshslm.ids import NodeId, RunId
from meshslm.ports import Engine, Post
from meshslm.profiles import Profile
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Hardware,
    Specialist,
    TaskRequest,
    Timings,
    Usage,
)

WORDS = tuple(f"word{number} " for number in range(50))
ASK = TaskRequest("coder", (ChatMessage("user", "hi"),))


class TalkingEngine:
    """Answers every run with `WORDS`, a word each turn of the loop; stops when told."""

    model = "tiny"

    def __init__(self, *, endless: bool = False) -> None:
        self.running: set[RunId] = set()
        self._endless = endless
        self._runs, self._orders = trio.open_memory_channel[RunId](100)

    def start_run(self, run: RunId, request: TaskRequest, *, coalesce: bool = False) -> None:
        self.running.add(run)
        self._runs.send_nowait(run)

    def stop_run(self, run: RunId) -> None:
        self.running.discard(run)

    async def run(self, post: Post) -> None:
        await post(EngineReady(self.model, 4))
        async with trio.open_nursery() as nursery:
            async for run in self._orders:
                nursery.start_soon(self._answer, run, post)

    async def _answer(self, run: RunId, post: Post) -> None:
        number = 0
        while run in self.running and (self._endless or number < len(WORDS)):
            await post(RunProduced(run, Chunk(0, (number,), WORDS[number % len(WORDS)])))
            await trio.lowlevel.checkpoint()
            number += 1
        if run in self.running:
            self.running.discard(run)
            await post(RunEnded(run, Usage(1, number), Timings()))


class Node:
    """Everything but HTTP and llama.cpp."""

    def __init__(
        self, network: MemoryNetwork, name: str, *bootstrap: str, engine: Engine | None
    ) -> None:
        node = NodeId(name)
        self.engine = engine
        self.link = MemoryLink(network, node)
        clock = SystemClock()
        addresses = tuple(network.address_of(NodeId(b)) for b in bootstrap)
        self.core = NodeCore(CoreConfig(node, name, bootstrap=addresses), Chance(name.encode()))
        self.pump = Pump(self.core, clock)
        self.timers = Timers(clock, self.pump.handle)
        self.service = NodeService(
            self.core, self.pump, clock, Chance(b"t" + name.encode()), readiness=lambda: (True, "")
        )
        executor = Executor(self.link, self.timers, self.service, self.pump)
        self.pump.attach(executor.perform)
        if engine is not None:
            engines = {"tiny": engine}
            self.engine_room = EngineRoom(engines, self.pump.post, lambda _: "")
            executor.host(engines, {"coder": Profile(name="coder", model="tiny")}, self.engine_room)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Node]:
        async with trio.open_nursery() as nursery:
            listening = trio.Event()
            nursery.start_soon(self.timers.run)
            nursery.start_soon(partial(self.link.run, self.pump.post, started=listening.set))
            await listening.wait()
            self.pump.handle(Started(1, self.link.addresses))
            if self.engine is not None:
                offer = Specialist("coder", "tiny", "d", "Q8_0", 2048, 4)
                announce = partial(self.pump.handle, HostingChanged((offer,), Hardware()))
                nursery.start_soon(self.engine_room.run, announce)
            yield self
            nursery.cancel_scope.cancel()


async def until(fact: Callable[[], object]) -> None:
    """Wait for a fact, ten seconds at most."""
    with trio.fail_after(10):
        while not fact():  # noqa: ASYNC110 - facts of other nodes have no event here
            await trio.sleep(0.005)


@asynccontextmanager
async def pair(engine: Engine) -> AsyncIterator[tuple[Node, Node]]:
    """A asks; B answers."""
    network = MemoryNetwork()
    async with (
        Node(network, "b", engine=engine).up() as b,
        Node(network, "a", "b", engine=None).up() as a,
    ):
        await until(lambda: any(p.specialists for p in a.service.peers()))
        yield a, b


async def test_an_answer_crosses_the_mesh_whole() -> None:
    async with pair(TalkingEngine()) as (a, b):
        async with a.service.submit(ASK) as stream:
            items = [item async for item in stream]
        assert isinstance(items[0], RouteChosen)
        assert items[0].node == "b"
        text = "".join(i.chunk.text for i in items if isinstance(i, EmitChunk))
        assert text == "".join(WORDS)
        assert isinstance(items[-1], FinishTask)
        assert b.service.status().tasks.served == 1


async def test_many_answers_at_once_do_not_mix() -> None:
    async with pair(TalkingEngine()) as (a, _):
        answers: list[str] = []

        async def ask() -> None:
            async with a.service.submit(ASK) as stream:
                parts = [i.chunk.text async for i in stream if isinstance(i, EmitChunk)]
            answers.append("".join(parts))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert answers == ["".join(WORDS)] * 20


@pytest.mark.parametrize(
    ("wrong", "status", "code", "param"),
    [
        ({"max_tokens": 5000}, 400, "context_length_exceeded", "max_tokens"),
        ({"n": 9}, 400, "bad_request", "n"),
        ({"logit_bias": {"2000000": 1}}, 400, "bad_request", "logit_bias"),
        ({"model": "nobody"}, 404, "model_not_found", "model"),
    ],
)
async def test_what_an_engine_refuses_is_named_where_it_was_asked(
    wrong: dict[str, object], status: int, code: str, param: str
) -> None:
    async with pair(ScriptedPort("tiny")) as (a, _):
        transport = httpx.ASGITransport(create_app(a.service, version="0"))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            body = {"model": "coder", "messages": [{"role": "user", "content": "hi"}], **wrong}
            response = await http.post("/v1/chat/completions", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, param)


async def test_hanging_up_here_stops_the_engine_there() -> None:
    engine = TalkingEngine(endless=True)
    async with pair(engine) as (a, _):
        async with a.service.submit(ASK) as stream:
            async for item in stream:
                if isinstance(item, EmitChunk):
                    break
            assert engine.running
        await until(lambda: not engine.running)


@pytest.mark.parametrize("how", ["leave", "vanish"])
async def test_a_serving_node_that_goes_is_told_to_the_client(how: str) -> None:
    network = MemoryNetwork()
    serving = Node(network, "b", engine=TalkingEngine(endless=True))
    life = trio.CancelScope()

    async def live() -> None:
        with life:
            async with serving.up():
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        async with Node(network, "a", "b", engine=None).up() as a:
            await until(lambda: any(p.specialists for p in a.service.peers()))
            async with a.service.submit(ASK) as stream:
                await until(
                    lambda: any(isinstance(i, EmitChunk) for i in iter(stream.take_nowait, None))
                )
                if how == "leave":
                    serving.pump.handle(ShutdownRequested())
                else:
                    life.cancel()
                items = [item async for item in stream]
            assert isinstance(items[-1], FailTask)
            assert items[-1].code in (FaultCode.PEER_LOST, FaultCode.NOT_READY)
            await until(lambda: a.service.status().peers_alive == 0)
        nursery.cancel_scope.cancel()
