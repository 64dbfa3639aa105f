"""Asks a running node small or large questions over the real link, so many at a time.

The question is for the stream of a task that the node has never heard of, or for a profile that it
does not host: the smallest and the largest that one node asks of another and that is answered at
once. All that stands between two nodes is in it: libp2p's Noise and Yamux, frames, the codec, and
the other's core. The caller has no core of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import trio

from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.core.events import (
    BytesReceived,
    DialFailed,
    Event,
    Lane,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.ids import NodeId, TaskId
from meshslm.wire.codec import UnknownKind, decode, encode
from meshslm.wire.detection import Ping, Pong
from meshslm.wire.messages import (
    ChatMessage,
    Hello,
    Message,
    TaskRefused,
    TaskRequest,
    TaskResend,
    TaskSubmit,
)
from meshslm.wire.versions import PROTOCOL_HIGH, PROTOCOL_LOW

CONNECT_S = 10.0

Question = Callable[[TaskId], Message]


def small(task: TaskId) -> Message:
    """Where is the stream of this task?"""
    return TaskResend(task, 1, 0)


def large(size: int) -> Question:
    """Run this, with a prompt of `size` bytes."""
    request = TaskRequest("nobody", (ChatMessage("user", "x" * size),))
    return lambda task: TaskSubmit(task, 1, "nobody", request, 1000)


class Caller:
    """One peer of the node, with a number of questions in flight."""

    def __init__(self, link: Libp2pLink, question: Question, in_flight: int) -> None:
        self._link = link
        self._question = question
        self._in_flight = in_flight
        self._tasks = count()
        self._node: NodeId | None = None
        self.answers = 0
        self.ready = trio.Event()
        self.failed = ""

    async def post(self, *events: Event) -> None:
        """What the link hears."""
        for event in events:
            match event:
                case BytesReceived(peer=peer, message=message):
                    self._hear(peer, message)
                case PeerConnected(peer=peer):
                    hello = Hello(
                        PROTOCOL_LOW, PROTOCOL_HIGH, "meshslm", int(time.time()), "caller"
                    )
                    self._link.send(peer, Lane.CONTROL, encode(hello))
                case DialFailed(reason=reason) | PeerDisconnected(reason=reason):
                    self.failed = self.failed or reason
                    self.ready.set()
                case _:
                    pass

    def _hear(self, peer: NodeId, encoded: bytes) -> None:
        try:
            message = decode(encoded)
        except UnknownKind:
            return
        if type(message) is TaskRefused:
            self.answers += 1
            self._ask(peer)
        elif type(message) is Ping:
            self._link.send(peer, Lane.CONTROL, encode(Pong(message.nonce)))
        elif type(message) is Hello and not self.ready.is_set():
            self._node = peer
            self.ready.set()

    def _ask(self, peer: NodeId) -> None:
        task = TaskId(f"task-{next(self._tasks)}")
        self._link.send(peer, Lane.INTERACTIVE, encode(self._question(task)))

    def begin(self) -> None:
        """Ask the first questions."""
        assert self._node is not None, "only who is met is asked"
        for _ in range(self._in_flight):
            self._ask(self._node)


async def _rate(address: str, question: Question, in_flight: int, seconds: float) -> float:
    link = Libp2pLink(NodeKey.generate(), ("/ip4/127.0.0.1/tcp/0",))
    caller = Caller(link, question, in_flight)
    async with trio.open_nursery() as nursery:
        listening = trio.Event()
        nursery.start_soon(lambda: link.run(caller.post, started=listening.set))
        await listening.wait()
        link.dial(address)
        with trio.fail_after(CONNECT_S):
            await caller.ready.wait()
        if caller.failed:
            raise OSError(caller.failed)
        caller.begin()
        before, began = caller.answers, time.perf_counter()
        await trio.sleep(seconds)
        answered, passed = caller.answers - before, time.perf_counter() - began
        if caller.failed:
            raise OSError(caller.failed)
        nursery.cancel_scope.cancel()
    return answered / passed


def rate(address: str, question: Question, in_flight: int, seconds: float) -> float:
    """Answers a second from the node at `address`. Raises `OSError` where it is not reached."""
    return trio.run(_rate, address, question, in_flight, seconds)
