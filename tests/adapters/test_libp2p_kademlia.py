"""A DHT's client against servers that lie, break off, say nothing or want more than was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from meshslm import mesh_limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.kademlia_messages import KADEMLIA, Peer, Place
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_circuit import id_bytes, read_message
from meshslm.adapters.libp2p_connection import Connection
from meshslm.adapters.libp2p_kademlia import KademliaClient, Scope, ServerFault, scope_of
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.multiaddrs import Address, parse
from meshslm.adapters.protobuf import as_bytes, fields, framed, number_field
from meshslm.wire.versions import PROTOCOL_ID
from tests.adapters.conftest import Node, StartLibp2p

KEY = b"\x12\x20" + bytes(32)
EMPTY = number_field(1, 3)
SEALED = Place(parse("/ip4/192.0.2.7/tcp/7415"), b"\x12\x20" + bytes(32))

Serve = Callable[[Connection, MuxedStream], Awaitable[None]]


class Server:
    """One that does on each stream of the DHT's protocol what a test wants."""

    def __init__(self, node: Node, serve: Serve) -> None:
        self.node = node
        self.address: Address = parse(node.address)
        assert isinstance(node.link, Libp2pLink)
        node.link.multiselect.add_handler(library.TProtocol(KADEMLIA), None)

        async def answer(protocol: str, connection: Connection, stream: MuxedStream) -> None:
            stream.negotiated()
            await serve(connection, stream)

        node.link.reach.serve = answer  # type: ignore[method-assign]  # the test's own server


class Pair:
    """A client, and what starts servers."""

    def __init__(self, start: StartLibp2p, own: Node) -> None:
        self._start = start
        self.own = own
        assert isinstance(own.link, Libp2pLink)
        self.client = KademliaClient(own.link)

    async def server(self, serve: Serve) -> Server:
        return Server(await self._start(), serve)


@pytest.fixture
async def pair(start_libp2p: StartLibp2p) -> Pair:
    return Pair(start_libp2p, await start_libp2p())


def saying(raw: bytes) -> Serve:
    async def say(_: Connection, stream: MuxedStream) -> None:
        await read_message(stream)
        await stream.write_all(raw)
        await stream.close()

    return say


async def test_a_question_is_answered_and_the_connection_closed(pair: Pair) -> None:
    asked: list[bytes] = []
    connections: list[Connection] = []

    async def serve(connection: Connection, stream: MuxedStream) -> None:
        connections.append(connection)
        asked.append(await read_message(stream))
        await stream.write_all(framed(EMPTY))

    server = await pair.server(serve)
    answer, scope = await pair.client.ask(server.address, KEY)
    assert (answer.closer, answer.providers, scope) == ((), (), Scope.MACHINE)
    assert dict(fields(asked[0])) == {1: 3, 2: KEY}
    with trio.fail_after(5):
        await connections[0].ended.wait()
    assert not server.node.events, "it was never a peer"
    assert not pair.own.events


async def test_a_record_names_this_node_alone(pair: Pair) -> None:
    put: list[bytes] = []

    async def serve(_: Connection, stream: MuxedStream) -> None:
        put.append(await read_message(stream))
        await stream.close()

    server = await pair.server(serve)
    await pair.client.put(server.address, KEY, Peer(id_bytes(pair.own.id), (SEALED,)))
    found = dict(fields(put[0]))
    assert (found[1], found[2]) == (2, KEY)
    provider = dict(fields(as_bytes(found[9])))
    assert provider[1] == id_bytes(pair.own.id)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "without a length"),
        (framed(b"\xff"), "breaks off"),
        (b"\x05\x08", "breaks off"),
        (framed(number_field(1, 2)), "another question"),
        (b"\xff\xff\xff\xff\xff", "without a length"),
        (framed(bytes(mesh_limits.DHT_MESSAGE_BYTES + 1))[:100], "are enough"),
    ],
)
async def test_a_bad_answer_is_a_fault_of_the_server(pair: Pair, raw: bytes, why: str) -> None:
    server = await pair.server(saying(raw))
    with pytest.raises(ServerFault, match=why):
        await pair.client.ask(server.address, KEY)


async def test_a_server_that_says_nothing_is_left(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: Connection, stream: MuxedStream) -> None:
        await stream.read()
        await trio.sleep_forever()

    monkeypatch.setattr(mesh_limits, "DHT_ASK_MS", 200)
    server = await pair.server(nothing)
    with trio.fail_after(5), pytest.raises(ServerFault, match="no answer within"):
        await pair.client.ask(server.address, KEY)


async def test_a_server_that_drips_is_left_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(_: Connection, stream: MuxedStream) -> None:
        await stream.write_all(b"\xff\x7f")
        while True:
            await stream.write_all(b"\0")
            await trio.sleep(0.01)

    monkeypatch.setattr(mesh_limits, "DHT_ASK_MS", 200)
    server = await pair.server(drip)
    with trio.fail_after(5), pytest.raises(ServerFault, match="no answer within"):
        await pair.client.ask(server.address, KEY)


async def test_who_has_another_id_or_another_protocol_is_no_server(
    pair: Pair, start_libp2p: StartLibp2p
) -> None:
    server = await pair.server(saying(framed(EMPTY)))
    other = NodeKey.generate().node_id
    with pytest.raises(ServerFault, match="another node answers"):
        await pair.client.ask(Address("ip4", "127.0.0.1", server.address.port, other), KEY)
    plain = await start_libp2p()
    with pytest.raises(ServerFault, match="does not answer"):
        await pair.client.ask(parse(plain.address), KEY)
    await plain.stop()
    with pytest.raises(ServerFault, match="refused"):
        await pair.client.ask(parse(plain.address), KEY)


async def test_a_server_that_took_a_record_may_reset_the_stream(pair: Pair) -> None:
    async def take(_: Connection, stream: MuxedStream) -> None:
        await stream.write(framed(await read_message(stream)))
        stream.reset()  # in one packet with what was said

    server = await pair.server(take)
    await pair.client.put(server.address, KEY, Peer(id_bytes(pair.own.id), (SEALED,)))


async def test_a_server_that_refuses_a_record_is_told_of(pair: Pair) -> None:
    async def refuse(_: Connection, stream: MuxedStream) -> None:
        await read_message(stream)
        stream.reset()

    server = await pair.server(refuse)
    with pytest.raises(ServerFault, match="refused the record"):
        await pair.client.put(server.address, KEY, Peer(id_bytes(pair.own.id), (SEALED,)))


@pytest.mark.parametrize("protocol", [PROTOCOL_ID, KADEMLIA])
async def test_a_server_gets_no_stream_of_its_own(pair: Pair, protocol: str) -> None:
    """Above all not one of the mesh's: that connection is for one message."""
    outcome: list[str] = []

    async def grasp(connection: Connection, stream: MuxedStream) -> None:
        await read_message(stream)
        own = connection.open_stream()
        try:
            await library.MultiselectClient().select_one_of(
                (library.TProtocol(protocol),), library.MultiselectCommunicator(own), 2
            )
            outcome.append("agreed")
        except Exception as error:  # noqa: BLE001 - the library raises many things
            outcome.append(f"refused: {error}")
        await stream.write_all(framed(EMPTY))

    server = await pair.server(grasp)
    await pair.client.ask(server.address, KEY)
    assert len(outcome) == 1
    assert outcome[0].startswith("refused")
    assert not pair.own.events


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("127.0.0.1", Scope.MACHINE),
        ("::1", Scope.MACHINE),
        ("192.168.1.7", Scope.NETWORK),
        ("100.64.0.1", Scope.NETWORK),
        ("169.254.1.1", Scope.NETWORK),
        ("fd00::1", Scope.NETWORK),
        ("93.184.216.34", Scope.EVERYWHERE),
        ("2606:2800:220:1::1", Scope.EVERYWHERE),
    ],
)
def test_an_address_tells_from_where_it_can_be_dialled(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope
