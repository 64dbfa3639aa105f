"""Background messages over a connection of their own: opened, ended, broken, and lied about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from meshslm import limits
from meshslm.adapters import libp2p_bulk
from meshslm.adapters.libp2p_background import GIVE_WAY_S, BackgroundLane
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.core.events import Event, Lane, PeerConnected, PeerDisconnected
from meshslm.errors import PeerFault
from meshslm.wire.bulk import Outgoing
from meshslm.wire.framing import FrameWriter
from tests.adapters.test_libp2p_link import overtaken_by_tokens

if TYPE_CHECKING:
    from tests.adapters.conftest import Node, StartLibp2p

    Connect = Callable[[Node, Node], Awaitable[None]]

PIECE = 48 * limits.KIB
MANY = 60
"""Pieces: more than a stream's window, so that some wait where the receiver is slow."""


def lane(node: Node, peer: Node) -> BackgroundLane:
    assert isinstance(node.link, Libp2pLink)
    link = node.link.link_of(peer.id)
    assert link is not None
    return link.background


def over(node: Node, peer: Node) -> Connection:
    connection = lane(node, peer)._over
    assert connection is not None
    return connection


def piece(number: int) -> bytes:
    return number.to_bytes(4, "big") + b"b" * PIECE


async def until(fact: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not fact():  # noqa: ASYNC110 - the fact is inside the link, which has no event for it
            await trio.sleep(0.005)


async def acquainted(one: Node, two: Node) -> None:
    """Both have background messages for each other, as nodes have that are admitted."""
    for node, peer in ((one, two), (two, one)):
        node.link.send(peer.id, Lane.BACKGROUND, b"acquainted")
        assert await peer.receive() == b"acquainted"


class Gate:
    """A core that takes nothing while it is shut."""

    def __init__(self, node: Node) -> None:
        self._open = trio.Event()
        node.gate = self._open.wait

    def open(self) -> None:
        self._open.set()


async def carried(sender: Node, receiver: Node) -> Gate:
    """Much of what is sent waits at the sender, and both sides have a connection for it."""
    await acquainted(sender, receiver)
    gate = Gate(receiver)
    for number in range(MANY):
        sender.link.send(receiver.id, Lane.BACKGROUND, piece(number))
    await until(lambda: lane(sender, receiver).carried and lane(receiver, sender).carried)
    return gate


async def all_in_order(receiver: Node, first: int, last: int) -> None:
    for number in range(first, last):
        message = await receiver.receive()
        assert int.from_bytes(message[:4], "big") == number
        assert message == piece(number)


@pytest.mark.parametrize("dialled", [False, True])
async def test_what_waits_gets_a_connection_of_its_own(
    start_libp2p: StartLibp2p, connect: Connect, dialled: bool
) -> None:
    """Whichever side has it: the one that was dialled asks the other for a dial."""
    one, two = await start_libp2p(), await start_libp2p()
    await (connect(two, one) if dialled else connect(one, two))
    gate = await carried(one, two)
    gate.open()
    await all_in_order(two, 0, MANY)
    for number in range(MANY):  # and the other way over the same one
        two.link.send(one.id, Lane.BACKGROUND, piece(number))
    await all_in_order(one, 0, MANY)
    assert lane(one, two).carried
    assert not one.events
    assert not two.events


async def test_an_idle_one_ends_and_the_lane_goes_on(
    start_libp2p: StartLibp2p, connect: Connect
) -> None:
    hurried = LinkTimings(bulk=0.2)
    one, two = await start_libp2p(timings=hurried), await start_libp2p(timings=hurried)
    await connect(one, two)
    (await carried(one, two)).open()
    await all_in_order(two, 0, MANY)
    await until(lambda: not lane(one, two).carried and not lane(two, one).carried)
    one.link.send(two.id, Lane.BACKGROUND, piece(7))
    two.link.send(one.id, Lane.BACKGROUND, piece(8))
    assert (await two.receive(), await one.receive()) == (piece(7), piece(8))
    assert not [e for e in one.events + two.events if isinstance(e, PeerDisconnected)]


@pytest.mark.parametrize("breaker", [0, 1])
@pytest.mark.parametrize("after", [1, MANY // 2, MANY - 1])
async def test_one_that_breaks_loses_nothing_and_doubles_nothing(
    start_libp2p: StartLibp2p, connect: Connect, after: int, breaker: int
) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    gate = await carried(one, two)
    for number in range(MANY):
        two.link.send(one.id, Lane.BACKGROUND, piece(number))
    gate.open()
    await all_in_order(two, 0, after)
    (over(one, two) if breaker else over(two, one)).wire.reset()
    await all_in_order(two, after, MANY)
    await all_in_order(one, 0, MANY)
    assert not [e for e in one.events + two.events if isinstance(e, PeerDisconnected)]


async def test_it_is_opened_again_where_much_still_waits(
    start_libp2p: StartLibp2p, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_bulk, "AGAIN_S", 0.05)
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    gate = await carried(one, two)
    first = over(one, two)
    first.wire.reset()
    gate.open()
    await all_in_order(two, 0, MANY)
    gate = await carried_again(one, two)
    assert over(one, two) is not first
    gate.open()
    await all_in_order(two, 0, MANY)


async def carried_again(sender: Node, receiver: Node) -> Gate:
    await until(lambda: not lane(sender, receiver).carried)
    gate = Gate(receiver)
    for number in range(MANY):
        sender.link.send(receiver.id, Lane.BACKGROUND, piece(number))
    await until(lambda: lane(sender, receiver).carried and lane(receiver, sender).carried)
    return gate


async def test_tokens_do_not_wait_for_bulk_on_its_way(
    start_libp2p: StartLibp2p, connect: Connect
) -> None:
    """Counted in bulk that arrives between a token's sending and its arrival, not in time."""
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    (await carried(one, two)).open()
    overtaken = await overtaken_by_tokens(one, two)
    assert sum(overtaken) > 20, "bulk flows all the time"
    assert sorted(overtaken)[30] <= 6
    assert lane(one, two).carried


async def test_bulk_waits_for_what_is_urgent_and_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, two = Fake(), FrameWriter()
    bulk = BackgroundLane(cast(Connection, one), two, LinkTimings(), lambda _: None)
    await bulk._give_way()
    assert trio.current_time() == 0, "nothing is urgent"
    two.push(Lane.INTERACTIVE, b"token")
    await bulk._give_way()
    assert trio.current_time() == GIVE_WAY_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bulk._give_way)
        await trio.sleep(GIVE_WAY_S / 2)
        two.pop(limits.FRAME_BYTES)
        one.written.set()
    assert trio.current_time() == 1.5 * GIVE_WAY_S, "the token was written"


class Fake:
    """A kept connection that has written when a test says so."""

    def __init__(self) -> None:
        self.written = trio.Event()

    async def flushed(self) -> None:
        await self.written.wait()


async def test_the_end_of_the_link_is_not_held_up_by_bulk_that_waits_for_its_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bulk = BackgroundLane(cast(Connection, Fake()), FrameWriter(), LinkTimings(), lambda _: None)
    further = cast(Connection, Ending())

    async def post(*_events: Event) -> None:
        raise AssertionError("what goes before it has not come")

    async def take() -> None:
        assert not await bulk._take(Lane.BACKGROUND, b"bulk", further, Outgoing(0, ()))
        bulk._idle.set()

    bulk.serve(post)
    bulk._over, bulk._idle = further, trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        await bulk.close()
    assert trio.current_time() == 0


async def test_the_end_of_the_link_is_told_although_a_peer_reads_none_of_its_answers() -> None:
    kept, deaf = Further(), Deaf()
    bulk = BackgroundLane(cast(Connection, kept), FrameWriter(), LinkTimings(), lambda _: None)
    with pytest.raises(PeerFault, match="more answers"):
        await bulk.carry(
            cast(MuxedStream, deaf), cast(Connection, Further()), cast(MuxedStream, deaf)
        )
    with trio.fail_after(5):
        await bulk.close()
    assert kept.ended.is_set()


class Further:
    """A connection that ends when it is told to."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.wire = None

    def keep(self, _stream: MuxedStream, _frames: FrameWriter) -> None: ...

    def wake(self) -> None: ...

    def abort(self, _reason: str) -> None:
        self.ended.set()


class Ending(Further):
    """One that takes a moment to end."""

    def abort(self, _reason: str) -> None: ...


class Deaf:
    """A stream of a connection that has ended because its peer asked and never read."""

    async def read(self, _most: int) -> bytes:
        return b""

    async def read_exactly(self, _count: int) -> bytes:
        raise PeerFault("it is over")

    async def write(self, _data: bytes) -> None: ...

    def reset(self) -> None:
        raise PeerFault("it asks for more answers than it reads")


async def test_the_end_of_the_link_ends_it(start_libp2p: StartLibp2p, connect: Connect) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    gate = await carried(one, two)
    further = over(two, one)
    one.link.disconnect(two.id, "enough")
    gate.open()
    await one.expect(PeerDisconnected)
    with trio.fail_after(5):
        await further.ended.wait()
    one.link.dial(two.address)
    await one.expect(PeerConnected)
    await until(lambda: isinstance(two.events[-1], PeerConnected))
    assert isinstance(two.events[-2], PeerDisconnected), "nothing is heard of a link that is over"
