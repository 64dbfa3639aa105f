"""The network: a `Link` over libp2p's TCP, Noise and Yamux, hardened.

One connection and one kept stream to each peer. Where two nodes dial each other at the same time,
there are two connections for a moment, and the node with the smaller id decides which one stays:
it opens or accepts one stream at a time, and before it takes a second connection from a peer it
makes the first one prove that it lives. The other node follows. The decision travels as the answer
of multistream-select to `/meshslm/1.0.0`, so it costs no message of its own.

Rules:
- No peer is dialled that nobody asked for; no address is tried twice.
- Every wait has a deadline (`LinkTimings`) and every table a bound (`limits`).
- What a peer does ends at most its own connection.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import trio

from meshslm import limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_agreement import Agreement
from meshslm.adapters.libp2p_bulk import Bulk
from meshslm.adapters.libp2p_circuit import CircuitError
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_listening import Listening
from meshslm.adapters.libp2p_noise import HandshakeError, Handshaker, NoiseChannel
from meshslm.adapters.libp2p_peer import PeerLink
from meshslm.adapters.libp2p_reach import LinkReach
from meshslm.adapters.libp2p_reception import Reception
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.multiaddrs import Address, AddressError, Circuit, parse, parse_circuit
from meshslm.adapters.tcp import ConnectFailed
from meshslm.adapters.wires import Wire
from meshslm.core.events import (
    AddressesChanged,
    DialFailed,
    Event,
    Lane,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.errors import MeshslmError, OurFault
from meshslm.ids import NodeId
from meshslm.ports import Handle, Post
from meshslm.wire.bulk import BULK_ID
from meshslm.wire.versions import PROTOCOL_ID

log = logging.getLogger("meshslm.link")


class _DialError(MeshslmError):
    """Dialling came to nothing; the message is for a person. `peer` is who answered."""

    def __init__(self, reason: str, peer: NodeId | None = None, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.peer = peer
        self.refused = refused


class Libp2pLink:
    """A node's place in the network. Implements `ports.Link`.

    `listen` are multiaddresses such as `/ip4/0.0.0.0/tcp/4101`; port 0 lets the system choose.
    """

    def __init__(
        self, key: NodeKey, listen: tuple[str, ...], *, timings: LinkTimings | None = None
    ) -> None:
        self._key = key
        try:
            self._listen = tuple(parse(text) for text in listen)
        except AddressError as error:
            raise OurFault(f"cannot listen there: {error}") from error
        self._timings = timings or LinkTimings()
        self.handshaker = Handshaker(key)
        self._listening = Listening(self._listen, key.node_id)
        self._links: dict[NodeId, PeerLink] = {}
        self._latest: dict[NodeId, PeerLink] = {}
        """As `_links`, and those whose end is still being told."""
        self._decisions: WeakValueDictionary[NodeId, trio.Lock] = WeakValueDictionary()
        self._reception = Reception(self.handshaker, self._timings.handshake, self._serve_accepted)
        self._corked: dict[PeerLink, None] | None = None
        """Where something was sent since the cork was put in; None without one."""
        self._nursery: trio.Nursery | None = None
        self._post: Post | None = None
        self._handle: Handle | None = None
        protocols = (PROTOCOL_ID, BULK_ID)
        self.multiselect = library.Multiselect(dict.fromkeys(protocols))
        self._bulk = Bulk(self, self._timings)
        self.reach = LinkReach(self, dial_s=self._timings.dial, stream_s=self._timings.stream)

    # --- the port --------------------------------------------------------------------------------
    @property
    def node_id(self) -> NodeId:
        """This node's libp2p peer id."""
        return self._key.node_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial this node; a wildcard is expanded to the interfaces' addresses."""
        return self._listening.addresses

    @property
    def listeners(self) -> list[trio.socket.SocketType]:
        """The sockets that listen, while it runs."""
        return self._listening.listeners

    def send(self, peer: NodeId, lane: Lane, message: bytes) -> None:
        """Queue a message for a connected peer."""
        link = self._links.get(peer)
        if link is None or not link.queue(lane, message):
            return
        if self._corked is None:
            link.connection.wake()
        else:
            self._corked[link] = None

    def cork(self) -> None:
        """More is about to be sent: until `uncork`, what is queued may wait for it."""
        self._corked = {}

    def uncork(self) -> None:
        """What was queued goes out, together where it goes to the same peer."""
        corked, self._corked = self._corked, None
        for link in corked or ():
            link.connection.write_now()

    def dial(self, address: str) -> None:
        """Begin to connect. Without effect before `run` listens."""
        self.start(self._dial, address)

    def disconnect(self, peer: NodeId, reason: str) -> None:
        """Close the link to a peer."""
        link = self._links.get(peer)
        if link is not None:
            link.close(reason)

    async def run(
        self, post: Post, *, started: Callable[[], None], handle: Handle | None = None
    ) -> None:
        """Listen and serve until cancelled.

        Messages go to `handle` where there is one and they come few at a time, as tokens do: no
        task is woken for them. The rest goes to `post`, with all other events.
        """
        await self._listening.open()
        try:
            self._post, self._handle = post, handle
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for listener in self.listeners:
                    nursery.start_soon(self._reception.accept_from, listener, nursery)
                seconds = self._timings.addresses
                nursery.start_soon(self._listening.watch, seconds, self._end_stranded, self._moved)
                started()
        finally:
            self._nursery = None
            self._listening.close()

    def start(self, deed: Callable[..., Awaitable[None]], *details: object) -> None:
        """Do something beside everything else. Without effect before `run` listens."""
        if self._nursery is not None:
            self._nursery.start_soon(deed, *details)

    async def post(self, event: Event) -> None:
        """Hand an event to the core."""
        assert self._post is not None, "nothing happens before it runs"
        await self._post(event)

    def link_of(self, peer: NodeId) -> PeerLink | None:
        """The link to a peer."""
        return self._links.get(peer)

    def connection_of(self, peer: NodeId) -> Connection | None:
        """The connection that is a peer's link."""
        link = self._links.get(peer)
        return link.connection if link is not None else None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a connection that this side opens. Raises `ConnectFailed` where it has too many."""
        if self._reception.full:
            raise ConnectFailed(f"{limits.CONNECTIONS} connections are open already")
        self._reception.connections += 1
        try:
            yield
        finally:
            self._reception.connections -= 1

    # --- connections -----------------------------------------------------------------------------
    def _end_stranded(self, hosts: set[str]) -> None:
        """End links by an address that this machine no longer has: nothing comes by them."""
        for link in list(self._links.values()):
            host = link.connection.wire.own_host
            if host and host not in hosts:
                link.connection.abort(f"this machine no longer has the address {host}")

    async def _moved(self, addresses: tuple[str, ...]) -> None:
        await self.post(AddressesChanged(addresses))

    async def _serve_accepted(self, wire: Wire, channel: NoiseChannel) -> None:
        if channel.peer != self.node_id:
            await self._serve_unclaimed(self.connection(wire, channel))

    async def serve_called(self, wire: Wire, channel: NoiseChannel) -> None:
        """Serve a connection that came through a relay, as one that was accepted."""
        if not self._reception.full:
            self._reception.connections += 1
            try:
                await self._serve_accepted(wire, channel)
            finally:
                self._reception.connections -= 1

    async def serve_punched(self, wire: Wire, channel: NoiseChannel, address: str) -> None:
        """Serve a direct connection in a relayed one's place; `address` where this side dialled."""
        if not address:
            await self.serve_called(wire, channel)
            return
        deadline = trio.current_time() + self._timings.dial
        connection = self.connection(wire, channel, address=address)
        try:
            await self._offer(connection, deadline)
        finally:
            connection.abort("dialling failed")

    async def _serve_unclaimed(self, connection: Connection) -> None:
        """Serve an inbound connection, which must become the peer's link before long."""
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def expire() -> None:
                await trio.sleep(self._timings.stream)
                if not connection.kept:
                    connection.abort("it opened no stream")

            await connection.run()
            nursery.cancel_scope.cancel()

    def connection(self, wire: Wire, channel: NoiseChannel, *, address: str = "") -> Connection:
        """A connection over an authenticated wire; `address` where this side dialled."""
        return Connection(
            wire,
            channel,
            address=address,
            came_from="" if address else wire.came_from,
            timings=self._timings,
            on_stream=self._answer,
        )

    # --- dialling --------------------------------------------------------------------------------
    async def _dial(self, text: str) -> None:
        try:
            await self._connect(text)
        except _DialError as error:
            await self.post(DialFailed(text, str(error), error.peer, error.refused))
        except Exception:
            log.exception("a connection to %s was dropped: a bug in serving it", text)
            await self.post(DialFailed(text, "a bug; the log has the trace"))

    async def _connect(self, text: str) -> None:
        try:
            way = parse_circuit(text) or parse(text)
        except AddressError as error:
            raise _DialError(str(error)) from error
        if way.peer == self.node_id:
            raise _DialError("that is this node itself")
        linked = self.connection_of(way.peer) if way.peer else None
        if linked is not None and (isinstance(way, Circuit) or not linked.relayed):
            raise _DialError("already connected", way.peer)
        try:
            with self.counted():
                deadline = trio.current_time() + self._timings.dial
                wire, channel = await self._open_in_time(way, deadline)
                connection = self.connection(wire, channel, address=text)
                try:
                    await self._offer(connection, deadline)
                finally:
                    connection.abort("dialling failed")
        except ConnectFailed as error:
            raise _DialError(str(error), refused=error.refused) from error

    async def _open_in_time(
        self, way: Address | Circuit, deadline: float
    ) -> tuple[Wire, NoiseChannel]:
        try:
            with trio.CancelScope(deadline=deadline):
                return await self.reach.open(way)
        except (HandshakeError, CircuitError) as error:
            raise _DialError(str(error)) from error
        raise _DialError(f"no answer within {self._timings.dial:g} s")

    async def _offer(self, connection: Connection, deadline: float) -> None:
        """Propose a dialled connection as the peer's link, and serve it while it is that."""
        failure = f"no answer within {self._timings.dial:g} s"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            with trio.CancelScope(deadline=deadline):
                failure = await self._propose(connection)
            if failure:
                connection.abort(failure)
        if failure:
            linked = connection.peer in self._links
            raise _DialError("already connected" if linked else failure, connection.peer)

    async def _propose(self, connection: Connection) -> str:
        """Agree on the kept stream; returns why that failed, or nothing."""
        async with self._decision(connection.peer):
            if connection.peer > self.node_id and not await self._claim(connection):
                return "already connected"
            return await self._negotiate(connection)

    async def _negotiate(self, connection: Connection) -> str:
        stream = connection.open_stream()
        try:
            await library.MultiselectClient().select_one_of(
                (PROTOCOL_ID,), library.MultiselectCommunicator(stream), self._timings.dial
            )
        except Exception as error:  # noqa: BLE001 - the library raises anything on hostile bytes
            return connection.reason or f"it does not speak {PROTOCOL_ID}: {error}"[:300]
        self._install(connection, stream)
        return ""

    # --- answering -------------------------------------------------------------------------------
    async def _answer(self, connection: Connection, stream: MuxedStream) -> None:
        """Agree with the peer on what a stream that it opened is for."""
        agreement = Agreement(stream, lambda reply: self._agree(connection, stream, reply))
        protocol, _ = await self.multiselect.negotiate(agreement, self._timings.stream)
        if protocol == BULK_ID:
            await self._bulk.serve(connection, stream)
        else:
            await self.reach.serve(str(protocol), connection, stream)

    async def _agree(
        self, connection: Connection, stream: MuxedStream, reply: Callable[[], Awaitable[None]]
    ) -> None:
        """The peer proposes the kept stream: decide, answer, and take it into use."""
        peer = connection.peer
        if self._is_linked(connection):
            connection.accuse("it opened a second stream for messages")
            return
        if peer < self.node_id:
            await reply()
            self._install(connection, stream)
            return
        async with self._decision(peer):
            if not await self._claim(connection):
                connection.abort("already connected")
                return
            await reply()
            self._install(connection, stream)

    # --- one link per peer -----------------------------------------------------------------------
    def _decision(self, peer: NodeId) -> trio.Lock:
        """Held while this node, as the one with the smaller id, decides about a connection.

        As the one with the larger id it proposes one at a time: what it is refused for is then
        known here before the refusal.
        """
        lock = self._decisions.get(peer)
        if lock is None:
            lock = self._decisions[peer] = trio.Lock()
        return lock

    async def _claim(self, connection: Connection) -> bool:
        """Whether a further connection may become the link: not while there is one that lives.

        But a direct one takes a relayed one's place.
        """
        link = self._links.get(connection.peer)
        if link is None:
            return True
        if link.connection.relayed and not connection.relayed:
            link.connection.abort("a direct connection takes its place")
            return True
        if link.closing:
            await link.ended.wait()
            return True
        if await link.connection.alive():
            return False
        link.connection.abort("it connected again, and this connection did not answer")
        return True

    def _is_linked(self, connection: Connection) -> bool:
        link = self._links.get(connection.peer)
        return link is not None and link.connection is connection

    def _install(self, connection: Connection, stream: MuxedStream) -> None:
        assert self._nursery is not None
        if connection.ended.is_set():
            return
        peer = connection.peer
        earlier = self._latest.get(peer)
        if earlier is not None:
            earlier.connection.abort("it connected again")
        link = PeerLink(connection, stream, self._timings, self._bulk.much_waits)
        self._links[peer] = self._latest[peer] = link
        self._nursery.start_soon(self._serve_link, link, earlier)

    async def _serve_link(self, link: PeerLink, earlier: PeerLink | None) -> None:
        assert self._post is not None
        peer = link.connection.peer
        try:
            if earlier is not None:
                await earlier.ended.wait()
            connection = link.connection
            await self.post(PeerConnected(peer, connection.address, connection.came_from))
            await link.serve(self._post, self._handle)
            # Before the event, so that whoever hears it can dial at once.
            if self._links.get(peer) is link:
                del self._links[peer]
                self.reach.ended(peer)
            ended = PeerDisconnected(peer, link.connection.reason, link.connection.fault)
            await self.post(ended)
        finally:
            link.connection.abort("this node stopped")
            link.ended.set()
            if self._latest.get(peer) is link:
                del self._latest[peer]
