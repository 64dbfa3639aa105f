"""Members that find each other through servers of a DHT, honest ones and liars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import trio
import trio.testing

from meshslm import mesh_limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.kademlia_messages import KADEMLIA, Answer, Place, encode_place
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_circuit import id_bytes, read_message
from meshslm.adapters.libp2p_connection import Connection
from meshslm.adapters.libp2p_kademlia import KademliaClient, Scope, ServerFault
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.multiaddrs import Address, parse
from meshslm.adapters.protobuf import as_bytes, bytes_field, fields, framed, number_field
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import AddressFound, Event
from meshslm.core.meeting_point import DAY_S, meeting_point, seal
from meshslm.core.node import NodeCore
from meshslm.core.views import DhtView, ReachView, StatusView, WitnessView
from meshslm.daemon.dht_meeting import DhtMeeting, dialable, direct_addresses, meeting_of
from meshslm.errors import OurFault
from meshslm.ids import Instant, NodeId

MESH = bytes(range(32))
NOON = 20_000.5 * DAY_S
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
CLOSER, PROVIDERS = 8, 9

Answering = Callable[[bytes], bytes]
"""Fields of the answer to a question, beside its kind."""


def peer_field(number: int, peer: bytes, *places: Place) -> bytes:
    addresses = b"".join(bytes_field(2, encode_place(place)) for place in places)
    return bytes_field(number, bytes_field(1, peer) + addresses)


class Server:
    """Keeps records, tells of other servers, and adds whatever a test wants to its answers."""

    def __init__(self, link: Libp2pLink) -> None:
        self.link = link
        self.kept: dict[bytes, list[bytes]] = {}
        self.asked: list[bytes] = []
        self.knows: list[Server] = []
        self.answering: Answering = lambda _key: b""
        link.multiselect.add_handler(library.TProtocol(KADEMLIA), None)
        link.reach.serve = self.serve  # type: ignore[method-assign]  # the test's own server

    @property
    def address(self) -> str:
        return self.link.addresses[0]

    async def serve(self, protocol: str, connection: Connection, stream: MuxedStream) -> None:
        message = dict(fields(await read_message(stream)))
        key = as_bytes(message[2])
        if message[1] == 2:
            self.kept.setdefault(key, []).append(as_bytes(message[PROVIDERS]))
        else:
            self.asked.append(key)
            records = b"".join(bytes_field(PROVIDERS, kept) for kept in self.kept.get(key, []))
            others = b"".join(
                peer_field(CLOSER, id_bytes(o.link.node_id), Place(parse(o.address)))
                for o in self.knows
            )
            stream.negotiated()
            answer = number_field(1, 3) + self.answering(key) + others + records
            await stream.write_all(framed(answer))
        await stream.close()


class Member:
    """What of a node takes part, and what it found."""

    def __init__(self, link: Libp2pLink, *servers: str) -> None:
        self.found: list[str] = []
        self.unix_s = NOON
        self.link = link
        self.id = link.node_id
        core = NodeCore(CoreConfig(self.id, "a"), Chance.from_int(1))
        self.status: StatusView = replace(core.status(Instant(0)), addresses=link.addresses)
        self.servers = servers
        self.view = DhtView(())

    async def post(self, *events: Event) -> None:
        for event in events:
            assert isinstance(event, AddressFound)
            self.found.append(event.address)

    async def look(self) -> None:
        """One round, as at a start."""
        dht = DhtMeeting(
            meeting_of(self.id, MESH, self.servers),
            KademliaClient(self.link),
            lambda: self.status,
            Chance.from_int(2),
            lambda: self.unix_s,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dht.run, self.post)
            with trio.fail_after(20):
                while dht.view().age_ms is None:  # noqa: ASYNC110 - it has no waiters
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        self.view = dht.view()


Run = Callable[[], Awaitable[Libp2pLink]]


@pytest.fixture
async def run_link(nursery: trio.Nursery) -> AsyncIterator[Run]:
    """Starts links that hear nothing; all stop with the test."""

    async def nobody(*events: Event) -> None:
        for event in events:
            raise AssertionError(f"a server or a searcher became a peer: {event}")

    async def start() -> Libp2pLink:
        link = Libp2pLink(NodeKey.generate(), (LOOPBACK,))
        ready = trio.Event()

        async def run() -> None:
            await link.run(nobody, started=ready.set)

        nursery.start_soon(run)
        await ready.wait()
        return link

    yield start
    nursery.cancel_scope.cancel()


async def test_two_find_each_other_through_servers_that_they_do_not_share(run_link: Run) -> None:
    servers = [Server(await run_link()) for _ in range(3)]
    for server, other in ((0, 1), (1, 2), (2, 1), (1, 0)):
        servers[server].knows.append(servers[other])
    one = Member(await run_link(), servers[0].address)
    two = Member(await run_link(), servers[2].address)
    await one.look()
    assert one.found == []
    assert (one.view.answered, one.view.kept) == (3, 3)
    await two.look()
    assert two.found == list(one.link.addresses)
    await one.look()
    assert one.found == list(two.link.addresses)
    assert {key for server in servers for key in server.asked} == {meeting_point(MESH, 20_000)}


async def test_what_no_member_has_left_is_not_dialled(run_link: Run) -> None:
    """A lying server has nobody dialled: not a stranger, not a victim, not a member elsewhere."""
    server = Server(await run_link())
    one, two = Member(await run_link(), server.address), Member(await run_link(), server.address)
    await one.look()
    victim = parse("/ip4/127.0.0.1/tcp/22")
    stranger = id_bytes(NodeKey.generate().node_id)
    good = parse(one.link.addresses[0])
    right = seal(MESH, 20_000, one.id, str(replace(good, peer=None)))
    yesterday = seal(MESH, 19_999, one.id, str(replace(good, peer=None)))
    lies = [
        peer_field(PROVIDERS, stranger, Place(victim)),
        peer_field(PROVIDERS, stranger, Place(victim, right)),
        peer_field(PROVIDERS, stranger, Place(good, right)),
        peer_field(PROVIDERS, id_bytes(one.id), Place(victim, right)),
        peer_field(PROVIDERS, id_bytes(one.id), Place(good, yesterday)),
        peer_field(PROVIDERS, id_bytes(one.id), Place(good)),
        peer_field(PROVIDERS, b"no id", Place(good, right)),
        bytes_field(PROVIDERS, b""),
    ]
    server.kept.clear()
    server.answering = lambda _key: b"".join(lies)
    await two.look()
    assert two.found == []
    assert two.view.answered == 1
    server.answering = lambda _key: b"".join(
        [*lies, peer_field(PROVIDERS, id_bytes(one.id), Place(good, right))]
    )
    await two.look()
    assert two.found == [one.link.addresses[0]]


async def test_servers_that_lead_nowhere_do_not_keep_members_apart(
    run_link: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_limits, "DHT_DIALS", 30)
    honest, liar = Server(await run_link()), Server(await run_link())
    here = Place(parse(liar.address))

    def invent(_key: bytes) -> bytes:
        ids = (id_bytes(NodeKey.generate().node_id) for _ in range(60))
        return b"".join(peer_field(CLOSER, peer, here) for peer in ids)

    liar.answering = invent
    servers = (liar.address, honest.address)
    one, two = Member(await run_link(), *servers), Member(await run_link(), *servers)
    await one.look()
    await two.look()
    assert two.found == list(one.link.addresses)


async def test_garbage_and_silence_are_told_of_and_harm_nobody(
    run_link: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_limits, "DHT_ASK_MS", 200)
    server = Server(await run_link())
    server.answering = lambda _key: b"\xff"
    silent = Server(await run_link())

    async def say_nothing(protocol: str, connection: Connection, stream: MuxedStream) -> None:
        await trio.sleep_forever()

    silent.link.reach.serve = say_nothing  # type: ignore[method-assign]  # as above
    member = Member(await run_link(), server.address, silent.address)
    await member.look()
    view = member.view
    assert (view.answered, view.found, view.kept, member.found) == (0, 0, 0, [])
    assert "no answer within" in view.reason or "breaks off" in view.reason


async def test_a_server_hears_only_of_addresses_that_it_could_dial(run_link: Run) -> None:
    server = Server(await run_link())
    member = Member(await run_link(), server.address)
    relayed = f"/ip4/192.168.1.9/tcp/1/p2p/{server.link.node_id}/p2p-circuit/p2p/{member.id}"
    seen = WitnessView(member.id, "", "reached", "/ip4/9.9.9.9/tcp/7415", "", relays=False)
    told = (f"/ip4/192.168.1.7/tcp/7415/p2p/{member.id}", relayed)
    nonsense = replace(seen, address="/ip4/nowhere")
    reach = ReachView(
        witnesses=(seen, nonsense, replace(seen, outcome="failed", address="/ip4/8.8.8.8/tcp/1"))
    )
    member.status = replace(member.status, addresses=(*member.link.addresses, *told), reach=reach)
    own = direct_addresses(member.status)
    assert [str(address) for address in own] == [
        "/ip4/9.9.9.9/tcp/7415",
        "/ip4/192.168.1.7/tcp/7415",
        member.link.addresses[0].partition("/p2p/")[0],
    ]
    await member.look()
    (record,) = server.kept[meeting_point(MESH, 20_000)]
    assert len([number for number, _ in fields(record) if number == 2]) == 3
    assert dialable(own, Scope.EVERYWHERE) == own[:1]
    assert dialable(own, Scope.NETWORK) == own[:2]
    assert dialable(own, Scope.MACHINE) == own


async def test_before_midnight_the_next_days_place_is_visited_too(run_link: Run) -> None:
    server = Server(await run_link())
    one, two = Member(await run_link(), server.address), Member(await run_link(), server.address)
    one.unix_s = 20_001 * DAY_S - 60.0
    await one.look()
    assert set(server.kept) == {meeting_point(MESH, day) for day in (20_000, 20_001)}
    two.unix_s = 20_001 * DAY_S + 60.0
    await two.look()
    assert two.found == list(one.link.addresses)


class CountingClient(KademliaClient):
    """Nobody answers it; when it asked."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def ask(self, server: Address, key: bytes) -> tuple[Answer, Scope]:
        self.times.append(trio.current_time())
        raise ServerFault("not today")


async def test_who_is_alone_looks_again_soon_and_who_has_moved_says_so(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    node, server = (NodeKey.generate().node_id for _ in range(2))
    status = NodeCore(CoreConfig(node, "a"), Chance.from_int(1)).status(Instant(0))
    meeting = meeting_of(node, MESH, (f"/ip4/192.0.2.1/tcp/4001/p2p/{server}",))
    client = CountingClient()
    dht = DhtMeeting(meeting, client, lambda: status, Chance.from_int(2), lambda: NOON)

    async def post(*events: Event) -> None:
        for event in events:
            raise AssertionError(event)

    async def asked(times: int) -> list[float]:
        while len(client.times) < times:  # noqa: ASYNC110 - the clock is the test's own
            await trio.sleep(1)
        moments = client.times[:times]
        return [after - before for before, after in pairwise(moments)]

    nursery.start_soon(dht.run, post)
    gaps = await asked(10)
    assert gaps[0] <= 13
    assert all(one <= 600 + 3 for one in gaps)
    assert gaps[-1] >= 300
    assert dht.view().reason.endswith("not today")
    status = replace(status, peers_alive=1)
    gaps = await asked(12)
    assert 2700 <= gaps[-1] <= 4500 + 3
    status = replace(status, addresses=(f"/ip4/192.0.2.9/tcp/1/p2p/{node}",))
    gaps = await asked(13)
    assert gaps[-1] <= 13
    nursery.cancel_scope.cancel()


def test_servers_of_an_open_mesh_or_without_an_id_are_refused() -> None:
    node = NodeId("a")
    with pytest.raises(OurFault, match="private meshes"):
        meeting_of(node, None, ())
    for server, why in (
        ("/ip4/192.0.2.1/tcp/4001", "ends in /p2p/ID"),
        ("/ip4/192.0.2.1/udp/4001", "not of the form"),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{'Qm' + 'a' * 44}", "Ed25519"),
        ("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW" + "z" * 100, "link.dht"),
    ):
        with pytest.raises(OurFault, match=why):
            meeting_of(node, MESH, (server,))
