"""What every link promises, on each adapter of the port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from meshslm import limits
from meshslm.adapters.keyring import NodeKey
from meshslm.core.events import (
    BytesReceived,
    DialFailed,
    Lane,
    PeerConnected,
    PeerDisconnected,
)

if TYPE_CHECKING:
    from tests.adapters.conftest import Node

    StartNode = Callable[[], Awaitable[Node]]
    Connect = Callable[[Node, Node], Awaitable[None]]


async def test_messages_go_both_ways(start_node: StartNode, connect: Connect) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    one.link.send(two.id, Lane.CONTROL, b"there")
    assert await two.expect(BytesReceived) == BytesReceived(one.id, b"there")
    two.link.send(one.id, Lane.CONTROL, b"and back")
    assert await one.expect(BytesReceived) == BytesReceived(two.id, b"and back")


async def test_addresses_end_in_the_node_id(start_node: StartNode) -> None:
    node = await start_node()
    assert node.link.addresses
    assert all(address.endswith(f"/p2p/{node.id}") for address in node.link.addresses)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 262_145, limits.MIB, limits.MESSAGE_BYTES])
async def test_messages_of_every_size_arrive_whole(
    start_node: StartNode, connect: Connect, size: int
) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    message = bytes(index * 7 % 251 for index in range(size))
    one.link.send(two.id, Lane.BACKGROUND, message)
    assert await two.receive() == message


async def test_each_lane_keeps_its_order(start_node: StartNode, connect: Connect) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    for number in range(600):
        one.link.send(two.id, Lane(number % 3), b"%d," % number + bytes(number * 10))
    received = [int((await two.receive()).partition(b",")[0]) for _ in range(600)]
    for lane in Lane:
        assert [number for number in received if number % 3 == lane] == list(range(lane, 600, 3))


async def test_urgent_messages_overtake_large_ones(start_node: StartNode, connect: Connect) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    for _ in range(3):
        one.link.send(two.id, Lane.BACKGROUND, b"b" * limits.MIB)
    one.link.send(two.id, Lane.CONTROL, b"urgent")
    order = [(await two.receive())[:1] for _ in range(4)]
    assert order.index(b"u") < 3


async def test_control_goes_before_answers_and_these_before_the_background(
    start_node: StartNode, connect: Connect
) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    piece = 16 * limits.KIB
    for lane, count in ((Lane.BACKGROUND, 4), (Lane.INTERACTIVE, 90), (Lane.CONTROL, 3)):
        for _ in range(count):
            one.link.send(two.id, lane, bytes([lane]) * piece)
    order = [Lane((await two.receive())[0]) for _ in range(97)]
    assert order[:3] == [Lane.CONTROL] * 3
    assert Lane.BACKGROUND not in order[3:15]
    behind = order.index(Lane.BACKGROUND, 3)
    assert order[behind + 1 : behind + 12] == [Lane.INTERACTIVE] * 11


async def test_the_background_has_its_share_while_answers_never_end(
    start_node: StartNode, connect: Connect
) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    piece = 16 * limits.KIB
    one.link.send(two.id, Lane.BACKGROUND, b"b" * piece)
    for number in range(400):  # there is always an answer waiting
        for _ in range(20 if not number else 1):
            one.link.send(two.id, Lane.INTERACTIVE, b"i" * piece)
        if (await two.receive())[:1] == b"b":
            return
    raise AssertionError("the background starves")


@pytest.mark.parametrize("closer", [0, 1])
async def test_either_side_can_disconnect(
    start_node: StartNode, connect: Connect, closer: int
) -> None:
    nodes = [await start_node(), await start_node()]
    await connect(nodes[0], nodes[1])
    closing, other = nodes[closer], nodes[1 - closer]
    closing.link.send(other.id, Lane.CONTROL, b"goodbye")
    closing.link.disconnect(other.id, "no longer wanted")
    assert await other.receive() == b"goodbye"
    assert (await other.expect(PeerDisconnected)).peer == closing.id
    assert await closing.expect(PeerDisconnected) == PeerDisconnected(other.id, "no longer wanted")
    closing.link.send(other.id, Lane.CONTROL, b"too late")
    await connect(nodes[0], nodes[1])
    assert not other.events
    assert not closing.events


async def test_a_peer_can_be_dialled_as_soon_as_its_end_is_known(
    start_node: StartNode, connect: Connect
) -> None:
    one, two = await start_node(), await start_node()
    for _ in range(5):
        await connect(one, two)
        two.link.disconnect(one.id, "again")
        await one.expect(PeerDisconnected)
        await two.expect(PeerDisconnected)
    assert not one.events
    assert not two.events


async def test_nobody_listening_fails_the_dial(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    address = two.address
    await two.stop()
    one.link.dial(address)
    failed = await one.expect(DialFailed)
    assert failed.address == address
    assert "refused" in failed.reason


async def test_another_node_answering_fails_the_dial(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    expected = NodeKey.generate().node_id
    address = two.address.replace(f"/p2p/{two.id}", f"/p2p/{expected}")
    one.link.dial(address)
    failed = await one.expect(DialFailed)
    assert failed.address == address
    assert "another node answers" in failed.reason
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert not two.events


async def test_dialling_itself_fails(start_node: StartNode) -> None:
    node = await start_node()
    node.link.dial(node.address)
    assert "itself" in (await node.expect(DialFailed)).reason


@pytest.mark.parametrize("address", ["", "nonsense", "/ip4/1.2.3.4/udp/9", "/ip4/300.1.1.1/tcp/1"])
async def test_what_is_no_address_fails_the_dial(start_node: StartNode, address: str) -> None:
    node = await start_node()
    node.link.dial(address)
    assert (await node.expect(DialFailed)).address == address


async def test_dialling_a_connected_peer_changes_nothing(
    start_node: StartNode, connect: Connect
) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    one.link.dial(two.address)
    assert await one.expect(DialFailed) == DialFailed(two.address, "already connected", two.id)
    two.link.send(one.id, Lane.CONTROL, b"still here")
    assert await one.receive() == b"still here"
    assert not two.events


async def test_two_nodes_that_dial_each_other_have_one_link(start_node: StartNode) -> None:
    for _ in range(10):
        one, two = await start_node(), await start_node()
        one.link.dial(two.address)
        two.link.dial(one.address)
        await one.expect(PeerConnected)
        await two.expect(PeerConnected)
        for number in range(20):
            one.link.send(two.id, Lane.CONTROL, b"%d" % number)
            two.link.send(one.id, Lane.CONTROL, b"%d" % number)
        for number in range(20):
            assert await one.receive() == b"%d" % number
            assert await two.receive() == b"%d" % number
        await trio.testing.wait_all_tasks_blocked(0.05)
        dials = {DialFailed(one.address, "already connected", one.id)}
        dials.add(DialFailed(two.address, "already connected", two.id))
        assert set(one.events + two.events) <= dials
        assert len(one.events + two.events) <= 1
        await one.stop()
        await two.stop()


async def test_dials_at_the_same_time_make_one_link(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    for _ in range(5):
        one.link.dial(two.address)
        two.link.dial(one.address)
    ours, theirs = await one.expect(PeerConnected), await two.expect(PeerConnected)
    one.link.send(two.id, Lane.CONTROL, b"one link")
    assert await two.receive() == b"one link"
    for node, peer, connected in ((one, two, ours), (two, one, theirs)):
        for _ in range(5 - bool(connected.address)):  # every dial has an outcome
            lost = DialFailed(peer.address, "already connected", peer.id)
            assert await node.expect(DialFailed) == lost
        assert not node.events


async def test_a_slow_core_loses_nothing(start_node: StartNode, connect: Connect) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    open_gate = trio.Event()
    two.gate = open_gate.wait
    messages = [b"%6d" % number + bytes(20_000) for number in range(190)]
    for message in messages:
        one.link.send(two.id, Lane.INTERACTIVE, message)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert not two.events
    open_gate.set()
    for message in messages:
        assert await two.receive() == message


async def test_a_peer_that_reads_nothing_is_cut_off_at_the_bound(
    start_node: StartNode, connect: Connect
) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    two.gate = trio.Event().wait
    for _ in range(limits.LANE_QUEUE_BYTES // limits.MIB + 1):
        one.link.send(two.id, Lane.BACKGROUND, bytes(limits.MIB))
    assert "slowly" in (await one.expect(PeerDisconnected)).reason


async def test_a_peer_that_stops_is_noticed(start_node: StartNode, connect: Connect) -> None:
    one, two = await start_node(), await start_node()
    await connect(one, two)
    await two.stop()
    assert (await one.expect(PeerDisconnected)).peer == two.id


async def test_sending_to_a_stranger_has_no_effect(start_node: StartNode) -> None:
    node = await start_node()
    node.link.send(NodeKey.generate().node_id, Lane.CONTROL, b"anybody?")
    node.link.disconnect(NodeKey.generate().node_id, "who?")
    await trio.testing.wait_all_tasks_blocked()
    assert not node.events
