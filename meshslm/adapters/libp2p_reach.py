"""The link's part in being reached: trial dials, relays and calls through them, direct upgrades.

Implements `ports.Reach` beside `Libp2pLink`, whose connections it uses and to which it hands those
that it makes.

Rules:
- Every wait has a deadline, and every connection counts among those that a node may have.
- What goes wrong becomes an event, or a line in the log: nothing here raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from meshslm.adapters import libp2p_library as library
from meshslm.adapters.circuit_messages import HOP, STOP
from meshslm.adapters.libp2p_circuit import CircuitError, CircuitWire, call, reserve, take_call
from meshslm.adapters.libp2p_connection import Connection
from meshslm.adapters.libp2p_noise import HandshakeError, NoiseChannel
from meshslm.adapters.libp2p_relay import Relay, RelayCounts
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.multiaddrs import Address, AddressError, Circuit, parse
from meshslm.adapters.tcp import ConnectFailed, connect, connect_from
from meshslm.adapters.wires import TcpWire, Wire
from meshslm.core.reach_events import DialTried, NotReserved, Reserved
from meshslm.errors import MeshslmError
from meshslm.ids import NodeId

if TYPE_CHECKING:
    from meshslm.adapters.libp2p_link import Libp2pLink

log = logging.getLogger("meshslm.link")

PUNCH_AGAIN_S = 0.1
"""Between two packets that open a NAT, where the other machine refuses the first."""
PUNCH_ROLE_S = 0.5
"""Until who should be called begins by itself: the other end was no dial, but a listener."""
GREETING = b"\x13/multistream/1.0.0\n"
"""With which both ends of a connection begin."""


class LinkReach:
    """How a link reaches and is reached."""

    def __init__(self, link: Libp2pLink, *, dial_s: float, stream_s: float) -> None:
        self._link = link
        self._dial_s = dial_s
        self._relay = Relay(link.connection_of, seconds=stream_s)
        self._relays: set[NodeId] = set()
        """Where this node has reserved a place, so that calls are taken from them."""

    # --- the port -------------------------------------------------------------------------------
    def try_dial(self, number: int, address: str) -> None:
        """Find out whether the peer named in `address` answers there; ends in `DialTried`."""
        self._link.start(self._try_dial, number, address)

    def reserve(self, relay: NodeId) -> None:
        """Get a place at a linked relay; ends in `Reserved` or `NotReserved`."""
        self._link.start(self._reserve, relay)

    def offer_relay(self, *, on: bool) -> None:
        """Relay for members from now on, or no longer."""
        if on:
            self._link.multiselect.add_handler(library.TProtocol(HOP), None)
        else:
            self._link.multiselect.remove_handler(library.TProtocol(HOP))

    def punch(self, address: str) -> None:
        """Dial a peer that dials this node at the same time."""
        self._link.start(self._punch, address)

    def relay_for(self, may_use: Callable[[NodeId], bool]) -> None:
        """Who may use this node as a relay, while it is one."""
        self._relay.may_use = may_use

    @property
    def relay_counts(self) -> RelayCounts:
        """What this node has to do as a relay."""
        return self._relay.counts

    # --- for the link ---------------------------------------------------------------------------
    async def serve(self, protocol: str, connection: Connection, stream: MuxedStream) -> None:
        """A peer opened a stream for a protocol of relays."""
        if protocol == HOP:
            await self._relay.serve(connection, stream)
        elif protocol == STOP:
            await self._take_call(connection, stream)

    async def call(self, circuit: Circuit) -> CircuitWire:
        """A wire to a peer through a relay. Raises `CircuitError`."""
        return await call(self._direct(circuit.relay), circuit.peer, self._dial_s)

    async def open(self, way: Address | Circuit) -> tuple[Wire, NoiseChannel]:
        """A wire with an authenticated peer at the other end.

        Raises `ConnectFailed`, `HandshakeError` and `CircuitError`.
        """
        wire: Wire | None = None
        try:
            if isinstance(way, Circuit):
                wire = await self.call(way)
            else:
                wire = TcpWire(await connect(way))
            channel = await self._link.handshaker.dial(wire, way.peer)
            if channel.peer == self._link.node_id:
                raise HandshakeError("that is this node itself")
            opened, wire = wire, None
            return opened, channel
        finally:
            if wire is not None:
                wire.close()

    def _direct(self, relay: NodeId) -> Connection:
        connection = self._link.connection_of(relay)
        if connection is None or connection.relayed:
            raise CircuitError("its relay is not linked directly")
        return connection

    def ended(self, peer: NodeId) -> None:
        """A peer's link is gone, and a place there with it."""
        self._relays.discard(peer)

    # --- deeds ----------------------------------------------------------------------------------
    async def _try_dial(self, number: int, text: str) -> None:
        reached, reason = False, f"no answer within {self._dial_s:g} s"
        try:
            with trio.move_on_after(self._dial_s):
                wire, _ = await self.open(parse(text))
                wire.close()
                reached, reason = True, ""
        except (MeshslmError, AddressError) as error:
            reason = str(error)
        await self._link.post(DialTried(number, reached, reason))

    async def _reserve(self, relay: NodeId) -> None:
        try:
            connection = self._direct(relay)
            self._link.multiselect.add_handler(library.TProtocol(STOP), None)
            self._relays.add(relay)
            seconds = await reserve(connection, self._dial_s)
        except CircuitError as error:
            self._relays.discard(relay)
            await self._link.post(NotReserved(relay, str(error)))
        else:
            await self._link.post(Reserved(relay, seconds))

    async def _take_call(self, relay: Connection, stream: MuxedStream) -> None:
        reserved = relay.peer in self._relays and not relay.relayed
        taken = await take_call(relay, stream, reserved=reserved)
        if taken is None:
            return
        wire, caller = taken
        try:
            with trio.fail_after(self._dial_s):
                channel = await self._accept(wire, caller)
        except (HandshakeError, trio.TooSlowError) as error:
            log.debug("a call through %s was refused: %s", relay.peer, error)
        else:
            await self._link.serve_called(wire, channel)
        finally:
            wire.close()

    async def _accept(self, wire: Wire, peer: NodeId) -> NoiseChannel:
        """Authenticate as the side that was called, by `peer` and nobody else."""
        channel = await self._link.handshaker.accept(wire)
        if channel.peer != peer:
            raise HandshakeError(f"another node calls, not {peer}")
        return channel

    async def _punch(self, text: str) -> None:
        try:
            address = parse(text)
            connection = self._link.connection_of(address.peer) if address.peer else None
            if connection is None or not connection.relayed:
                return
            with trio.move_on_after(self._dial_s):
                await self._punch_to(text)
        except (MeshslmError, AddressError) as error:
            log.debug("no direct way at %s: %s", text, error)
        except Exception:
            log.exception("a dial to %s was dropped: a bug in it", text)

    async def _punch_to(self, text: str) -> None:
        address, link = parse(text), self._link
        family = (await address.targets())[0][0]
        listener = next((one for one in link.listeners if one.family == family), None)
        if listener is None:
            raise ConnectFailed("this node does not listen in that family of IP")
        wire = TcpWire(await connect_from(listener, address, PUNCH_AGAIN_S))
        try:
            assert address.peer is not None
            called = link.node_id > address.peer and await wire.begins(GREETING, PUNCH_ROLE_S)
            if called:
                channel = await self._accept(wire, address.peer)
            else:
                channel = await link.handshaker.dial(wire, address.peer)
        except BaseException:
            wire.close()
            raise
        link.start(self._serve_punched, wire, channel, "" if called else text)

    async def _serve_punched(self, wire: TcpWire, channel: NoiseChannel, text: str) -> None:
        try:
            await self._link.serve_punched(wire, channel, text)
        except MeshslmError as error:
            log.debug("no direct link: %s", error)
        finally:
            wire.close()
