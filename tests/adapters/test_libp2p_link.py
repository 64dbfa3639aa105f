"""What the real link does beyond the contract: sockets, addresses, the library, other hosts."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import psutil
import pytest
import trio
import trio.testing

from meshslm import limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_connection import LinkTimings
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.multiaddrs import Address, AddressError, parse, reachable
from meshslm.core.events import (
    AddressesChanged,
    DialFailed,
    Event,
    Lane,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.errors import OurFault

if TYPE_CHECKING:
    from tests.adapters.conftest import Node, StartLibp2p

    Connect = Callable[[Node, Node], Awaitable[None]]

ROOT = Path(__file__).parents[2]


async def refused_start(*listen: str) -> str:
    """The error of a node that cannot listen."""

    async def post(*events: Event) -> None:
        for event in events:
            raise AssertionError(event)

    with pytest.raises(OurFault) as caught:
        await Libp2pLink(NodeKey.generate(), listen).run(post, started=lambda: None)
    return str(caught.value)


# --- listening ----------------------------------------------------------------------------------
async def test_a_port_in_use_is_refused_and_named(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    address = str(parse(node.address.partition("/p2p/")[0]))
    complaint = await refused_start("/ip4/127.0.0.1/tcp/0", address)
    assert complaint.startswith(f"cannot listen at {address}: it is in use")


async def test_a_port_shared_by_another_program_is_refused_too() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert "it is in use" in await refused_start(f"/ip4/127.0.0.1/tcp/{port}")


async def test_an_address_of_another_machine_is_refused() -> None:
    assert "no interface" in await refused_start("/ip4/192.0.2.1/tcp/0")


async def test_what_is_no_address_cannot_be_listened_at() -> None:
    with pytest.raises(OurFault, match="cannot listen there"):
        Libp2pLink(NodeKey.generate(), ("localhost:4101",))


async def test_the_port_is_free_at_once_after_stopping(
    start_libp2p: StartLibp2p, connect: Connect
) -> None:
    key, node, peer = NodeKey.generate(), await start_libp2p(), await start_libp2p()
    await connect(peer, node)
    listen = node.address.partition("/p2p/")[0]
    await node.stop()
    await peer.expect(PeerDisconnected)
    again = await start_libp2p(key=key, listen=(listen,))
    await connect(peer, again)


async def test_a_stopped_node_leaves_no_socket_open(
    start_libp2p: StartLibp2p, connect: Connect
) -> None:
    process = psutil.Process()
    before = process.num_fds()
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    one.link.dial("/ip4/127.0.0.1/tcp/1")
    await one.expect(DialFailed)
    await one.stop()
    await two.stop()
    assert process.num_fds() == before


async def test_a_wildcard_is_announced_as_the_interfaces_have_it(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p(listen=("/ip4/0.0.0.0/tcp/0",))
    addresses = [parse(address) for address in node.link.addresses]
    assert "0.0.0.0" not in [address.host for address in addresses]
    assert addresses[-1].host == "127.0.0.1"
    other = await start_libp2p()
    other.link.dial(str(addresses[-1]))
    assert (await other.expect(PeerConnected)).peer == node.id


async def test_addresses_that_come_and_go_are_told_of(
    start_libp2p: StartLibp2p, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_libp2p(timings=LinkTimings(addresses=0.02))
    moved = Address("ip4", "192.0.2.9", 1)
    monkeypatch.setattr("meshslm.adapters.libp2p_listening.reachable", lambda _: [moved])
    told = await node.expect(AddressesChanged)
    assert told.addresses == (f"/ip4/192.0.2.9/tcp/1/p2p/{node.id}",) == node.link.addresses


async def test_ipv6(start_libp2p: StartLibp2p, connect: Connect) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    one, two = await start_libp2p(), await start_libp2p(listen=("/ip6/::1/tcp/0",))
    assert two.address.startswith("/ip6/::1/tcp/")
    await connect(one, two)


# --- dialling -----------------------------------------------------------------------------------
async def test_a_name_can_be_dialled(start_libp2p: StartLibp2p) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    address = two.address.replace("/ip4/127.0.0.1/", "/dns4/localhost/")
    one.link.dial(address)
    assert await one.expect(PeerConnected) == PeerConnected(two.id, address)


async def test_a_bootstrap_address_needs_no_id(start_libp2p: StartLibp2p) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    address = two.address.partition("/p2p/")[0]
    one.link.dial(address)
    assert await one.expect(PeerConnected) == PeerConnected(two.id, address)
    one.link.dial(address)
    assert await one.expect(DialFailed) == DialFailed(address, "already connected", two.id)
    one.link.send(two.id, Lane.CONTROL, b"still one link")
    await two.expect(PeerConnected)
    assert await two.receive() == b"still one link"
    assert not two.events


async def test_its_own_bootstrap_address_fails(start_libp2p: StartLibp2p) -> None:
    node = await start_libp2p()
    node.link.dial(node.address.partition("/p2p/")[0])
    assert "itself" in (await node.expect(DialFailed)).reason


async def test_a_full_node_dials_nobody(
    start_libp2p: StartLibp2p, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 1)
    one, two, three = await start_libp2p(), await start_libp2p(), await start_libp2p()
    await connect(one, two)
    one.link.dial(three.address)
    assert "1 connections" in (await one.expect(DialFailed)).reason
    three.link.dial(one.address)
    assert (await three.expect(DialFailed)).address == one.address


async def test_an_urgent_message_waits_for_one_write_at_most(
    start_libp2p: StartLibp2p, connect: Connect
) -> None:
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    for _ in range(3):
        one.link.send(two.id, Lane.BACKGROUND, b"b" * limits.MIB)
    assert len(await two.receive()) == limits.MIB  # so the rest is on its way
    one.link.send(two.id, Lane.CONTROL, b"urgent")
    assert [len(await two.receive()) for _ in range(3)] != [limits.MIB, limits.MIB, 6]


async def overtaken_by_tokens(one: Node, two: Node) -> list[int]:
    """Pieces of bulk that arrive between the sending of each token and its arrival."""
    overtaken = []
    for number in range(60):
        token = b"token %d" % number
        one.link.send(two.id, Lane.INTERACTIVE, token)
        bulk = 0
        while (message := await two.receive()) != token:
            bulk += 1
            one.link.send(two.id, Lane.BACKGROUND, message)  # as much waits as before
        overtaken.append(bulk)
    return overtaken


async def test_tokens_do_not_wait_for_the_bulk_before_them(
    start_libp2p: StartLibp2p, connect: Connect
) -> None:
    """Counted in bulk that arrives between a token's sending and its arrival, not in time."""
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    piece, waiting = 64 * limits.KIB, 3 * limits.MIB
    for _ in range(waiting // piece):
        one.link.send(two.id, Lane.BACKGROUND, b"b" * piece)
    overtaken = await overtaken_by_tokens(one, two)
    assert sum(overtaken) * piece > limits.MIB, "bulk flows all the time"
    assert sorted(overtaken)[30] * piece <= waiting / 4
    assert max(overtaken) * piece < waiting


# --- addresses ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/10.0.0.1/tcp/4101", Address("ip4", "10.0.0.1", 4101)),
        ("/ip6/2001:db8::1/tcp/1", Address("ip6", "2001:db8::1", 1)),
        ("/dns/node-1.example.org/tcp/65535", Address("dns", "node-1.example.org", 65535)),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address) -> None:
    assert parse(text) == address
    assert str(address) == text
    key = NodeKey.generate()
    assert parse(f"{text}/p2p/{key.node_id}").peer == key.node_id


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/10.0.0.1",
        "/ip4/10.0.0.256/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/10.0.0.1/tcp/1",
        "/ip4/10.0.0.1/tcp/65536",
        "/ip4/10.0.0.1/tcp/-1",
        "/ip4/10.0.0.1/tcp/1/p2p/",
        "/ip4/10.0.0.1/tcp/1/p2p/../../etc",
        "/ip4/10.0.0.1/tcp/1/p2p/12D3/p2p-circuit",
        "/ip4/10.0.0.1/tcp/1/ws",
        "/dns/a b/tcp/1",
        "/dns/-a/tcp/1",
        "ip4/10.0.0.1/tcp/1",
        "/ip4/10.0.0.1/tcp/1\n",
        "x" * 10_000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text)


def test_only_wildcards_are_expanded() -> None:
    assert reachable(Address("ip4", "127.0.0.1", 1)) == [Address("ip4", "127.0.0.1", 1)]
    assert Address("ip4", "127.0.0.1", 7) in reachable(Address("ip4", "0.0.0.0", 7))


# --- the library --------------------------------------------------------------------------------
def test_loading_the_link_loads_no_other_transport() -> None:
    program = (
        "import sys, psutil\n"
        "import trio, cryptography\n"
        "before = psutil.Process().memory_info().rss\n"
        "import meshslm.adapters.libp2p_link\n"
        "grown = psutil.Process().memory_info().rss - before\n"
        "heavy = {'aioquic', 'grpc', 'aiortc', 'fastecdsa', 'zeroconf', 'libp2p.host.basic_host'}\n"
        "print(sorted(heavy & set(sys.modules)), grown // 2**20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    heavy, _, grown = done.stdout.rpartition(" ")
    assert heavy == "[]"
    assert int(grown) < 40  # MiB; 26 measured, 83 for the whole library


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "libp2p"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.9.0")
    with pytest.raises(OurFault, match=r"0\.9\.0 is installed"):
        library._open()


class StockHost:
    """A host of the library itself, whole and in a process of its own."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        text = b""
        with trio.fail_after(60):
            while not text.endswith(b"\n"):
                piece = await self.process.stdout.receive_some(1)
                assert piece, "the stock host ended"
                text += piece
        return text.decode().strip()


@pytest.fixture
async def stock_host(nursery: trio.Nursery) -> StockHost:
    command = [sys.executable, "-m", "tests.adapters.stock_host"]
    run = partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, cwd=ROOT, check=False)
    return StockHost(await nursery.start(run))


async def test_a_stock_libp2p_host_dials_and_is_dialled(
    start_libp2p: StartLibp2p, stock_host: StockHost, nursery: trio.Nursery
) -> None:
    node = await start_libp2p(timings=LinkTimings(dial=30, handshake=30, stream=30))
    address = await stock_host.line()
    node.link.dial(address)
    connected = await node.expect(PeerConnected)
    for message in (b"a small one", bytes(200_000)):
        node.link.send(connected.peer, Lane.INTERACTIVE, message)
        assert await node.receive() == message
    node.link.disconnect(connected.peer, "now the other way")
    await node.expect(PeerDisconnected)
    assert stock_host.process.stdin is not None
    await stock_host.process.stdin.send_all(f"{node.address}\n".encode())
    with trio.fail_after(30):
        assert (await node.expect(PeerConnected)).address == ""
    assert await node.receive() == b"from the stock host"
    stock_host.process.kill()
