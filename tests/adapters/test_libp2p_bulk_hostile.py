"""What peers may do with connections for bulk: each lie ends at most the liar's own link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio

from meshslm import limits
from meshslm.adapters import libp2p_bulk
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_background import BackgroundLane
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.core.events import BytesReceived, Lane, PeerConnected, PeerDisconnected
from meshslm.wire.bulk import BULK_ID, TICKET_BYTES, encode_count
from meshslm.wire.framing import FrameWriter
from meshslm.wire.versions import PROTOCOL_ID
from tests.adapters.test_libp2p_bulk import acquainted, all_in_order, carried, lane, piece, until
from tests.adapters.test_libp2p_hostile import (
    MULTISTREAM,
    RST,
    SYN,
    WINDOW,
    Intruder,
    data,
    frame,
    intruder,
    line,
    still_serves,
)

if TYPE_CHECKING:
    from tests.adapters.conftest import Node, StartLibp2p

    Connect = Callable[[Node, Node], Awaitable[None]]

TICKET = bytes(range(TICKET_BYTES))
HURRIED = LinkTimings(dial=1.0, stream=0.3, frame=0.3, write=0.5, close=0.3, bulk=0.3)


def opened(stream: int, protocol: str, more: bytes = b"") -> bytes:
    return data(stream, line(MULTISTREAM) + line(protocol.encode()) + more, SYN)


def framed(lane_of_it: Lane, message: bytes) -> bytes:
    writer = FrameWriter()
    writer.push(lane_of_it, message)
    return writer.pop(2 * limits.MIB)


@dataclass
class Member:
    """A peer to which the node has had something to say in the background."""

    node: Node
    key: NodeKey
    kept: Intruder
    stack: AsyncExitStack

    async def agrees(self, stream: int = 3) -> None:
        """Have the node expect a further connection."""
        await self.kept.send(opened(stream, BULK_ID, TICKET))
        await self.kept.receive_until(line(BULK_ID.encode()))

    async def further(self, more: bytes = b"", ticket: bytes = TICKET) -> Intruder:
        """That connection, with the ticket and whatever comes after it."""
        further = await self.stack.enter_async_context(intruder(self.node, self.key))
        await further.send(opened(1, BULK_ID, ticket + more))
        return further


@asynccontextmanager
async def member(node: Node) -> AsyncIterator[Member]:
    key = NodeKey.generate()
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(intruder(node, key))
        await kept.send(opened(1, PROTOCOL_ID, framed(Lane.CONTROL, b"hello")))
        assert await node.receive() == b"hello"
        node.link.send(key.node_id, Lane.BACKGROUND, b"welcome")
        await kept.receive_until(b"welcome")
        yield Member(node, key, kept, stack)


async def dropped(node: Node, start_libp2p: StartLibp2p) -> PeerDisconnected:
    """How the liar's link ended; everybody else is served."""
    ended = await node.expect(PeerDisconnected)
    await still_serves(node, start_libp2p)
    return ended


# --- who may have one ---------------------------------------------------------------------------
async def test_a_stranger_that_opens_one_is_hung_up_on(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node, NodeKey.generate()) as stranger:
        await stranger.send(opened(1, BULK_ID, TICKET + framed(Lane.BACKGROUND, b"take this")))
        await stranger.cut_off()
    await still_serves(node, start_libp2p)
    assert not [e for e in node.events if isinstance(e, BytesReceived)]


async def test_who_is_told_nothing_in_the_background_gets_none(start_libp2p: StartLibp2p) -> None:
    """As a peer that is linked, and was not admitted."""
    node, key = await start_libp2p(), NodeKey.generate()
    async with intruder(node, key) as peer:
        await peer.send(opened(1, PROTOCOL_ID, framed(Lane.CONTROL, b"hello")))
        assert await node.receive() == b"hello"
        await peer.send(opened(3, BULK_ID, TICKET))
        await peer.receive_until(frame(WINDOW, RST, 3, 0))  # the stream is reset
        async with intruder(node, key) as again:
            await again.send(opened(1, BULK_ID, TICKET))
            await again.cut_off()
        await peer.send(data(1, framed(Lane.CONTROL, b"still here")))
        assert await node.receive() == b"still here"


@pytest.mark.parametrize("ticket", [bytes(TICKET_BYTES), TICKET[:-1] + b"x"])
async def test_a_wrong_ticket_is_worth_nothing(start_libp2p: StartLibp2p, ticket: bytes) -> None:
    node = await start_libp2p()
    async with member(node) as peer:
        await peer.agrees()
        await (await peer.further(ticket=ticket)).cut_off()
        await peer.kept.send(data(1, framed(Lane.CONTROL, b"still here")))
        assert await node.receive() == b"still here"


async def test_a_ticket_of_somebody_else_is_worth_nothing(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with member(node) as peer, intruder(node, NodeKey.generate()) as thief:
        await peer.agrees()
        await thief.send(opened(1, BULK_ID, TICKET))
        await thief.cut_off()
        await peer.kept.send(data(1, framed(Lane.CONTROL, b"still here")))
        assert await node.receive() == b"still here"


async def test_a_ticket_is_good_for_one(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with member(node) as peer:
        await peer.agrees()
        one = await peer.further()
        await one.receive_until(line(BULK_ID.encode()))
        await peer.kept.send(data(3, encode_count(0)))
        await (await peer.further()).cut_off()
        await one.send(data(1, framed(Lane.BACKGROUND, b"by the first")))
        assert await node.receive() == b"by the first"


async def test_a_second_one_at_a_time_is_a_fault(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with member(node) as peer:
        await peer.agrees()
        await peer.further(framed(Lane.BACKGROUND, b"by the first"))
        await peer.kept.send(data(3, encode_count(0)))
        assert await node.receive() == b"by the first"
        await peer.kept.send(opened(5, BULK_ID, TICKET[::-1]))
        await peer.kept.cut_off()
    ended = await dropped(node, start_libp2p)
    assert ended.fault
    assert "second connection for bulk" in ended.reason


async def test_who_begins_anew_is_no_liar(start_libp2p: StartLibp2p) -> None:
    """A dial may fail; the ticket that was given up is worth nothing then."""
    node = await start_libp2p()
    async with member(node) as peer:
        await peer.agrees()
        await peer.kept.send(frame(WINDOW, RST, 3, 0) + opened(5, BULK_ID, TICKET[::-1]))
        await peer.kept.receive_until(line(BULK_ID.encode()))
        assert isinstance(node.link, Libp2pLink)
        offers = node.link._bulk._offers
        await until(lambda: list(offers) == [TICKET[::-1]])
        await (await peer.further()).cut_off()
        further = await peer.further(ticket=TICKET[::-1])
        await peer.kept.send(data(5, encode_count(0)))
        await further.send(data(1, framed(Lane.BACKGROUND, b"at last")))
        assert await node.receive() == b"at last"


# --- what goes over it --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (framed(Lane.INTERACTIVE, b"a token"), "no place on a bulk connection"),
        (framed(Lane.CONTROL, b"short"), "a count of 5 bytes"),
        (framed(Lane.CONTROL, encode_count(9)), "it has 9 messages"),
        (b"\xff\xff\xff\xff", "no version"),
    ],
)
async def test_what_breaks_the_protocol_ends_the_link(
    start_libp2p: StartLibp2p, sent: bytes, reason: str
) -> None:
    node = await start_libp2p()
    async with member(node) as peer:
        await peer.agrees()
        further = await peer.further(sent)
        await peer.kept.send(data(3, encode_count(0)))
        await further.cut_off()
        await peer.kept.cut_off()
    ended = await dropped(node, start_libp2p)
    assert ended.fault
    assert reason in ended.reason


async def test_a_message_without_end_ends_the_link(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    begun = framed(Lane.BACKGROUND, bytes(limits.MIB))[: limits.FRAME_BYTES]  # one of many frames
    async with member(node) as peer:
        await peer.agrees()
        further = await peer.further()
        await peer.kept.send(data(3, encode_count(0)))
        with trio.move_on_after(5):
            try:
                for _ in range(64):
                    await further.send(data(1, begun))
            except trio.BrokenResourceError:
                pass
        await peer.kept.cut_off()
    ended = await dropped(node, start_libp2p)
    assert ended.fault
    assert "message of over" in ended.reason or "were allowed" in ended.reason


async def test_one_that_stalls_is_ended_and_the_link_stays(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with member(node) as peer:
        await peer.agrees()
        further = await peer.further(framed(Lane.BACKGROUND, bytes(9000))[:5000])
        await peer.kept.send(data(3, encode_count(0)))
        await further.cut_off()
        await peer.kept.receive_until(encode_count(0))  # it has none whole
        await peer.kept.send(data(3, encode_count(1)) + data(1, framed(Lane.CONTROL, b"here")))
        assert await node.receive() == b"here"
        node.link.send(peer.key.node_id, Lane.BACKGROUND, b"by the lane again")
        await peer.kept.receive_until(b"by the lane again")


async def test_one_that_is_over_when_it_is_taken_harms_no_link(
    start_libp2p: StartLibp2p, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = BackgroundLane.carry

    async def carry_too_late(
        lane: BackgroundLane,
        control: MuxedStream,
        over: Connection,
        stream: MuxedStream,
        start: int | None = None,
    ) -> None:
        over.abort("its wire is cut")
        await over.ended.wait()
        await take(lane, control, over, stream, start)

    monkeypatch.setattr(BackgroundLane, "carry", carry_too_late)
    node = await start_libp2p(timings=HURRIED)
    async with member(node) as peer:
        await peer.agrees()
        await (await peer.further()).cut_off()
        await peer.kept.receive_until(encode_count(1))  # what went by the lane: the welcome
        await peer.kept.send(data(3, encode_count(0) + encode_count(1)))
        await peer.kept.send(data(1, framed(Lane.CONTROL, b"still here")))
        assert await node.receive() == b"still here"
        node.link.send(peer.key.node_id, Lane.BACKGROUND, b"by the lane again")
        await peer.kept.receive_until(b"by the lane again")


@pytest.mark.parametrize("count", [b"", encode_count(2**40)])
async def test_who_does_not_say_what_it_has_loses_its_link(
    start_libp2p: StartLibp2p, count: bytes
) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with member(node) as peer:
        await peer.agrees()
        await (await peer.further()).cut_off()  # it brings nothing
        await peer.kept.send(data(3, encode_count(0) + count))
        await peer.kept.cut_off()
    ended = await dropped(node, start_libp2p)
    assert ended.fault == bool(count)


async def test_a_ticket_without_a_connection_is_forgotten(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    assert isinstance(node.link, Libp2pLink)
    async with member(node) as peer:
        await peer.agrees()
        offers = node.link._bulk._offers
        await until(lambda: len(offers) == 1)
        await until(lambda: not offers)
        await peer.kept.send(data(1, framed(Lane.CONTROL, b"still here")))
        assert await node.receive() == b"still here"


# --- peers that know no such thing, and bounds -------------------------------------------------
@pytest.mark.parametrize("older", [0, 1])
async def test_to_an_older_peer_all_goes_by_the_lane(
    start_libp2p: StartLibp2p, connect: Connect, older: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_bulk, "LOOK_S", 0.0)
    one, two = await start_libp2p(), await start_libp2p()
    for node in (one, two)[older : older + 1]:
        assert isinstance(node.link, Libp2pLink)
        node.link.multiselect.remove_handler(library.TProtocol(BULK_ID))
    await connect(one, two)
    await acquainted(one, two)
    sender, receiver = (one, two) if older else (two, one)
    await much_goes_by_the_lane(sender, receiver)
    assert not lane(sender, receiver).carried
    assert not sender.events


async def much_goes_by_the_lane(sender: Node, receiver: Node) -> None:
    """As much as a connection of its own would be opened for, which was looked into."""
    shut = trio.Event()
    receiver.gate = shut.wait
    for number in range(60):
        sender.link.send(receiver.id, Lane.BACKGROUND, piece(number))
    await until(lambda: lane(sender, receiver).looked_at)
    shut.set()
    await all_in_order(receiver, 0, 60)


async def test_a_full_node_opens_none(
    start_libp2p: StartLibp2p, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    await acquainted(one, two)
    monkeypatch.setattr(limits, "CONNECTIONS", 1)
    await much_goes_by_the_lane(one, two)
    assert not one.events


async def test_what_waits_for_one_is_bounded(start_libp2p: StartLibp2p, connect: Connect) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    gate = await carried(one, two)
    for number in range(2 * limits.LANE_QUEUE_BYTES // len(piece(0))):
        one.link.send(two.id, Lane.BACKGROUND, piece(number))
    assert "it reads too slowly" in (await one.expect(PeerDisconnected)).reason
    gate.open()
    await two.expect(PeerDisconnected)
    one.link.dial(two.address)
    await one.expect(PeerConnected)
