"""Relays of the simulated network: places, circuits, what ends them, and boxes that are opened."""

from __future__ import annotations

import pytest

from meshslm import limits
from meshslm.core.events import Dial, DialFailed, Lane, PeerConnected, PeerDisconnected, Send
from meshslm.core.reach_events import DialTried, NotReserved, PunchTo, Reserve, Reserved, TryDial
from meshslm.core.ways import CIRCUIT, host_of
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.relays import Relays
from meshslm.sim.scenario import Network
from meshslm.sim.topology import Group
from meshslm.sim.world import World
from tests.sim.small_cores import make_world, perform, recorder

SERVER = Group(name="servers", relay=True)
HOMES = Group(name="homes", share=3, nat="own")
BOTH = (SERVER, HOMES)
"""One relay, and three nodes that nobody can dial."""


def nat_world(*groups: Group, nodes: int = 4, network: Network | None = None) -> World:
    quiet = network or Network(latency_ms=10.0, latency_spread=0.0, jitter_ms=0.0)
    return make_world(nodes, quiet, groups=groups or BOTH)


def relays(world: World) -> Relays:
    assert world.network.reach is not None
    return world.network.reach.relays


def wait(world: World, ms: float) -> None:
    world.run_until(world.now + int(ms * SECOND / 1000))


def join(world: World) -> tuple[SimNode, SimNode, SimNode]:
    """Two nodes behind boxes are linked with the relay, and the second has a place there."""
    relay, one, other, *_ = world.nodes
    for node in (one, other):
        perform(world, node, Dial(relay.address))
    wait(world, 300)
    perform(world, other, Reserve(relay.id))
    wait(world, 300)
    assert recorder(other).of(Reserved) == [Reserved(relay.id, limits.RELAY_S)]
    return relay, one, other


def circuit_to(relay: SimNode, node: SimNode) -> str:
    return f"{relay.address}{CIRCUIT}/p2p/{node.id}"


def call(world: World) -> tuple[SimNode, SimNode, SimNode]:
    relay, one, other = join(world)
    perform(world, one, Dial(circuit_to(relay, other)))
    wait(world, 500)
    assert other.id in one.ends
    assert one.id in other.ends
    return relay, one, other


def fails(world: World, node: SimNode, address: str) -> DialFailed:
    perform(world, node, Dial(address))
    wait(world, 6000)
    failed = recorder(node).of(DialFailed)[-1]
    assert isinstance(failed, DialFailed)
    return failed


def say(world: World, source: SimNode, target: SimNode, word: bytes) -> float | None:
    """After how many milliseconds a word arrives; None: it does not."""
    begun = world.now
    perform(world, source, Send(target.id, Lane.CONTROL, word))
    for _ in range(400):
        wait(world, 1)
        if word in recorder(target).messages():
            return (world.now - begun) * 1000 / SECOND
    return None


def gone(node: SimNode, peer: SimNode) -> list[str]:
    return [e.reason for e in recorder(node).of(PeerDisconnected) if e.peer == peer.id]


# --- addresses ----------------------------------------------------------------------------------
def test_behind_a_box_a_node_is_seen_elsewhere_than_it_listens() -> None:
    world = nat_world(SERVER, HOMES, Group(name="office", share=2, nat="shared"), nodes=6)
    relay, home, _, _, desk, table = world.nodes
    for node in (home, desk, table):
        perform(world, node, Dial(relay.address))
    perform(world, desk, Dial(table.address))
    wait(world, 500)
    seen = {e.peer: host_of(e.came_from) for e in recorder(relay).of(PeerConnected)}
    assert seen[home.id] != seen[desk.id] == seen[table.id]
    assert host_of(home.address) != seen[home.id]
    (met,) = [e for e in recorder(table).of(PeerConnected) if e.peer == desk.id]
    assert host_of(met.came_from) == host_of(desk.address), "within the box nothing is rewritten"


def test_where_nobody_relays_nothing_is_different() -> None:
    world = nat_world(Group(name="open"), HOMES)
    assert world.network.reach is None
    assert {recorder(node).config.relay for node in world.nodes} == {None}
    assert all(node.address.startswith("/memory/") for node in world.nodes)


def test_a_trial_dial_finds_what_a_dial_would_and_links_nobody() -> None:
    world = nat_world()
    relay, home, *_ = world.nodes
    reach = world.network.reach
    assert reach is not None
    outside = f"{reach.boxes.outside(home.index)}/p2p/{home.id}"
    tries = (
        TryDial(1, outside),
        TryDial(2, home.address),
        TryDial(3, "/ip4/192.0.2.1/tcp/1/p2p/x"),
    )
    perform(world, relay, *tries)
    perform(world, home, TryDial(4, relay.address))
    wait(world, 6000)
    found = {
        e.number: e.reached for e in (*recorder(relay).of(DialTried), *recorder(home).of(DialTried))
    }
    assert found == {1: False, 2: False, 3: False, 4: True}
    assert not relay.ends


# --- places -------------------------------------------------------------------------------------
def test_a_place_needs_a_link_and_leave() -> None:
    world = nat_world()
    relay, one, other, _ = world.nodes
    perform(world, one, Reserve(relay.id))
    perform(world, other, Dial(relay.address))
    wait(world, 300)
    recorder(relay).relays = False
    perform(world, other, Reserve(relay.id))
    wait(world, 300)
    assert [e.reason for e in recorder(one).of(NotReserved)] == ["its relay is not linked directly"]
    assert [e.reason for e in recorder(other).of(NotReserved)] == ["PERMISSION_DENIED"]
    assert not relays(world).places(relay)


def test_a_relay_gives_so_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_RESERVATIONS", 1)
    world = nat_world()
    relay, one, other = join(world)
    perform(world, one, Reserve(relay.id))
    perform(world, other, Reserve(relay.id))
    wait(world, 300)
    assert [e.reason for e in recorder(one).of(NotReserved)] == ["RESERVATION_REFUSED"]
    assert len(recorder(other).of(Reserved)) == 2, "its own it may have again"


def test_a_place_ends_with_its_time_and_with_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_S", 5)
    world = nat_world()
    relay, _, other = join(world)
    assert relays(world).places(relay) == [other.id]
    wait(world, 5000)
    assert relays(world).places(relay) == []
    perform(world, other, Reserve(relay.id))
    wait(world, 300)
    assert relays(world).places(relay) == [other.id]
    world.kill(other)
    wait(world, 300)
    assert relays(world).places(relay) == []


def test_a_relay_that_is_not_heard_gives_no_place() -> None:
    world = nat_world()
    relay, one, *_ = world.nodes
    perform(world, one, Dial(relay.address))
    wait(world, 300)
    world.network.mute(relay.index, on=True)
    perform(world, one, Reserve(relay.id))
    wait(world, 6000)
    assert recorder(one).of(NotReserved) == [NotReserved(relay.id, "timed out")]
    assert not recorder(one).of(Reserved)


# --- circuits -----------------------------------------------------------------------------------
def test_a_call_links_both_by_way_of_the_relay() -> None:
    world = nat_world()
    relay, one, other = call(world)
    assert PeerConnected(other.id, circuit_to(relay, other)) in recorder(one).of(PeerConnected)
    came_from = f"/p2p/{relay.id}{CIRCUIT}"
    assert PeerConnected(one.id, "", came_from) in recorder(other).of(PeerConnected)
    assert len(relays(world).of(relay)) == 1
    direct, relayed = say(world, one, relay, b"direct"), say(world, one, other, b"relayed")
    assert direct == pytest.approx(10, abs=1)
    assert relayed == pytest.approx(20, abs=1)
    assert say(world, other, one, b"back") == relayed


def test_what_is_relayed_takes_room_on_the_relay_and_keeps_its_order() -> None:
    world = nat_world()
    relay, one, other = call(world)
    before = relay.sent_bytes
    words = [b"%03d" % number + bytes(500) for number in range(50)]
    perform(world, one, *(Send(other.id, Lane.INTERACTIVE, word) for word in words))
    wait(world, 300)
    assert recorder(other).messages() == words
    assert relay.sent_bytes - before >= 50 * 500


@pytest.mark.parametrize("problem", ["no place", "not allowed", "no link", "nobody", "linked"])
def test_a_call_that_cannot_be_made_is_told(problem: str) -> None:
    world = nat_world()
    relay, one, other = join(world)
    third = world.nodes[3]
    address, caller, peer = circuit_to(relay, other), one, None
    if problem == "no place":
        address, reason = circuit_to(relay, third), "NO_RESERVATION"
    elif problem == "not allowed":
        recorder(relay).relays, reason = False, "PERMISSION_DENIED"
    elif problem == "no link":
        caller, reason = third, "its relay is not linked directly"
    elif problem == "nobody":
        address, reason = f"{relay.address}{CIRCUIT}", "its relay is not linked directly"
    else:
        perform(world, one, Dial(address))
        wait(world, 500)
        reason, peer = "already connected", other.id
    assert fails(world, caller, address) == DialFailed(address, reason, peer)


@pytest.mark.parametrize("deaf", [0, 2])
def test_a_call_that_nobody_hears_fails_in_time(deaf: int) -> None:
    world = nat_world()
    relay, one, other = join(world)
    world.network.deafen(deaf, on=True)
    failed = fails(world, one, circuit_to(relay, other))
    assert failed.reason == "nobody takes the call"
    assert not relays(world).of(relay)


def test_a_relay_carries_so_many_circuits_for_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_CIRCUITS_PER_PEER", 1)
    world = nat_world()
    relay, _, other = call(world)
    third = world.nodes[3]
    perform(world, third, Dial(relay.address))
    wait(world, 300)
    failed = fails(world, third, circuit_to(relay, other))
    assert failed.reason == "RESOURCE_LIMIT_EXCEEDED"


@pytest.mark.parametrize("silent", [False, True])
def test_a_relay_that_dies_takes_its_circuits_with_it(*, silent: bool) -> None:
    world = nat_world()
    relay, one, other = call(world)
    world.kill(relay, silent=silent)
    wait(world, 300)
    if silent:  # nobody hears of it before a core gives its link with the relay up
        assert not gone(one, other)
        assert say(world, one, other, b"lost") is None
        world.network.close(one.ends[relay.id], "not heard")
        world.network.close(other.ends[relay.id], "not heard")
        wait(world, 1)
    for node, peer in ((one, other), (other, one)):
        assert gone(node, peer) == ["the link to its relay is gone"]
        assert not node.ends


def test_an_end_that_dies_is_told_of_by_the_relay() -> None:
    world = nat_world()
    relay, one, other = call(world)
    world.kill(other)
    wait(world, 100)
    assert gone(one, other) == ["its relay lost the other end"]
    assert relay.id in one.ends
    assert not relays(world).of(relay)


def test_an_end_that_closes_is_told_of_by_the_relay() -> None:
    world = nat_world()
    relay, one, other = call(world)
    world.network.close(one.ends[other.id], "enough")
    wait(world, 100)
    assert gone(other, one) == ["enough"]
    assert relay.id in one.ends
    assert not relays(world).of(relay)


def test_a_stopped_relay_holds_what_it_carries() -> None:
    world = nat_world()
    relay, one, other = call(world)
    world.hang(relay)
    assert say(world, one, other, b"held") is None
    world.resume(relay)
    wait(world, 50)
    assert recorder(other).messages() == [b"held"]


@pytest.mark.parametrize("bound", ["RELAY_BYTES", "RELAY_S"])
def test_a_circuit_ends_with_its_bounds(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(limits, bound, 3)
    world = nat_world()
    _, one, other = call(world)
    perform(world, one, Send(other.id, Lane.CONTROL, b"four"))
    wait(world, 4000)
    why = "it has carried enough" if bound == "RELAY_BYTES" else "its time is over"
    if bound == "RELAY_BYTES":
        assert recorder(other).messages() == []
    for node, peer in ((one, other), (other, one)):
        assert gone(node, peer) == [why]


def test_walls_stand_on_both_ways_of_a_circuit() -> None:
    for source, target in ((1, 0), (0, 2)):
        world = nat_world()
        _, one, other = call(world)
        world.network.cut(source, target, on=True)
        assert say(world, one, other, b"word") is None
        world.network.cut(source, target, on=False)
        assert say(world, one, other, b"again") is not None


def test_what_is_lost_on_either_way_does_not_arrive() -> None:
    world = nat_world()
    relay, one, other = call(world)
    relay.line.loss = 1.0
    assert say(world, one, other, b"lost") is None
    relay.line.loss = 0.0
    other.line.loss = 1.0
    assert say(world, one, other, b"lost too") is None
    other.line.loss = 0.0
    assert say(world, one, other, b"found") is not None


# --- boxes --------------------------------------------------------------------------------------
def punch(world: World, *pairs: tuple[SimNode, SimNode]) -> None:
    """Dial outer sides, ten milliseconds apart."""
    reach = world.network.reach
    assert reach is not None
    for node, target in pairs:
        address = f"{reach.boxes.outside(target.index)}/p2p/{target.id}"
        perform(world, node, PunchTo(address))
        wait(world, 10)
    wait(world, 500)


def direct(node: SimNode, peer: SimNode) -> bool:
    return node.ends[peer.id].circuit is None


def test_two_boxes_are_opened_by_two_dials() -> None:
    world = nat_world()
    relay, one, other = call(world)
    punch(world, (one, other))
    assert not direct(one, other), "one dial opens only its own box"
    punch(world, (one, other), (other, one))
    for node, peer in ((one, other), (other, one)):
        assert direct(node, peer)
        assert gone(node, peer) == ["replaced by a new connection"]
    assert not relays(world).of(relay)
    assert say(world, one, other, b"word") == pytest.approx(10, abs=1)


def test_dials_that_do_not_meet_open_nothing() -> None:
    world = nat_world()
    _, one, other = call(world)
    punch(world, (one, other))
    wait(world, 6000)
    punch(world, (other, one))
    assert not direct(one, other)


def test_a_box_that_changes_ports_stays_shut() -> None:
    world = nat_world(
        SERVER, HOMES, Group(name="office", share=1, nat="own", symmetric=True), nodes=5
    )
    relay, one, _, _, desk = world.nodes
    for node in (one, desk):
        perform(world, node, Dial(relay.address))
    wait(world, 300)
    perform(world, desk, Reserve(relay.id))
    wait(world, 300)
    perform(world, one, Dial(circuit_to(relay, desk)))
    wait(world, 500)
    punch(world, (one, desk), (desk, one), (one, desk))
    assert not direct(one, desk)


def test_a_box_that_forgets_resets_from_within_and_is_silent_from_outside() -> None:
    world = nat_world()
    relay, one, other = call(world)
    world.network.forget(one)
    assert say(world, relay, one, b"from outside") is None
    assert not gone(relay, one)
    assert say(world, one, relay, b"from inside") is None
    assert gone(one, relay) == ["connection reset"]
    assert gone(one, other) == ["the link to its relay is gone"]
    perform(world, one, Dial(relay.address))
    wait(world, 500)
    assert say(world, one, relay, b"anew") is not None
