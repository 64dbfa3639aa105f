"""A client of libp2p's Kademlia DHT: one message to one server, on a connection of its own.

Rules:
- A server is a stranger. Its connection is for this one message: streams that it opens itself are
  refused, nothing is kept, and it is closed when the answer is there or its time is up.
- Who answers is proven, by the id that was told. An answer is bounded and may be anything;
  whatever is wrong is a `ServerFault`.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum

import trio

from meshslm import mesh_limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.kademlia_messages import (
    KADEMLIA,
    Answer,
    Peer,
    decode_answer,
    encode_question,
    encode_record,
)
from meshslm.adapters.libp2p_circuit import read_message
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.libp2p_noise import HandshakeError
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.multiaddrs import Address
from meshslm.adapters.tcp import ConnectFailed
from meshslm.errors import MeshslmError

TAKEN_S = 1.0
"""For a server to take a record. Some say that they have, and most say nothing."""


class ServerFault(MeshslmError):
    """A server did not answer, or not as it should; the message is for a person."""


class Scope(IntEnum):
    """From where an address can be dialled."""

    MACHINE = 0
    NETWORK = 1
    EVERYWHERE = 2


def scope_of(host: str) -> Scope:
    """From where an IP address can be dialled."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return Scope.MACHINE
    return Scope.EVERYWHERE if address.is_global else Scope.NETWORK


class KademliaClient:
    """Asks servers, in the name of a link's node."""

    def __init__(self, link: Libp2pLink, timings: LinkTimings | None = None) -> None:
        self._link = link
        self._timings = timings or LinkTimings()
        self._strangers = library.Multiselect({})

    async def ask(self, server: Address, key: bytes) -> tuple[Answer, Scope]:
        """What a server says about a key, and from where it was reached. Raises `ServerFault`."""
        body, scope = await self._exchange(server, encode_question(key), answered=True)
        try:
            return decode_answer(body), scope
        except MeshslmError as error:
            raise ServerFault(str(error)) from error

    async def put(self, server: Address, key: bytes, peer: Peer) -> None:
        """Have a server keep a record of this node. Raises `ServerFault`."""
        await self._exchange(server, encode_record(key, peer), answered=False)

    async def _exchange(
        self, server: Address, message: bytes, *, answered: bool
    ) -> tuple[bytes, Scope]:
        body, failure = b"", f"no answer within {mesh_limits.DHT_ASK_MS / 1000:g} s"
        scope = Scope.EVERYWHERE
        with trio.move_on_after(mesh_limits.DHT_ASK_MS / 1000):
            try:
                wire, channel = await self._link.reach.open(server)
            except (ConnectFailed, HandshakeError) as error:
                raise ServerFault(str(error)) from error
            scope = scope_of(wire.came_from.split("/")[2]) if wire.came_from else scope
            connection = Connection(
                wire,
                channel,
                address=str(server),
                timings=self._timings,
                on_stream=self._refuse,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                try:
                    body, failure = await self._converse(connection, message, answered=answered)
                finally:
                    connection.abort("the exchange is over")
        if failure:
            raise ServerFault(failure)
        return body, scope

    async def _converse(
        self, connection: Connection, message: bytes, *, answered: bool
    ) -> tuple[bytes, str]:
        """The answer, or why there is none."""
        stream = connection.open_stream()
        try:
            await library.MultiselectClient().select_one_of(
                (library.TProtocol(KADEMLIA),),
                library.MultiselectCommunicator(stream),
                mesh_limits.DHT_ASK_MS / 1000,
            )
            stream.negotiated()
            await stream.write_all(message)
            await stream.close()
            if answered:
                return await read_message(stream, mesh_limits.DHT_MESSAGE_BYTES), ""
            said = b""
            with trio.move_on_after(TAKEN_S):
                said = await stream.read(1)
        except Exception as error:  # noqa: BLE001 - the library raises anything on hostile bytes
            return b"", connection.reason or f"it does not answer: {error}"[:300]
        # One that has said that it took the record may well reset the stream then.
        return b"", "it refused the record" if stream.broken and not said else ""

    async def _refuse(self, _: Connection, stream: MuxedStream) -> None:
        """Agree to nothing that a server proposes."""
        communicator = library.MultiselectCommunicator(stream)
        await self._strangers.negotiate(communicator, self._timings.stream)
