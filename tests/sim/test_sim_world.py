"""The world: order, timers, processes and links, shown with cores of a few lines."""

from __future__ import annotations

import pytest

from meshslm.core.events import (
    Dial,
    DialFailed,
    Disconnect,
    EngineLost,
    Lane,
    PeerConnected,
    PeerDisconnected,
    Send,
    Started,
    StartTimer,
    StopTimer,
    TimerFired,
    TimerKey,
)
from meshslm.sim.node import SECOND
from tests.sim.small_cores import (
    Gossip,
    Onlooker,
    Recorder,
    link,
    make_world,
    perform,
    recorder,
)

KEY = TimerKey("alarm")


def test_the_first_event_of_a_boot_says_so() -> None:
    world = make_world()
    world.run_until(0)
    node = world.nodes[1]
    assert recorder(node).seen == [(0, Started(1, (node.address,)))]
    assert recorder(node).config.bootstrap == (world.nodes[0].address,)


def test_what_happens_at_the_same_time_happens_in_the_order_of_its_making() -> None:
    world = make_world(nodes=1)
    world.run_until(0)
    node = world.nodes[0]
    for number in (3, 1, 2):
        world.push(50, node.life, node, EngineLost(str(number), ""))
    world.push(49, node.life, node, EngineLost("0", ""))
    world.run_until(50)
    assert [event.model for event in recorder(node).of(EngineLost)] == ["0", "3", "1", "2"]


def test_timers_fire_on_time_and_are_replaced_and_stopped() -> None:
    world = make_world(nodes=1)
    world.run_until(0)
    node = world.nodes[0]
    perform(
        world,
        node,
        StartTimer(KEY, 1, 100),
        StartTimer(KEY, 2, 30),
        StartTimer(TimerKey("other"), 3, 10),
        StopTimer(TimerKey("other")),
    )
    world.run_until(SECOND)
    fired = [(now, e) for now, e in recorder(node).seen if isinstance(e, TimerFired)]
    assert fired == [(30_000, TimerFired(KEY, 2))]
    assert node.timers == {}


def test_a_link_is_told_to_both_and_carries_messages_in_order() -> None:
    world = make_world()
    one, other = world.nodes
    link(world, one, other)
    assert recorder(one).of(PeerConnected) == [PeerConnected(other.id, other.address)]
    came_from = f"/memory/{one.name}"
    assert recorder(other).of(PeerConnected) == [PeerConnected(one.id, "", came_from)]
    messages = [b"%d" % number for number in range(50)]
    perform(world, one, *(Send(other.id, Lane.CONTROL, message) for message in messages))
    world.run_until(world.now + SECOND)
    assert recorder(other).messages() == messages


def test_two_that_dial_each_other_get_one_link() -> None:
    world = make_world()
    world.run_until(0)
    one, other = world.nodes
    perform(world, one, Dial(other.address))
    perform(world, other, Dial(one.address))
    world.run_until(SECOND)
    for node in world.nodes:
        assert len(recorder(node).of(PeerConnected)) == 1
    failed = recorder(other).of(DialFailed)
    assert [event.reason for event in failed if event.reason] == [
        "to be told something",
        "already connected",
    ]


@pytest.mark.parametrize("address", ["", "/memory/n9/p2p/nobody", "/memory/n0/p2p/nobody"])
def test_a_dial_of_nobody_fails(address: str) -> None:
    world = make_world()
    world.run_until(0)
    perform(world, world.nodes[0], Dial(address))
    world.run_until(SECOND)
    assert recorder(world.nodes[0]).of(DialFailed)[-1] == DialFailed(address, "no such host")


def test_a_disconnect_is_told_to_both_after_what_was_sent_before() -> None:
    world = make_world()
    one, other = world.nodes
    link(world, one, other)
    perform(world, one, Send(other.id, Lane.CONTROL, b"bye"), Disconnect(other.id, "enough"))
    world.run_until(world.now + SECOND)
    assert recorder(other).messages() == [b"bye"]
    for node in world.nodes:
        assert len(recorder(node).of(PeerDisconnected)) == 1
        assert node.ends == {}


def test_sending_to_whom_no_link_leads_is_reported() -> None:
    onlooker = Onlooker()
    world = make_world(onlooker=onlooker)
    world.run_until(0)
    one, other = world.nodes
    perform(world, one, Send(other.id, Lane.CONTROL, b"hello?"))
    assert onlooker.stray == [("n0", other.id)]


def test_a_killed_process_loses_all_and_comes_back_with_a_higher_boot() -> None:
    world = make_world()
    one, other = world.nodes
    link(world, one, other)
    perform(world, one, StartTimer(KEY, 1, 50), Send(other.id, Lane.CONTROL, b"last words"))
    world.kill(one)
    before = recorder(one)
    world.run_until(world.now + SECOND)
    assert not before.of(TimerFired)
    assert recorder(other).of(PeerDisconnected) == [PeerDisconnected(one.id, "connection closed")]
    world.boot(one)
    world.run_until(world.now + SECOND)
    assert recorder(one) is not before
    assert recorder(one).of(Started) == [Started(2, (one.address,))]


def test_after_a_power_loss_peers_hear_nothing_until_the_machine_is_back() -> None:
    world = make_world()
    one, other = world.nodes
    link(world, one, other)
    world.kill(one, silent=True)
    perform(world, other, Send(one.id, Lane.CONTROL, b"are you there?"))
    world.run_until(world.now + SECOND)
    assert not recorder(other).of(PeerDisconnected)
    world.boot(one)
    perform(world, other, Send(one.id, Lane.CONTROL, b"and now?"))
    world.run_until(world.now + SECOND)
    reset = PeerDisconnected(one.id, "connection reset")
    assert recorder(other).of(PeerDisconnected) == [reset]
    assert recorder(one).messages() == []


def test_a_new_link_replaces_one_whose_other_side_has_forgotten_it() -> None:
    world = make_world()
    one, other = world.nodes
    link(world, one, other)
    world.kill(one, silent=True)
    world.boot(one)
    link(world, one, other)
    events = [type(event) for _, event in recorder(other).seen if "Peer" in type(event).__name__]
    assert events == [PeerConnected, PeerDisconnected, PeerConnected]


def test_a_stopped_process_sees_everything_when_it_goes_on() -> None:
    world = make_world()
    one, other = world.nodes
    link(world, one, other)
    perform(world, one, StartTimer(KEY, 1, 20))
    world.hang(one)
    perform(world, other, Send(one.id, Lane.CONTROL, b"wake up"))
    world.run_until(world.now + SECOND)
    assert recorder(one).messages() == []
    woken = world.now
    world.resume(one)
    tail = recorder(one).seen[-2:]
    assert [now for now, _ in tail] == [woken, woken]
    assert recorder(one).messages() == [b"wake up"]
    assert recorder(one).of(TimerFired) == [TimerFired(KEY, 1)]


@pytest.mark.parametrize("state", ["hung", "without power", "killed"])
def test_a_dial_of_who_is_not_there_fails(state: str) -> None:
    world = make_world()
    world.run_until(0)
    one, other = world.nodes
    if state == "hung":
        world.hang(other)
    else:
        world.kill(other, silent=state == "without power")
    perform(world, one, Dial(other.address))
    world.run_until(10 * SECOND)
    reason = "connection refused" if state == "killed" else "timed out"
    failed = DialFailed(other.address, reason, refused=state == "killed")
    assert recorder(one).of(DialFailed)[-1] == failed


class Explosive(Recorder):
    """Has an invariant that breaks."""

    def check(self) -> None:
        assert len(self.seen) < 3, "three events are too many"


def test_a_broken_invariant_stops_the_world_and_says_where() -> None:
    onlooker = Onlooker()
    world = make_world(nodes=1, core=Explosive, onlooker=onlooker)
    for number in range(5):
        world.tell(world.nodes[0], EngineLost(str(number), ""))
    world.run_until(SECOND)
    assert world.stopped
    assert world.events == 3
    assert "three events are too many" in onlooker.broke[0]
    assert "test_sim_world.py" in onlooker.broke[0]


def test_the_trace_is_a_function_of_the_seed() -> None:
    def trace(seed: int) -> str:
        world = make_world(nodes=5, core=Gossip, seed=seed)
        world.run_until(SECOND)
        assert all(recorder(node).messages() for node in world.nodes)
        return world.trace_hash

    assert trace(1) == trace(1)
    assert len({trace(seed) for seed in range(5)}) == 5
