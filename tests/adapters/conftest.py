"""Nodes on links, for the tests of links: start one, wait for its events."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from subprocess import PIPE
from typing import Protocol, TypeVar

import pytest
import trio

from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_connection import LinkTimings
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.memory_link import MemoryLink, MemoryNetwork
from meshslm.core.events import BytesReceived, Event, PeerConnected
from meshslm.ids import NodeId
from meshslm.ports import Link

E = TypeVar("E")
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
PATIENCE = 10.0
"""Seconds until a missing event fails a test; generous, as the machine may be busy."""


class Node:
    """A running link and the events it posted."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.events: list[Event] = []
        """Posted and not yet asked for."""
        self.gate: Callable[[], Awaitable[None]] | None = None
        """Awaited in every post: a test's slow core."""
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        self._news = trio.Event()

    @property
    def id(self) -> NodeId:
        return self.link.node_id

    @property
    def address(self) -> str:
        return self.link.addresses[0]

    async def post(self, *events: Event) -> None:
        for event in events:
            if self.gate is not None:
                await self.gate()
            self.events.append(event)
            self._news.set()

    async def expect(self, kind: type[E]) -> E:
        """The first event of `kind` not yet asked for; waits for it."""
        with trio.fail_after(PATIENCE):
            while True:
                for index, event in enumerate(self.events):
                    if isinstance(event, kind):
                        del self.events[index]
                        return event
                self._news = trio.Event()
                await self._news.wait()

    async def receive(self) -> bytes:
        return (await self.expect(BytesReceived)).message

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self.scope:
                await self.link.run(self.post, started=task_status.started)
        finally:
            self.stopped.set()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.stopped.wait()


class StartLibp2p(Protocol):
    async def __call__(
        self,
        *,
        key: NodeKey | None = None,
        listen: tuple[str, ...] = (LOOPBACK,),
        timings: LinkTimings | None = None,
    ) -> Node: ...


@pytest.fixture
async def start_libp2p(nursery: trio.Nursery) -> AsyncIterator[StartLibp2p]:
    """Starts nodes on the real link; all of them stop with the test."""

    async def start(
        *,
        key: NodeKey | None = None,
        listen: tuple[str, ...] = (LOOPBACK,),
        timings: LinkTimings | None = None,
    ) -> Node:
        node = Node(Libp2pLink(key or NodeKey.generate(), listen, timings=timings))
        await nursery.start(node.run)
        return node

    yield start
    nursery.cancel_scope.cancel()


@pytest.fixture(params=["memory", "libp2p"])
async def start_node(
    request: pytest.FixtureRequest, nursery: trio.Nursery
) -> AsyncIterator[Callable[[], Awaitable[Node]]]:
    """Starts nodes that can reach each other; once for each adapter of the port."""
    network = MemoryNetwork()

    async def start() -> Node:
        key = NodeKey.generate()
        link: Link = (
            MemoryLink(network, key.node_id)
            if request.param == "memory"
            else Libp2pLink(key, (LOOPBACK,))
        )
        node = Node(link)
        await nursery.start(node.run)
        return node

    yield start
    nursery.cancel_scope.cancel()


@pytest.fixture
def connect() -> Callable[[Node, Node], Awaitable[None]]:
    """Dials from the first node to the second, and waits until both know."""

    async def connect_both(dialling: Node, dialled: Node) -> None:
        dialling.link.dial(dialled.address)
        assert await dialling.expect(PeerConnected) == PeerConnected(dialled.id, dialled.address)
        connected = await dialled.expect(PeerConnected)
        assert (connected.peer, connected.address) == (dialling.id, "")
        assert connected.came_from

    return connect_both


class OtherProcess:
    """A node in a process of its own that sends every message back."""

    def __init__(self, process: trio.Process, address: str) -> None:
        self.process = process
        self.address = address
        self.id = NodeId(address.rpartition("/")[2])


@pytest.fixture
async def start_process() -> AsyncIterator[Callable[[], Awaitable[OtherProcess]]]:
    """Starts nodes in other processes; all of them are killed with the test."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.adapters.echo_node"]
    started: list[trio.Process] = []

    async def start() -> OtherProcess:
        process = await trio.lowlevel.open_process(command, stdout=PIPE, cwd=root)
        started.append(process)
        assert process.stdout is not None
        line = b""
        with trio.fail_after(30):
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some(1024)
                assert piece, "the other node ended before it listened"
                line += piece
        return OtherProcess(process, line.decode().strip())

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
