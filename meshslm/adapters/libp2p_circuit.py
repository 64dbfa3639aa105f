"""Circuits through a relay, from their two ends: a place reserved, a call made, a call taken.

A circuit is a stream of the connection to the relay, which carries its bytes to a stream of another
connection. It is a wire like any other: the two ends do Noise over it, so that the relay, which may
be anybody's, sees who talks to whom and how much, and reads nothing.

Source: libp2p's specification of the circuit relay, version 2.

Rules:
- A call is taken only from a relay at which this node has reserved a place.
- What a relay answers is bounded and may be anything; whatever is wrong is a `CircuitError`.
"""

from __future__ import annotations

import trio

from meshslm import limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.circuit_messages import (
    HOP,
    MESSAGE_BYTES,
    Hop,
    HopMessage,
    Status,
    Stop,
    StopMessage,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from meshslm.adapters.libp2p_connection import Connection
from meshslm.adapters.libp2p_noise import READ_BYTES
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.core.ways import CIRCUIT
from meshslm.errors import MeshslmError, PeerFault
from meshslm.ids import NodeId


class CircuitError(MeshslmError):
    """No circuit, or no place at a relay; the message is for a person."""


class CircuitWire:
    """One end of a circuit. A `wires.Wire`."""

    own_host = ""

    def __init__(self, stream: MuxedStream, relay: NodeId) -> None:
        stream.negotiated()
        self._stream = stream
        self.came_from = f"/p2p/{relay}{CIRCUIT}"

    async def receive_some(self, most: int) -> bytes:
        """What has come, at most so much; empty at the end."""
        data = await self._stream.read(most)
        if not data and self._stream.broken:
            raise trio.BrokenResourceError
        return data

    async def send_all(self, data: bytes) -> None:
        """Returns when everything is on its way to the relay."""
        await self._stream.write_all(data)

    async def read(self) -> bytes:
        """What has come; empty at the end."""
        return await self.receive_some(READ_BYTES)

    async def write(self, data: bytes, within_s: float) -> bool:
        """As `send_all`; False where the other end left no room for some of it for so long."""
        with trio.move_on_after(within_s) as scope:
            await self._stream.write_all(data)
        return not scope.cancelled_caught

    def write_now(self, data: bytes) -> bytes:
        """Nothing goes out at once here: it waits for the relay's room."""
        return data

    async def send_eof(self) -> None:
        """Send no more."""
        await self._stream.close()

    def close(self) -> None:
        """Drop it, in both directions."""
        self._stream.reset()

    def reset(self) -> None:
        """Drop it, in both directions."""
        self._stream.reset()


def id_bytes(node: NodeId) -> bytes:
    """A peer id as it stands in messages."""
    return bytes(library.ID.from_base58(node).to_bytes())


def id_of(raw: bytes) -> NodeId:
    """A peer id from a message. Raises `PeerFault` for what is none of ours."""
    if len(raw) > limits.NAME_BYTES or not raw.startswith(library.ED25519_ID):
        raise PeerFault("a peer id that is no Ed25519 key")
    return NodeId(library.ID(raw).to_base58())


async def read_message(stream: MuxedStream, most: int = MESSAGE_BYTES) -> bytes:
    """The body of one message. Raises `PeerFault` where it is too long, or breaks off."""
    size = shift = 0
    while True:
        byte = await stream.read(1)
        if not byte or shift > 14:
            raise PeerFault("a message without a length")
        size |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
    if size > most:
        raise PeerFault(f"a message of {size} bytes, where {most} are enough")
    body = b""
    while len(body) < size:
        piece = await stream.read(size - len(body))
        if not piece:
            raise PeerFault("a message that breaks off")
        body += piece
    return body


async def _ask(connection: Connection, message: HopMessage, seconds: float) -> MuxedStream:
    """The stream on which a relay has agreed to a request."""
    stream = connection.open_stream()
    try:
        with trio.fail_after(seconds):
            await library.MultiselectClient().select_one_of(
                (library.TProtocol(HOP),), library.MultiselectCommunicator(stream), seconds
            )
            await stream.write(encode_hop(message))
            answer = decode_hop(await read_message(stream))
    except trio.TooSlowError as error:
        stream.reset()
        raise CircuitError(f"the relay has not answered within {seconds:g} s") from error
    except Exception as error:  # the library raises anything on hostile bytes
        stream.reset()
        raise CircuitError(f"the relay does not relay: {str(error)[:200]}") from error
    except BaseException:
        stream.reset()
        raise
    if answer.kind != Hop.STATUS or answer.status != Status.OK:
        stream.reset()
        raise CircuitError(f"the relay answers {_named(answer.status)}")
    return stream


def _named(status: int) -> str:
    try:
        return Status(status).name.lower().replace("_", " ")
    except ValueError:
        return f"with the unknown status {status}"


async def reserve(connection: Connection, seconds: float) -> int:
    """Get a place at the peer of a connection; seconds that ours gives. Raises `CircuitError`."""
    stream = await _ask(connection, HopMessage(Hop.RESERVE), seconds)
    await stream.close()
    return limits.RELAY_S


async def call(connection: Connection, peer: NodeId, seconds: float) -> CircuitWire:
    """A circuit to `peer` through the peer of a connection. Raises `CircuitError`."""
    message = HopMessage(Hop.CONNECT, id_bytes(peer))
    return CircuitWire(await _ask(connection, message, seconds), connection.peer)


async def take_call(
    connection: Connection, stream: MuxedStream, *, reserved: bool
) -> tuple[CircuitWire, NodeId] | None:
    """What a relay announces on a stream: the circuit, and who is said to call."""
    status, caller = Status.OK, NodeId("")
    try:
        message = decode_stop(await read_message(stream))
        if message.kind != Stop.CONNECT:
            status = Status.UNEXPECTED_MESSAGE
        elif not reserved:
            status = Status.PERMISSION_DENIED
        else:
            caller = id_of(message.peer)
    except PeerFault:
        status = Status.MALFORMED_MESSAGE
    await stream.write(encode_stop(StopMessage(Stop.STATUS, status=status)))
    if status is not Status.OK:
        await stream.close()
        return None
    return CircuitWire(stream, connection.peer), caller
