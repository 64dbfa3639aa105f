"""Finds members of a private mesh through servers of a DHT that are no members, and is found so.

A round is one lookup of the day's meeting point: the addresses that members left there become
`AddressFound`, and the servers closest to it are asked to keep this node's. There is one at the
start, then every hour, sooner while the node is alone and when its addresses have changed. A round
shortly before midnight leaves the addresses at the next day's place too.

Rules:
- Only addresses with a member's seal are handed on; who is there is proven when it is dialled.
- A server hears no more of this node than it could see: where it can be dialled from there, and not
  which addresses it has in networks behind.
- No round raises, and neither its lookups nor its leaving of addresses outlast `DHT_LOOKUP_MS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

import trio

from meshslm import mesh_limits
from meshslm.adapters.kademlia_messages import Peer, Place
from meshslm.adapters.libp2p_circuit import id_bytes, id_of
from meshslm.adapters.libp2p_kademlia import KademliaClient, Scope, ServerFault, scope_of
from meshslm.adapters.multiaddrs import Address, AddressError, parse
from meshslm.chance import Chance
from meshslm.core.events import AddressFound
from meshslm.core.kademlia import Ask, Contact, Lookup
from meshslm.core.meeting_point import day_of, meeting_point, seal, sealed_by_member
from meshslm.core.views import DhtView, StatusView
from meshslm.errors import OurFault, PeerFault
from meshslm.ids import NodeId
from meshslm.ports import Post

log = logging.getLogger("meshslm.dht")

LOOK_S = 2.0
"""Between two looks at whether the node is alone or has moved."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Who looks for whom."""

    node: NodeId
    mesh: bytes
    """The mesh's first public key."""
    servers: tuple[Address, ...]
    """To begin with; each names its peer."""


class Search:
    """One lookup under way, and from where its servers were reached."""

    def __init__(self, meeting: Meeting, day: int) -> None:
        self.day = day
        self.key = meeting_point(meeting.mesh, day)
        servers = [
            Contact(id_bytes(server.peer), (str(replace(server, peer=None)),))
            for server in meeting.servers
            if server.peer is not None
        ]
        self.lookup = Lookup(self.key, id_bytes(meeting.node), servers)
        self.scopes: dict[Ask, Scope] = {}

    def addresses(self) -> list[str]:
        """Those found, of all that were told of in turn."""
        found = (address for record in self.lookup.records() for address in record.addresses)
        return list(islice(dict.fromkeys(found), mesh_limits.DHT_FOUND))


def meeting_of(node: NodeId, mesh: bytes | None, servers: Iterable[str]) -> Meeting:
    """From the settings. Raises `OurFault` where that cannot be."""
    if mesh is None:
        fault = OurFault("link.dht is for private meshes: in an open one strangers would join")
        fault.add_note("'meshslm mesh create' makes a private mesh, 'meshslm mesh join' joins one")
        raise fault
    return Meeting(node, mesh, tuple(_server_at(text) for text in servers))


def _server_at(text: str) -> Address:
    try:
        address = parse(text)
        if address.peer is not None:
            id_of(id_bytes(address.peer))
    except (AddressError, PeerFault, ValueError) as error:
        raise OurFault(f"link.dht: {text}: {error}") from error
    if address.peer is None:
        raise OurFault(f"link.dht: {text}: a server's address ends in /p2p/ID")
    return address


class DhtMeeting:
    """Holds the rounds of one node."""

    def __init__(
        self,
        meeting: Meeting,
        client: KademliaClient,
        status: Callable[[], StatusView],
        chance: Chance,
        unix_s: Callable[[], float],
    ) -> None:
        self._meeting = meeting
        self._client = client
        self._status = status
        self._chance = chance
        self._unix_s = unix_s
        self._view = DhtView(servers=tuple(str(server) for server in meeting.servers))
        self._ended = 0.0
        """When the last round was over, by trio's clock."""
        self._fault = ""
        """Why the last server that did not answer did not."""

    def view(self) -> DhtView:
        """How it goes."""
        if self._view.age_ms is None:
            return self._view
        return replace(self._view, age_ms=(trio.current_time() - self._ended) * 1000)

    async def run(self, post: Post) -> None:
        """Look for members and be found, until cancelled."""
        alone_ms = float(mesh_limits.DHT_ALONE_MS)
        while True:
            left_at = self._addresses()
            await self._round(post)
            round_ms = mesh_limits.DHT_ROUND_MS * self._chance.between(0.75, 1.25)
            wait_ms = alone_ms * self._chance.between(0.5, 1.0)
            while True:
                await trio.sleep(LOOK_S)
                waited = (trio.current_time() - self._ended) * 1000
                alone = not self._status().peers_alive
                moved = self._addresses() != left_at
                if waited >= round_ms or (waited >= wait_ms and (alone or moved)):
                    break
            most = mesh_limits.DHT_ALONE_MOST_MS
            alone_ms = min(most, 2 * alone_ms) if alone else mesh_limits.DHT_ALONE_MS

    # --- a round ---------------------------------------------------------------------------------
    async def _round(self, post: Post) -> None:
        """Find who is there, hand them on, and leave this node's addresses."""
        now = self._unix_s()
        today = day_of(now)
        self._fault = ""
        search = await self._search(today)
        found = search.addresses()
        for address in found:
            await post(AddressFound(address))
        kept = await self._leave(search)
        tomorrow = day_of(now + 2 * mesh_limits.DHT_ROUND_MS / 1000)
        if tomorrow != today:
            await self._leave(await self._search(tomorrow))
        self._ended = trio.current_time()
        answers = search.lookup.answers
        self._view = replace(
            self._view,
            answered=answers,
            found=len(found),
            kept=kept,
            age_ms=0.0,
            reason="" if answers else self._fault or "no server has answered",
        )
        said = log.info if answers else log.warning
        told = f"{answers} servers answered, {len(found)} addresses found, {kept} keep ours"
        said("members were looked for: %s", told if answers else self._view.reason)

    async def _search(self, day: int) -> Search:
        """Ask until there is nobody left to ask."""
        search = Search(self._meeting, day)
        lookup = search.lookup
        ended, endings = trio.open_memory_channel[None](mesh_limits.DHT_DIALS)
        with trio.move_on_after(mesh_limits.DHT_LOOKUP_MS / 1000):
            async with trio.open_nursery() as nursery:
                while not lookup.over:
                    while (ask := lookup.next()) is not None:
                        nursery.start_soon(self._ask, search, ask, ended)
                    await endings.receive()
        return search

    async def _ask(self, search: Search, ask: Ask, ended: trio.MemorySendChannel[None]) -> None:
        """Ask one server, and take what is of use from its answer."""
        try:
            answer, scope = await self._client.ask(_dialled(ask), search.key)
        except ServerFault as fault:
            self._fault = f"{ask.address}: {fault}"
            log.debug("a DHT server did not answer: %s", self._fault)
            search.lookup.failed(ask)
        else:
            search.scopes[ask] = scope
            closer = (_server(peer, scope) for peer in answer.closer)
            records = (self._left(peer, search.day) for peer in answer.providers)
            search.lookup.answered(ask, filter(None, closer), filter(None, records))
        ended.send_nowait(None)

    def _left(self, peer: Peer, day: int) -> Contact | None:
        """The addresses that a member has left itself; None where there are none."""
        node = _node_of(peer)
        if node is None or node == self._meeting.node:
            return None
        mesh = self._meeting.mesh
        places = [(str(place.address), place.seal) for place in peer.places]
        good = [a for a, given in places if sealed_by_member(mesh, day, node, a, given)]
        ways = tuple(f"{address}/p2p/{node}" for address in good[: mesh_limits.DHT_ADDRESSES])
        return Contact(peer.id, ways) if ways else None

    # --- this node's own addresses ---------------------------------------------------------------
    async def _leave(self, search: Search) -> int:
        """Have servers keep this node's addresses; how many took them."""
        addresses = self._addresses()
        limiter = trio.CapacityLimiter(mesh_limits.DHT_PARALLEL)
        taken: list[Ask] = []

        async def put(ask: Ask) -> None:
            own = self._own(addresses, search.scopes[ask], search.day)
            try:
                async with limiter:
                    if own.places:
                        await self._client.put(_dialled(ask), search.key, own)
                        taken.append(ask)
            except ServerFault as fault:
                log.debug("%s keeps no record: %s", ask.address, fault)

        with trio.move_on_after(mesh_limits.DHT_LOOKUP_MS / 1000):
            async with trio.open_nursery() as nursery:
                for ask in search.lookup.closest():
                    nursery.start_soon(put, ask)
        return len(taken)

    def _own(self, addresses: Iterable[Address], scope: Scope, day: int) -> Peer:
        """What a server that is reached from so far is told."""
        mesh, node = self._meeting.mesh, self._meeting.node
        told = dialable(addresses, scope)[: mesh_limits.DHT_ADDRESSES]
        places = tuple(Place(a, seal(mesh, day, node, str(a))) for a in told)
        return Peer(id_bytes(node), places)

    def _addresses(self) -> list[Address]:
        return direct_addresses(self._status())


def direct_addresses(status: StatusView) -> list[Address]:
    """Where a node can be dialled directly, as far as it knows: those for most others first."""
    witnesses = status.reach.witnesses
    seen = [w.address for w in witnesses if w.outcome == "reached" and w.address]
    direct: dict[Address, None] = {}
    for text in (*seen, *status.addresses):
        try:
            direct[replace(parse(text), peer=None)] = None
        except AddressError:
            continue  # through a relay, or what a member takes for an address
    numeric = [address for address in direct if address.kind in ("ip4", "ip6")]
    return sorted(numeric, key=lambda a: -scope_of(a.host))


def dialable(addresses: Iterable[Address], scope: Scope) -> list[Address]:
    """Those that somebody who is reached from so far could dial."""
    return [address for address in addresses if scope_of(address.host) >= scope]


def _dialled(ask: Ask) -> Address:
    return replace(parse(ask.address), peer=NodeId(id_of(ask.id)))


def _node_of(peer: Peer) -> NodeId | None:
    try:
        return id_of(peer.id)
    except PeerFault:
        return None  # another kind of key, with which no handshake is done here


def _server(peer: Peer, scope: Scope) -> Contact | None:
    """Another server, at addresses from no nearer than the one that tells of it.

    A server in the world outside has no business with addresses in this machine's network.
    """
    if _node_of(peer) is None:
        return None
    addresses = tuple(map(str, dialable((place.address for place in peer.places), scope)))
    return Contact(peer.id, addresses) if addresses else None
