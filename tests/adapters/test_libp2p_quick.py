"""The short way of small messages: handled where they are read, and written where they are said."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio

from meshslm import limits
from meshslm.adapters import quick_socket
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.core.events import BytesReceived, Event, Lane, PeerConnected, PeerDisconnected
from meshslm.ids import NodeId

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class QuickNode:
    """A link that hands messages over at once."""

    def __init__(self) -> None:
        self.link = Libp2pLink(NodeKey.generate(), (LOOPBACK,))
        self.at_once: list[bytes] = []
        self.later: list[bytes] = []
        self.heard: list[bytes] = []
        """Both, in order."""
        self.links: list[Event] = []
        self.on_message: Callable[[bytes], None] = lambda _: None
        self._news = trio.Event()

    @property
    def id(self) -> NodeId:
        return self.link.node_id

    async def post(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, BytesReceived):
                self._hear(event.message, self.later)
            else:
                self.links.append(event)
        self._told()
        await trio.lowlevel.checkpoint()

    def handle(self, *events: Event) -> None:
        for event in events:
            assert isinstance(event, BytesReceived), "the rest is posted"
            self._hear(event.message, self.at_once)
        self._told()

    def _hear(self, message: bytes, way: list[bytes]) -> None:
        way.append(message)
        self.heard.append(message)
        self.on_message(message)

    def _told(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, there: Callable[[], object]) -> None:
        with trio.fail_after(20):
            while not there():
                await self._news.wait()

    async def linked(self) -> None:
        await self.until(lambda: any(isinstance(event, PeerConnected) for event in self.links))

    async def heard_of(self, count: int) -> None:
        await self.until(lambda: len(self.heard) == count)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self.link.run(self.post, started=task_status.started, handle=self.handle)


async def pair(nursery: trio.Nursery) -> tuple[QuickNode, QuickNode]:
    """Two nodes, of which the first dialled, and a message each way behind them."""
    one, two = QuickNode(), QuickNode()
    for node in (one, two):
        await nursery.start(node.run)
    one.link.dial(two.link.addresses[0])
    for node, other in ((one, two), (two, one)):
        await node.linked()
        node.link.send(other.id, Lane.CONTROL, b"first")
    for node in (one, two):
        await node.heard_of(1)
        assert node.heard == [b"first"]
        node.heard.clear()
        node.at_once.clear()
        node.later.clear()
    return one, two


async def test_a_small_message_is_handled_where_it_is_read(nursery: trio.Nursery) -> None:
    one, two = await pair(nursery)
    for number in range(5):
        one.link.send(two.id, Lane.INTERACTIVE, b"%d" % number)
        await two.heard_of(number + 1)
    assert two.at_once == [b"0", b"1", b"2", b"3", b"4"]
    assert not two.later


async def test_large_and_many_messages_take_the_long_way_and_all_keep_their_order(
    nursery: trio.Nursery,
) -> None:
    one, two = await pair(nursery)
    said = []
    for number in range(300):
        size = 200_000 if number % 100 == 50 else 10
        said.append(b"%d:" % number + bytes(size))
        one.link.send(two.id, Lane.INTERACTIVE, said[-1])
        if number % 3 == 0:
            await trio.lowlevel.checkpoint()
    await two.until(lambda: len(two.heard) == len(said))
    assert two.heard == said
    assert two.later, "there was too much for one turn"
    one.link.send(two.id, Lane.INTERACTIVE, b"calm again")
    await two.until(lambda: two.heard[-1] == b"calm again")
    assert two.at_once[-1] == b"calm again"


async def test_what_is_sent_under_a_cork_is_one_packet(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await pair(nursery)
    sizes = []

    def count(number: int, data: bytes) -> int:
        sizes.append(len(data))
        return os.write(number, data)

    class CountingOs:
        read = os.read
        write = staticmethod(count)

    monkeypatch.setattr(quick_socket, "os", CountingOs)
    one.link.cork()
    for number in range(8):
        one.link.send(two.id, Lane.INTERACTIVE, b"token %d" % number)
    assert not sizes
    one.link.uncork()
    assert len(sizes) == 1, "and it went out without a turn of another task"
    await two.until(lambda: len(two.heard) == 8)
    assert two.at_once == [b"token %d" % number for number in range(8)]


async def test_a_full_socket_keeps_the_order_of_what_is_sent_under_corks(
    nursery: trio.Nursery,
) -> None:
    one, two = await pair(nursery)
    said = []
    for number in range(60):
        one.link.cork()
        for part in range(3):
            said.append(b"%d.%d:" % (number, part) + bytes(20_000))
            one.link.send(two.id, Lane.INTERACTIVE, said[-1])
        one.link.uncork()
    await two.until(lambda: len(two.heard) == len(said))
    assert two.heard == said


async def test_a_bug_in_handling_a_message_ends_that_link_and_no_other(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await pair(nursery)
    other = QuickNode()
    await nursery.start(other.run)
    other.link.dial(two.link.addresses[0])
    await other.until(lambda: other.links)
    other.link.send(two.id, Lane.CONTROL, b"hello")
    await two.until(lambda: b"hello" in two.heard)

    def trip(message: bytes) -> None:
        if message == b"trip":
            raise ZeroDivisionError

    two.on_message = trip
    one.link.send(two.id, Lane.CONTROL, b"trip")
    await two.until(lambda: any(isinstance(e, PeerDisconnected) for e in two.links))
    assert "a bug in serving it" in caplog.text
    other.link.send(two.id, Lane.CONTROL, b"still here")
    await two.until(lambda: two.heard[-1] == b"still here")


async def test_who_is_disconnected_by_a_message_is_heard_no_more(nursery: trio.Nursery) -> None:
    one, two = await pair(nursery)

    def end(message: bytes) -> None:
        if message == b"end":
            two.link.disconnect(one.id, "it said so")

    two.on_message = end
    one.link.cork()
    one.link.send(two.id, Lane.CONTROL, b"end")
    one.link.uncork()
    for number in range(limits.EVENTS_PER_TURN):
        one.link.send(two.id, Lane.CONTROL, b"%d" % number)
        await trio.lowlevel.checkpoint()
    await two.until(lambda: any(isinstance(e, PeerDisconnected) for e in two.links))
    heard = list(two.heard)
    assert heard[0] == b"end"
    await one.until(lambda: any(isinstance(e, PeerDisconnected) for e in one.links))
    assert two.heard == heard


async def test_who_sends_too_fast_waits_all_the_same(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PEER_MESSAGES_BURST", 20)
    monkeypatch.setattr(limits, "PEER_MESSAGES_PER_S", 200)
    one, two = await pair(nursery)
    began = trio.current_time()
    for number in range(120):
        one.link.send(two.id, Lane.CONTROL, b"%d" % number)
        await trio.lowlevel.checkpoint()
    await two.until(lambda: len(two.heard) == 120)
    one.link.send(two.id, Lane.CONTROL, b"after")
    await two.until(lambda: two.heard[-1] == b"after")
    assert trio.current_time() - began > 0.4, "100 of them at 200 a second are owed"
    assert two.heard == [*(b"%d" % number for number in range(120)), b"after"]
