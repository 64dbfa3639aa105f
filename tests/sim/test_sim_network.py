"""Links: what a scenario says about loss, order, speed and walls is what happens to messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import DialFailed, Lane, PeerDisconnected, Send
from meshslm.sim.network import FRAME_OVERHEAD_BYTES
from meshslm.sim.node import SECOND
from meshslm.sim.scenario import Network
from meshslm.sim.world import World
from tests.sim.small_cores import link, make_world, perform, recorder, unlink

COUNT = 2000
MESSAGES = [b"%d" % number for number in range(COUNT)]


def arrivals(network: Network, seed: int = 1) -> list[bytes]:
    """What comes of many messages sent one millisecond apart."""
    world = make_world(network=network, seed=seed)
    one, other = world.nodes
    link(world, one, other)
    for message in MESSAGES:
        perform(world, one, Send(other.id, Lane.INTERACTIVE, message))
        world.run_until(world.now + 1000)
    world.run_until(world.now + 60 * SECOND)
    return recorder(other).messages()


def test_a_network_without_faults_delivers_everything_in_order() -> None:
    assert arrivals(Network(jitter_ms=5.0)) == MESSAGES


def test_loss_loses_about_its_share() -> None:
    came = arrivals(Network(loss=0.1))
    assert COUNT * 0.87 < len(came) < COUNT * 0.93
    assert came == [message for message in MESSAGES if message in set(came)]


def test_duplication_doubles_about_its_share() -> None:
    came = arrivals(Network(duplicate=0.1, reorder_ms=0.0))
    assert sorted(set(came)) == sorted(MESSAGES)
    assert COUNT * 1.07 < len(came) < COUNT * 1.13


def test_reordering_loses_nothing() -> None:
    came = arrivals(Network(reorder=0.1, reorder_ms=20.0))
    assert sorted(came) == sorted(MESSAGES)
    assert came != MESSAGES


@given(
    loss=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    jitter_ms=st.floats(0, 50),
    seed=st.integers(0, 2**32),
)
def test_no_network_invents_messages_or_lets_them_overtake_the_link_itself(
    loss: float, duplicate: float, reorder: float, jitter_ms: float, seed: int
) -> None:
    network = Network(loss=loss, duplicate=duplicate, reorder=reorder, jitter_ms=jitter_ms)
    world = make_world(network=network, seed=seed)
    one, other = world.nodes
    link(world, one, other)
    sent = [b"%d" % number for number in range(20)]
    perform(world, one, *(Send(other.id, Lane.CONTROL, message) for message in sent))
    unlink(world, one, other)
    world.run_until(world.now + 10 * SECOND)
    came = recorder(other).messages()
    assert set(came) <= set(sent)
    assert all(came.count(message) <= 2 for message in sent)
    assert type(recorder(other).seen[-1][1]) is PeerDisconnected


def test_bandwidth_delays_by_the_length() -> None:
    world = make_world(
        network=Network(latency_ms=1, latency_spread=0, jitter_ms=0, bandwidth_mbit=1)
    )
    one, other = world.nodes
    link(world, one, other)
    begun = world.now
    size = 125_000 - FRAME_OVERHEAD_BYTES
    perform(world, one, Send(other.id, Lane.BACKGROUND, b"x" * size))
    world.run_until(begun + 2 * SECOND)
    assert recorder(other).seen[-1][0] == begun + SECOND + 1000


def test_control_goes_before_what_waits_already() -> None:
    world = make_world(network=Network(bandwidth_mbit=1))
    one, other = world.nodes
    link(world, one, other)
    bulk = [b"x" * 60_000, b"y" * 60_000]
    perform(world, one, *(Send(other.id, Lane.BACKGROUND, message) for message in bulk))
    perform(world, one, Send(other.id, Lane.CONTROL, b"urgent"))
    world.run_until(world.now + 5 * SECOND)
    assert recorder(other).messages() == [b"urgent", *bulk]


def test_a_lane_that_overflows_breaks_the_link() -> None:
    world = make_world(network=Network(bandwidth_mbit=1))
    one, other = world.nodes
    link(world, one, other)
    half = b"x" * (limits.LANE_QUEUE_BYTES // 2)
    perform(world, one, *(Send(other.id, Lane.BACKGROUND, half) for _ in range(3)))
    world.run_until(world.now + SECOND)
    assert [event.reason for event in recorder(one).of(PeerDisconnected)] == ["send queue overflow"]


def talk(world: World) -> tuple[bool, bool]:
    """Whether each of two nodes hears the other now."""
    one, other = world.nodes
    word = b"%d" % world.now
    perform(world, one, Send(other.id, Lane.CONTROL, word))
    perform(world, other, Send(one.id, Lane.CONTROL, word))
    world.run_until(world.now + SECOND)
    return word in recorder(one).messages(), word in recorder(other).messages()


def test_a_split_separates_and_heals_without_closing_the_link() -> None:
    world = make_world()
    link(world, *world.nodes)
    assert talk(world) == (True, True)
    world.network.split([[0], [1]])
    assert talk(world) == (False, False)
    world.network.heal()
    assert talk(world) == (True, True)
    assert not recorder(world.nodes[0]).of(PeerDisconnected)


def test_a_muted_node_hears_and_is_not_heard() -> None:
    world = make_world()
    link(world, *world.nodes)
    world.network.mute(0, on=True)
    assert talk(world) == (True, False)
    world.network.mute(0, on=False)
    assert talk(world) == (True, True)


@pytest.mark.parametrize("muted", [0, 1])
def test_nobody_links_through_a_wall(muted: int) -> None:
    world = make_world()
    world.run_until(0)
    world.network.mute(muted, on=True)
    one, other = world.nodes
    world.network.dial(one, other.address)
    world.run_until(10 * SECOND)
    assert recorder(one).of(DialFailed) == [DialFailed(other.address, "timed out")]
    assert other.ends == {}
