"""Relays: places, circuits and their bounds, and direct links in the place of relayed ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from meshslm import limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters import libp2p_relay
from meshslm.adapters.circuit_messages import (
    HOP,
    MESSAGE_BYTES,
    STOP,
    Hop,
    HopMessage,
    Limit,
    Status,
    Stop,
    StopMessage,
    decode_hop,
    encode_hop,
    encode_stop,
)
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_circuit import CircuitWire, id_bytes, read_message
from meshslm.adapters.libp2p_connection import LinkTimings
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.libp2p_noise import HandshakeError
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.protobuf import varint
from meshslm.core.events import DialFailed, Lane, PeerConnected, PeerDisconnected
from meshslm.core.reach_events import DialTried, NotReserved, Reserved
from tests.adapters.conftest import Node, StartLibp2p

Connect = Callable[[Node, Node], Awaitable[None]]

QUICK = LinkTimings(dial=2, handshake=2, stream=1, first_frame=60, proof=0.5)


def link_of(node: Node) -> Libp2pLink:
    assert isinstance(node.link, Libp2pLink)
    return node.link


class Three:
    """A relay, a caller and one who is called; both are linked to the relay."""

    def __init__(self, relay: Node, caller: Node, called: Node) -> None:
        self.relay, self.caller, self.called = relay, caller, called
        self.members = {caller.id, called.id}
        link_of(relay).reach.relay_for(lambda peer: peer in self.members)
        link_of(relay).reach.offer_relay(on=True)

    @property
    def circuit(self) -> str:
        return f"{self.relay.address}/p2p-circuit/p2p/{self.called.id}"

    async def reserve(self) -> Reserved:
        link_of(self.called).reach.reserve(self.relay.id)
        return await self.called.expect(Reserved)

    async def call(self) -> None:
        await self.reserve()
        self.caller.link.dial(self.circuit)
        connected = await self.caller.expect(PeerConnected)
        assert (connected.peer, connected.address) == (self.called.id, self.circuit)
        connected = await self.called.expect(PeerConnected)
        assert (connected.peer, connected.address) == (self.caller.id, "")
        assert connected.came_from == f"/p2p/{self.relay.id}/p2p-circuit"

    async def ask(self, asker: Node, raw: bytes, protocol: str = HOP) -> MuxedStream:
        """A stream of an asker's link to the relay, on which something was said."""
        return await raw_stream(asker, self.relay, raw, protocol)


async def raw_stream(asker: Node, asked: Node, raw: bytes, protocol: str) -> MuxedStream:
    connection = link_of(asker).connection_of(asked.id)
    assert connection is not None
    stream = connection.open_stream()
    await library.MultiselectClient().select_one_of(
        (library.TProtocol(protocol),), library.MultiselectCommunicator(stream), 2
    )
    await stream.write(raw)
    return stream


@pytest.fixture
async def three(start_libp2p: StartLibp2p, connect: Connect) -> Three:
    relay, caller, called = [await start_libp2p(timings=QUICK) for _ in range(3)]
    for node in (caller, called):
        await connect(node, relay)
    return Three(relay, caller, called)


async def status_of(stream: MuxedStream) -> int:
    with trio.fail_after(5):
        return decode_hop(await read_message(stream)).status


# --- as it should be ----------------------------------------------------------------------------
async def test_two_talk_through_a_relay(three: Three) -> None:
    await three.call()
    for message in (b"small", bytes(range(256)) * 4096):
        three.caller.link.send(three.called.id, Lane.INTERACTIVE, message)
        assert await three.called.receive() == message
        three.called.link.send(three.caller.id, Lane.BACKGROUND, message)
        assert await three.caller.receive() == message
    counts = link_of(three.relay).reach.relay_counts
    assert (counts.reservations, counts.circuits) == (1, 1)
    assert counts.carried > 2 * 2**20
    three.caller.link.disconnect(three.called.id, "enough")
    await three.called.expect(PeerDisconnected)
    with trio.fail_after(5):
        while link_of(three.relay).reach.relay_counts.circuits:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)


async def test_the_relay_reads_nothing(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = bytearray()
    write_all = MuxedStream.write_all

    async def tapped(stream: MuxedStream, data: bytes) -> None:
        seen.extend(data)
        await write_all(stream, data)

    monkeypatch.setattr(MuxedStream, "write_all", tapped)
    await three.call()
    secret = b"nobody in between may read this" * 10
    three.caller.link.send(three.called.id, Lane.CONTROL, secret)
    assert await three.called.receive() == secret
    assert len(seen) > len(secret)
    assert b"may read" not in seen


async def test_a_direct_connection_takes_a_relayed_ones_place(three: Three) -> None:
    await three.call()
    link_of(three.called).reach.punch(three.caller.address)
    link_of(three.caller).reach.punch(three.called.address)
    for node in (three.caller, three.called):
        await node.expect(PeerDisconnected)
        connected = await node.expect(PeerConnected)
        assert "p2p-circuit" not in connected.address + connected.came_from
    three.caller.link.send(three.called.id, Lane.CONTROL, b"directly")
    assert await three.called.receive() == b"directly"
    three.caller.link.dial(three.circuit)
    failed = await three.caller.expect(DialFailed)
    assert (failed.reason, failed.peer) == ("already connected", three.called.id)


@pytest.mark.parametrize("who", ["caller", "called"])
async def test_one_side_alone_can_make_it_direct(three: Three, who: str) -> None:
    await three.call()
    one, other = three.caller, three.called
    if who == "called":
        one, other = other, one
    link_of(one).reach.punch(other.address)
    for node in (one, other):
        await node.expect(PeerDisconnected)
        connected = await node.expect(PeerConnected)
        assert "p2p-circuit" not in connected.address + connected.came_from


async def test_a_punch_at_a_direct_link_does_nothing(three: Three) -> None:
    link_of(three.caller).reach.punch(three.relay.address)
    three.caller.link.send(three.relay.id, Lane.CONTROL, b"still")
    assert await three.relay.receive() == b"still"


async def test_an_ordinary_dial_takes_a_relayed_ones_place_too(three: Three) -> None:
    await three.call()
    three.caller.link.dial(three.called.address)
    await three.caller.expect(PeerDisconnected)
    assert (await three.caller.expect(PeerConnected)).address == three.called.address


async def test_a_relay_that_dies_ends_the_circuit_for_both(three: Three) -> None:
    await three.call()
    three.caller.link.send(three.called.id, Lane.BACKGROUND, bytes(limits.MESSAGE_BYTES))
    await three.relay.stop()
    for node in (three.caller, three.called):
        gone = {(await node.expect(PeerDisconnected)).peer for _ in range(2)}
        assert three.relay.id in gone
        assert len(gone) == 2


# --- trial dials --------------------------------------------------------------------------------
async def test_a_trial_dial_tells_whether_somebody_is_there(three: Three) -> None:
    reach = link_of(three.relay).reach
    reach.try_dial(1, three.caller.address)
    assert await three.relay.expect(DialTried) == DialTried(1, reached=True)
    three.caller.link.send(three.relay.id, Lane.CONTROL, b"the link is as it was")
    assert await three.relay.receive() == b"the link is as it was"
    wrong = three.caller.address.replace(three.caller.id, three.called.id)
    for number, address in enumerate((wrong, "/ip4/127.0.0.1/tcp/1/p2p/" + three.called.id, "x")):
        reach.try_dial(number, address)
        tried = await three.relay.expect(DialTried)
        assert (tried.number, tried.reached) == (number, False)
        assert tried.reason


# --- who may not --------------------------------------------------------------------------------
async def test_strangers_get_no_place_and_no_circuit(three: Three) -> None:
    await three.reserve()
    three.members.discard(three.caller.id)
    link_of(three.caller).reach.reserve(three.relay.id)
    refused = await three.caller.expect(NotReserved)
    assert refused == NotReserved(three.relay.id, "the relay answers permission denied")
    three.caller.link.dial(three.circuit)
    assert "permission denied" in (await three.caller.expect(DialFailed)).reason
    assert link_of(three.relay).reach.relay_counts.refused == 2


async def test_who_is_a_member_no_longer_cannot_be_called(three: Three) -> None:
    await three.reserve()
    three.members.discard(three.called.id)
    three.caller.link.dial(three.circuit)
    assert "no reservation" in (await three.caller.expect(DialFailed)).reason


async def test_who_has_no_place_cannot_be_called(three: Three) -> None:
    three.caller.link.dial(three.circuit)
    assert "no reservation" in (await three.caller.expect(DialFailed)).reason
    elsewhere = NodeKey.generate().node_id
    three.caller.link.dial(f"/p2p/{elsewhere}/p2p-circuit/p2p/{three.called.id}")
    assert "not linked directly" in (await three.caller.expect(DialFailed)).reason


async def test_a_node_that_does_not_relay_does_not_speak_of_it(three: Three) -> None:
    link_of(three.relay).reach.offer_relay(on=False)
    link_of(three.called).reach.reserve(three.relay.id)
    assert "does not relay" in (await three.called.expect(NotReserved)).reason


async def test_a_call_from_where_no_place_was_reserved_is_refused(three: Three) -> None:
    await three.reserve()  # at the relay: so it speaks the protocol
    await connect_pair(three.caller, three.called)
    message = StopMessage(Stop.CONNECT, id_bytes(three.relay.id))
    stream = await raw_stream(three.caller, three.called, encode_stop(message), STOP)
    with trio.fail_after(5):
        body = await read_message(stream)
    assert body == bytes((8, Stop.STATUS, 32)) + varint(Status.PERMISSION_DENIED)


async def connect_pair(one: Node, other: Node) -> None:
    one.link.dial(other.address)
    await one.expect(PeerConnected)
    await other.expect(PeerConnected)


async def test_a_relay_cannot_call_in_anothers_name(three: Three) -> None:
    """It says that somebody else calls, and does the handshake itself."""
    await three.reserve()
    message = StopMessage(Stop.CONNECT, id_bytes(three.caller.id))
    stream = await raw_stream(three.relay, three.called, encode_stop(message), STOP)
    with trio.fail_after(5):
        await read_message(stream)
        stream.negotiated()
        wire = CircuitWire(stream, three.called.id)
        try:
            await link_of(three.relay).handshaker.dial(wire, three.called.id)
        except HandshakeError:
            pass  # it may be dropped before it has our last message
        while not stream.broken:
            if not await stream.read(100):
                break
    assert link_of(three.called).connection_of(three.caller.id) is None


# --- bounds -------------------------------------------------------------------------------------
async def test_reservations_are_bounded(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_RESERVATIONS", 1)
    await three.reserve()
    await three.reserve()  # the same one again takes no second place
    link_of(three.caller).reach.reserve(three.relay.id)
    assert "reservation refused" in (await three.caller.expect(NotReserved)).reason
    assert link_of(three.relay).reach.relay_counts.reservations == 1
    await three.called.stop()
    await three.relay.expect(PeerDisconnected)
    link_of(three.caller).reach.reserve(three.relay.id)
    await three.caller.expect(Reserved)


@pytest.mark.parametrize("bound", ["RELAY_CIRCUITS", "RELAY_CIRCUITS_PER_PEER"])
async def test_circuits_are_bounded(
    three: Three, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(limits, bound, 1)
    await three.call()
    connect = encode_hop(HopMessage(Hop.CONNECT, id_bytes(three.called.id)))
    stream = await three.ask(three.caller, connect)
    assert await status_of(stream) == Status.RESOURCE_LIMIT_EXCEEDED


@pytest.mark.parametrize("bound", ["RELAY_BYTES", "RELAY_S"])
async def test_a_circuit_ends_at_its_bound_and_can_be_made_anew(
    three: Three, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    await three.reserve()
    monkeypatch.setattr(limits, bound, 200_000 if bound == "RELAY_BYTES" else 0.3)
    three.caller.link.dial(three.circuit)
    await three.caller.expect(PeerConnected)
    if bound == "RELAY_BYTES":
        three.caller.link.send(three.called.id, Lane.BACKGROUND, bytes(300_000))
    await three.caller.expect(PeerDisconnected)
    await three.called.expect(PeerDisconnected)
    monkeypatch.undo()
    await three.reserve()
    three.caller.link.dial(three.circuit)
    await three.caller.expect(PeerConnected)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x03\xff\xff\xff", Status.MALFORMED_MESSAGE),
        (varint(MESSAGE_BYTES + 1) + b"\x08\x00", Status.MALFORMED_MESSAGE),
        (b"\xff\xff\xff\xff\xff", Status.MALFORMED_MESSAGE),
        (b"\x02\x0a\x7f", Status.MALFORMED_MESSAGE),
        (b"\x00", Status.UNEXPECTED_MESSAGE),
        (encode_hop(HopMessage(Hop.STATUS, status=Status.OK)), Status.UNEXPECTED_MESSAGE),
        (encode_hop(HopMessage(Hop.CONNECT)), Status.MALFORMED_MESSAGE),
        (encode_hop(HopMessage(Hop.CONNECT, b"\x00\x24" + bytes(500))), Status.MALFORMED_MESSAGE),
        (encode_hop(HopMessage(Hop.CONNECT, b"\x12\x20" + bytes(32))), Status.MALFORMED_MESSAGE),
    ],
)
async def test_nonsense_is_refused_and_the_link_stays(
    three: Three, raw: bytes, status: Status
) -> None:
    assert await status_of(await three.ask(three.caller, raw)) == status
    await three.call()


async def test_who_asks_and_says_nothing_is_hung_up_on(three: Three) -> None:
    stream = await three.ask(three.caller, b"")
    with trio.fail_after(5):
        assert await stream.read(1) == b""
    await three.call()


async def test_a_flood_of_requests_ends_the_flooders_link_and_no_other(three: Three) -> None:
    await three.reserve()
    reserve = encode_hop(HopMessage(Hop.RESERVE))

    async def flood() -> None:
        for _ in range(3 * limits.STREAM_OPENINGS):
            await status_of(await three.ask(three.caller, reserve))

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a connection that ends raises
        await flood()
    ended = await three.relay.expect(PeerDisconnected)
    assert (ended.peer, ended.fault) == (three.caller.id, True)
    three.called.link.send(three.relay.id, Lane.CONTROL, b"still here")
    assert await three.relay.receive() == b"still here"


async def test_a_slow_reader_holds_up_its_caller_and_nobody_else(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay keeps what fits the windows, and its own links go on."""
    await three.reserve()

    async def reads_nothing(_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(link_of(three.called).handshaker, "accept", reads_nothing)
    connecting = encode_hop(HopMessage(Hop.CONNECT, id_bytes(three.called.id)))
    stream = await three.ask(three.caller, connecting)
    assert await status_of(stream) == Status.OK
    with trio.move_on_after(1.0) as blocked:
        await stream.write_all(bytes(64 * limits.MIB))
    assert blocked.cancelled_caught
    assert link_of(three.relay).reach.relay_counts.carried < 8 * limits.MIB
    three.called.link.send(three.relay.id, Lane.CONTROL, b"quick")
    with trio.fail_after(1):
        assert await three.relay.receive() == b"quick"


async def test_a_limit_is_told_to_both_ends(three: Three) -> None:
    stream = await three.ask(three.caller, encode_hop(HopMessage(Hop.RESERVE)))
    with trio.fail_after(5):
        answer = decode_hop(await read_message(stream))
    assert answer.limit == Limit(limits.RELAY_S, limits.RELAY_BYTES) == libp2p_relay.CIRCUIT_LIMIT
    assert answer.expires > 1_700_000_000
