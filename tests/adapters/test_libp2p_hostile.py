"""A node keeps serving its other peers whatever one of them does."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from meshslm import limits
from meshslm.adapters import libp2p_noise
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_connection import LinkTimings
from meshslm.adapters.multiaddrs import parse
from meshslm.adapters.wires import TcpWire
from meshslm.core.events import BytesReceived, DialFailed, Lane, PeerConnected, PeerDisconnected
from meshslm.wire.bulk import BULK_ID
from meshslm.wire.versions import PROTOCOL_ID

if TYPE_CHECKING:
    from tests.adapters.conftest import Node, OtherProcess, StartLibp2p

    StartProcess = Callable[[], Awaitable[OtherProcess]]
    Connect = Callable[[Node, Node], Awaitable[None]]

DATA, WINDOW = 0, 1
SYN, FIN, RST = 1, 4, 8
HURRIED = LinkTimings(
    dial=1.0, handshake=0.3, stream=0.3, first_frame=0.3, frame=0.3, write=0.5, close=0.3, proof=0.1
)
MULTISTREAM = b"/multistream/1.0.0"


def frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + body


def data(stream: int, body: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, len(body), body)


def line(text: bytes) -> bytes:
    """A multistream-select message."""
    assert len(text) < 127
    return bytes([len(text) + 1]) + text + b"\n"


KEPT_STREAM = data(1, line(MULTISTREAM) + line(PROTOCOL_ID.encode()), SYN)


class Intruder:
    """A peer that passed the handshake, and now sends what it likes."""

    def __init__(self, socket: trio.SocketStream, channel: libp2p_noise.NoiseChannel) -> None:
        self.socket = socket
        self.channel = channel

    async def send(self, plaintext: bytes) -> None:
        await self.socket.send_all(self.channel.encrypt(plaintext))

    async def receive_until(self, wanted: bytes) -> bytes:
        """What the node sent, once that contains `wanted`."""
        received = b""
        with trio.fail_after(5):
            while wanted not in received:
                piece = await self.socket.receive_some(65536)
                assert piece, f"hung up after {received!r}"
                received += self.channel.decrypt(piece)
        return received

    async def cut_off(self) -> None:
        """Waits until the node has closed the connection."""
        await hung_up(self.socket)


async def hung_up(socket: trio.SocketStream) -> None:
    with trio.fail_after(5):
        try:
            while await socket.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass


async def pieces_taken(send: Callable[[], Awaitable[None]]) -> int:
    """How often `send` worked until the node had closed the connection."""
    count = 0
    with trio.fail_after(4):
        while True:
            try:
                await send()
            except trio.BrokenResourceError:
                return count
            count += 1


async def tcp(node: Node) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", parse(node.address).port)


@asynccontextmanager
async def intruder(node: Node, key: NodeKey | None = None) -> AsyncIterator[Intruder]:
    async with await tcp(node) as socket:
        handshaker = libp2p_noise.Handshaker(key or NodeKey.generate())
        yield Intruder(socket, await handshaker.dial(TcpWire(socket), None))


async def still_serves(node: Node, start_libp2p: StartLibp2p) -> None:
    """A newcomer connects and talks."""
    friend = await start_libp2p()
    friend.link.dial(node.address)
    await friend.expect(PeerConnected)
    friend.link.send(node.id, Lane.CONTROL, b"hello")
    while (await node.expect(BytesReceived)).peer != friend.id:
        pass
    node.link.send(friend.id, Lane.CONTROL, b"welcome")
    assert await friend.receive() == b"welcome"
    await friend.stop()


# --- before authentication ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(1000),
        b"\xff" * 1000,
        line(b"\xff\xfe\xfd"),
        line(MULTISTREAM) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        line(MULTISTREAM) + line(b"/noise") + b"\xff\xff" + b"x" * 65535,
        line(MULTISTREAM) + line(b"/noise") + b"\x00\x00" * 3,
    ],
)
async def test_garbage_instead_of_a_handshake(start_libp2p: StartLibp2p, garbage: bytes) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with await tcp(node) as socket:
        await socket.send_all(garbage)
        await hung_up(socket)
    await still_serves(node, start_libp2p)


async def test_a_silent_caller_is_hung_up_on(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with await tcp(node) as socket:
        await hung_up(socket)
    assert not node.events


async def test_endless_data_before_authentication_is_not_read(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()  # with its usual five seconds: the bound of bytes must act first
    async with await tcp(node) as socket:
        await socket.send_all(line(MULTISTREAM) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
        assert await pieces_taken(lambda: socket.send_all(bytes(65536))) < 1000
    await still_serves(node, start_libp2p)


async def test_plaintext_is_not_spoken(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with await tcp(node) as socket:
        await socket.send_all(line(MULTISTREAM) + line(b"/plaintext/2.0.0") + line(b"/tls/1.0.0"))
        received = b""
        with trio.fail_after(5):
            while received.count(line(b"na")) < 2:
                received += await socket.receive_some(1000)
        await hung_up(socket)
    assert received == line(MULTISTREAM) + line(b"na") * 2


async def test_silent_callers_keep_nobody_out(
    start_libp2p: StartLibp2p, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES", 3)
    node = await start_libp2p()
    sockets = [await tcp(node) for _ in range(6)]
    for socket in sockets[:3]:
        await hung_up(socket)
    await still_serves(node, start_libp2p)
    for socket in sockets:
        await socket.aclose()


# --- after authentication -----------------------------------------------------------------------
async def test_an_authenticated_peer_that_opens_no_stream(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with intruder(node) as peer:
        await peer.cut_off()
    assert not node.events


async def test_a_stream_that_never_sends_a_frame(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await node.expect(PeerConnected)
        await peer.cut_off()
    assert "no frame within" in (await node.expect(PeerDisconnected)).reason


@pytest.mark.parametrize("begun", [b"\x00", b"\x04\x00\x10\x00", b"\x04\x00\x10\x00half of it"])
async def test_half_a_frame_and_a_stall(start_libp2p: StartLibp2p, begun: bytes) -> None:
    node = await start_libp2p(timings=replace(HURRIED, stream=10.0, first_frame=10.0))
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM + data(1, b"\x04\x00\x00\x05whole") + data(1, begun))
        assert await node.receive() == b"whole"
        await peer.cut_off()
    assert "stalled" in (await node.expect(PeerDisconnected)).reason
    await still_serves(node, start_libp2p)


async def test_a_frame_that_trickles_in(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM + data(1, b"\x04\x00\x00\x05whole") + data(1, b"\x04\x00\xff"))
        assert await node.receive() == b"whole"

        async def trickle() -> None:
            await peer.send(data(1, b"."))
            await trio.sleep(0.02)

        assert await pieces_taken(trickle) < 100
    assert "stalled" in (await node.expect(PeerDisconnected)).reason


@pytest.mark.parametrize("garbage", [b"\xff" * 64, bytes(64), b"\x07\x00\x00\x01x", b"GET / HTTP"])
async def test_garbage_frames(start_libp2p: StartLibp2p, garbage: bytes) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM + data(1, garbage))
        await peer.cut_off()
    assert (await node.expect(PeerConnected)).address == ""
    assert "dropped: " in (await node.expect(PeerDisconnected)).reason
    await still_serves(node, start_libp2p)


async def test_a_tampered_packet(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await node.expect(PeerConnected)
        await peer.socket.send_all(b"\x00\x20" + bytes(32))
        await peer.cut_off()
    assert "decrypt" in (await node.expect(PeerDisconnected)).reason
    await still_serves(node, start_libp2p)


async def test_garbage_instead_of_multiplexing(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(b"\xee" * 100)
        await peer.cut_off()
    await still_serves(node, start_libp2p)


async def test_streams_without_end(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await node.expect(PeerConnected)
        await peer.send(b"".join(frame(WINDOW, SYN, number, 0) for number in range(3, 99, 2)))
        await peer.cut_off()
    assert "streams at a time" in (await node.expect(PeerDisconnected)).reason
    await still_serves(node, start_libp2p)


async def test_streams_opened_and_dropped_without_end(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await node.expect(PeerConnected)
        numbers = count(3, 2)
        taken = await pieces_taken(lambda: peer.send(frame(WINDOW, SYN | RST, next(numbers), 0)))
        assert taken >= limits.STREAM_OPENINGS - 1
    assert "opened 64 streams" in (await node.expect(PeerDisconnected)).reason
    await still_serves(node, start_libp2p)


@pytest.mark.parametrize(
    "proposal", [b"\xff\xfe\xfd", b"/\xc3\x28/1", b"", b"\x00" * 9, b"/unknown/1.0.0", b"ls"]
)
async def test_protocols_that_nobody_speaks(start_libp2p: StartLibp2p, proposal: bytes) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await peer.send(data(3, line(MULTISTREAM) + line(proposal), SYN))
        await peer.receive_until(line(PROTOCOL_ID.encode()))
        await peer.send(data(1, b"\x04\x00\x00\x05still"))
        assert await node.receive() == b"still"
    await still_serves(node, start_libp2p)


async def test_what_other_hosts_tell_of_themselves_is_not_told(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    asked = ("/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/kad/1.0.0")
    async with intruder(node) as peer:
        proposals = b"".join(line(name.encode()) for name in asked)
        await peer.send(data(1, line(MULTISTREAM) + proposals + line(b"ls"), SYN))
        told = b""
        while told.count(line(b"na")) < len(asked) or BULK_ID.encode() not in told:
            told += await peer.receive_until(b"\n")
    left = told
    for ours in (MULTISTREAM, PROTOCOL_ID.encode(), BULK_ID.encode()):
        left = left.replace(ours, b"")
    assert b"/" not in left, "it speaks nothing else, and names nobody and no address"


async def test_a_stream_that_negotiates_for_ever(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await peer.send(data(3, line(MULTISTREAM) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", SYN))
        await peer.send(data(3, bytes(60_000)))
        await peer.receive_until(frame(WINDOW, RST, 3, 0))
    await still_serves(node, start_libp2p)


async def test_a_second_stream_for_messages(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await node.expect(PeerConnected)
        await peer.send(data(3, line(MULTISTREAM) + line(PROTOCOL_ID.encode()), SYN))
        await peer.cut_off()
    assert "second stream" in (await node.expect(PeerDisconnected)).reason


async def test_more_data_than_the_window(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    node.gate = trio.Event().wait
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        assert await pieces_taken(lambda: peer.send(data(1, bytes(60_000)))) < 1000


async def test_a_peer_that_never_reads(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM + data(1, b"\x04\x00\x00\x05hello"))
        connected = await node.expect(PeerConnected)
        for _ in range(3):
            node.link.send(connected.peer, Lane.BACKGROUND, bytes(limits.MIB))
        assert "no data for 0.5 s" in (await node.expect(PeerDisconnected)).reason


# --- identity -----------------------------------------------------------------------------------
@pytest.mark.parametrize("smaller", [True, False])
async def test_a_peer_that_comes_back_replaces_its_dead_link(
    start_libp2p: StartLibp2p, *, smaller: bool
) -> None:
    low, high = sorted((NodeKey.generate(), NodeKey.generate()), key=lambda key: key.node_id)
    ours, theirs = (low, high) if smaller else (high, low)
    node = await start_libp2p(key=ours, timings=HURRIED)
    async with intruder(node, theirs) as gone:  # as after a power cut: it answers nothing any more
        await gone.send(KEPT_STREAM + data(1, b"\x04\x00\x00\x05hello"))
        await node.expect(PeerConnected)
        assert await node.receive() == b"hello"
        back = await start_libp2p(key=theirs)
        back.link.dial(node.address)
        await back.expect(PeerConnected)
        assert "again" in (await node.expect(PeerDisconnected)).reason
        await node.expect(PeerConnected)
        back.link.send(node.id, Lane.CONTROL, b"back")
        assert await node.receive() == b"back"


async def test_our_own_key_in_other_hands_is_not_let_in(start_libp2p: StartLibp2p) -> None:
    key = NodeKey.generate()
    node = await start_libp2p(key=key)
    async with intruder(node, key) as peer:
        await peer.cut_off()
    assert not node.events


async def test_a_port_where_something_else_listens(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery, listener:

        async def answer(socket: trio.SocketStream) -> None:
            await socket.send_all(b"220 mail\r\n")

        nursery.start_soon(trio.serve_listeners, answer, [listener])
        node.link.dial(f"/ip4/127.0.0.1/tcp/{port}")
        assert "handshake failed" in (await node.expect(DialFailed)).reason
        nursery.cancel_scope.cancel()


async def test_a_port_where_nobody_answers(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(timings=HURRIED)
    async with (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] as listener:
        port = listener.socket.getsockname()[1]
        node.link.dial(f"/ip4/127.0.0.1/tcp/{port}")
        assert "no answer within 1 s" in (await node.expect(DialFailed)).reason


# --- processes that die -------------------------------------------------------------------------
async def test_a_killed_process_is_noticed(
    start_libp2p: StartLibp2p, start_process: StartProcess
) -> None:
    node, other = await start_libp2p(), await start_process()
    node.link.dial(other.address)
    await node.expect(PeerConnected)
    node.link.send(other.id, Lane.CONTROL, b"echo")
    assert await node.receive() == b"echo"
    other.process.kill()
    with trio.fail_after(3):
        assert (await node.expect(PeerDisconnected)).peer == other.id


async def test_a_stopped_process_holds_nobody_up(
    start_libp2p: StartLibp2p, start_process: StartProcess
) -> None:
    node, other = await start_libp2p(), await start_process()
    node.link.dial(other.address)
    await node.expect(PeerConnected)
    os.kill(other.process.pid, signal.SIGSTOP)
    before = trio.current_time()
    for _ in range(3):
        node.link.send(other.id, Lane.CONTROL, bytes(limits.MIB))
    node.link.disconnect(other.id, "it does not answer")
    assert trio.current_time() - before < 0.5
    with trio.fail_after(4):
        assert (await node.expect(PeerDisconnected)).reason == "it does not answer"
    await still_serves(node, start_libp2p)


async def test_a_stopped_process_is_dropped_when_it_takes_nothing(
    start_libp2p: StartLibp2p, start_process: StartProcess
) -> None:
    node, other = await start_libp2p(timings=HURRIED), await start_process()
    node.link.dial(other.address)
    await node.expect(PeerConnected)
    node.link.send(other.id, Lane.CONTROL, b"echo")
    assert await node.receive() == b"echo"
    os.kill(other.process.pid, signal.SIGSTOP)
    for _ in range(3):
        node.link.send(other.id, Lane.INTERACTIVE, bytes(limits.MIB))
    assert (await node.expect(PeerDisconnected)).reason.startswith("it ")
