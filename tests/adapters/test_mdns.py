"""Discovery on the local network: two nodes find each other on loopback, strangers are ignored."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from functools import partial

import pytest
import trio
import zeroconf
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.mdns import (
    ASKS,
    SERVICE,
    MdnsDiscovery,
    announceable,
    found_addresses,
    txt_record,
)
from meshslm.core.events import AddressFound, Event

LOOPBACK = ("127.0.0.1",)
OWN = NodeKey.generate().node_id
OTHER = NodeKey.generate().node_id


def multicast_works_on_loopback() -> bool:
    group, port = "224.0.0.251", 53_535
    membership = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.settimeout(1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            probe.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            probe.sendto(b"probe", (group, port))
            return probe.recv(16) == b"probe"
        except OSError:
            return False


class Listener:
    def __init__(self) -> None:
        self.found: set[str] = set()
        self.news = trio.Event()

    async def post(self, *events: Event) -> None:
        for event in events:
            assert isinstance(event, AddressFound)
            self.found.add(event.address)
            self.news.set()

    async def hears(self, address: str) -> None:
        with trio.fail_after(20):
            while address not in self.found:
                self.news = trio.Event()
                await self.news.wait()


async def test_two_nodes_find_each_other_and_no_stranger(nursery: trio.Nursery) -> None:
    if not multicast_works_on_loopback():
        pytest.skip("multicast on the loopback interface does not work on this machine")
    meshes = {"one": "home", "two": "home", "stranger": "elsewhere"}
    listeners = {name: Listener() for name in meshes}
    addresses = {}
    for port, (name, mesh) in enumerate(meshes.items(), start=4101):
        key = NodeKey.generate()
        addresses[name] = f"/ip4/127.0.0.1/tcp/{port}/p2p/{key.node_id}"
        announced = partial(tuple[str, ...], (addresses[name],))
        discovery = MdnsDiscovery(key.node_id, mesh, announced, interfaces=LOOPBACK)
        nursery.start_soon(discovery.run, listeners[name].post)
    await listeners["one"].hears(addresses["two"])
    await listeners["two"].hears(addresses["one"])
    assert listeners["one"].found == {addresses["two"]}
    assert listeners["two"].found == {addresses["one"]}
    assert not listeners["stranger"].found
    nursery.cancel_scope.cancel()


async def test_made_up_names_keep_nobody_from_being_found(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshslm.adapters.mdns.ASK_MS", 300)
    if not multicast_works_on_loopback():
        pytest.skip("no multicast on loopback here")
    address = f"/ip4/127.0.0.1/tcp/4101/p2p/{OTHER}"
    listener = Listener()
    here = MdnsDiscovery(OWN, "home", lambda: (), interfaces=LOOPBACK)
    nursery.start_soon(here.run, listener.post)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar, trio.fail_after(20):
        liar.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        while not here._asked:
            liar.sendto(made_up(20), ("224.0.0.251", 5353))
            await trio.sleep(0.1)
        for _ in range(20):
            liar.sendto(made_up(20), ("224.0.0.251", 5353))
    there = MdnsDiscovery(OTHER, "home", lambda: (address,), interfaces=LOOPBACK)
    nursery.start_soon(there.run, Listener().post)
    await listener.hears(address)
    assert len(here._asked) <= ASKS
    nursery.cancel_scope.cancel()


def made_up(count: int) -> bytes:
    """A packet with names of services that nobody has."""
    packet = struct.pack(">6H", 0, 0x8400, 0, count, 0, 0)  # RFC 1035, 4.1.1: an answer
    for _ in range(count):
        name = dns_name(f"{NodeKey.generate().node_id[-40:].lower()}.{SERVICE}")
        packet += dns_name(SERVICE) + struct.pack(">2HIH", 12, 1, 4500, len(name)) + name
    return packet


def dns_name(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))


async def test_a_node_that_moves_is_announced_anew(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not multicast_works_on_loopback():
        pytest.skip("multicast on the loopback interface does not work on this machine")
    monkeypatch.setattr("meshslm.adapters.mdns.LOOK_AGAIN_S", 0.1)
    key, listener = NodeKey.generate(), Listener()
    before, now = (f"/ip4/127.0.0.1/tcp/{port}/p2p/{key.node_id}" for port in (4301, 4302))
    places = [before]
    moving = MdnsDiscovery(key.node_id, "moving", lambda: tuple(places), interfaces=LOOPBACK)
    still = MdnsDiscovery(NodeKey.generate().node_id, "moving", tuple, interfaces=LOOPBACK)
    nursery.start_soon(still.run, listener.post)
    nursery.start_soon(moving.run, Listener().post)
    await listener.hears(before)
    places[:] = [now]
    await listener.hears(now)
    nursery.cancel_scope.cancel()


def multicast_works_on_ipv6_loopback() -> bool:
    group, port = "ff02::fb", 53_536
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            loopback = socket.if_nametoindex("lo")
            probe.settimeout(1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::", port))
            membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", loopback)
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, loopback)
            probe.sendto(b"probe", (group, port))
            return probe.recv(16) == b"probe"
        except OSError:
            return False


async def test_two_nodes_find_each_other_where_there_is_only_ipv6(nursery: trio.Nursery) -> None:
    if not multicast_works_on_ipv6_loopback():
        pytest.skip("IPv6 multicast on the loopback interface does not work on this machine")
    listeners, addresses = [Listener(), Listener()], []
    for port, listener in enumerate(listeners, start=4201):
        key = NodeKey.generate()
        addresses.append(f"/ip6/::1/tcp/{port}/p2p/{key.node_id}")
        announced = partial(tuple[str, ...], (addresses[-1],))
        discovery = MdnsDiscovery(key.node_id, "six", announced, interfaces=("::1",))
        nursery.start_soon(discovery.run, listener.post)
    await listeners[0].hears(addresses[1])
    await listeners[1].hears(addresses[0])
    nursery.cancel_scope.cancel()


def no_network(**options: object) -> None:
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


@pytest.mark.parametrize("interfaces", [("192.0.2.1",), LOOPBACK])
async def test_a_network_without_multicast_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, interfaces: tuple[str, ...]
) -> None:
    async def post(*events: Event) -> None:
        for event in events:
            raise AssertionError(event)

    monkeypatch.setattr(zeroconf, "Zeroconf", no_network)
    discovery = MdnsDiscovery(OWN, "home", tuple, interfaces=interfaces)
    with caplog.at_level(logging.WARNING, logger="meshslm.mdns"), trio.fail_after(10):
        await discovery.run(post)
    assert "not discovered" in caplog.text


def test_a_record_is_read_as_it_was_written() -> None:
    addresses = [f"/ip4/10.0.0.{number}/tcp/4101/p2p/{OTHER}" for number in range(3)]
    record = txt_record("home", addresses)
    assert found_addresses(record, "home", OWN) == addresses
    assert found_addresses(record, "hom", OWN) == []
    assert found_addresses(record, "home", OTHER) == []


def test_what_a_stranger_announces_is_bounded_and_checked() -> None:
    good = f"/ip4/10.0.0.1/tcp/4101/p2p/{OTHER}"
    bad = ["/ip4/10.0.0.1/tcp/4101", f"/ip4/999.0.0.1/tcp/1/p2p/{OTHER}", "\xff", "", "x" * 300]
    assert found_addresses(txt_record("home", [*bad, good]), "home", OWN) == [good]
    many = [good] * 100
    assert len(found_addresses(txt_record("home", many), "home", OWN)) == limits.ADDRESSES_PER_PEER


@given(st.binary(max_size=600))
def test_garbage_finds_nothing(record: bytes) -> None:
    assert found_addresses(record, "home", OWN) == []
    assert found_addresses(txt_record("home", []) + record, "home", OWN) == []


def test_loopback_is_announced_on_loopback_only() -> None:
    local, lan = f"/ip4/127.0.0.1/tcp/1/p2p/{OWN}", f"/ip4/10.0.0.1/tcp/1/p2p/{OWN}"
    assert [str(address) for address in announceable((local, lan), ())] == [lan]
    assert [str(address) for address in announceable((local, lan), LOOPBACK)] == [local]
