"""Faults do what they say, to whom they say it, and undo it afterwards."""

from __future__ import annotations

import pytest

from meshslm.chance import Chance
from meshslm.core.events import (
    BytesReceived,
    Dial,
    DialFailed,
    Lane,
    Send,
    StartTimer,
    TimerFired,
    TimerKey,
)
from meshslm.sim.fault_kinds import (
    Busy,
    ClockFault,
    Clog,
    Cut,
    Fault,
    Flap,
    Hang,
    Kill,
    Partition,
    Rough,
    SlowDisk,
    end_s,
)
from meshslm.sim.faults import Faults
from meshslm.sim.node import SECOND, Clock
from meshslm.sim.run import run
from meshslm.sim.scenario import Network, Profile, Scenario, Workload
from meshslm.sim.topology import REGIONS, Group, Topology, region_latency_ms
from meshslm.sim.world import World
from tests.sim.small_cores import link, make_world, perform, recorder


def strike(world: World, *faults: Fault) -> list[str]:
    """Put faults on the heap; what changed is told in the list."""
    changed: list[str] = []
    Faults(world, Chance.from_int(1), changed.append, lambda _n, _s: None).schedule(faults)
    return changed


def hears(world: World, one: int, other: int) -> bool:
    """Whether a word from one node reaches the other within a second."""
    word = b"%d to %d at %d" % (one, other, world.now)
    perform(world, world.nodes[one], Send(world.nodes[other].id, Lane.CONTROL, word))
    world.run_until(world.now + SECOND)
    return word in recorder(world.nodes[other]).messages()


def trio_of_nodes() -> World:
    world = make_world(nodes=3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        link(world, world.nodes[one], world.nodes[other])
    return world


@pytest.mark.parametrize("one_way", [False, True])
def test_a_cut_is_between_two_nodes_only(one_way: bool) -> None:
    world = trio_of_nodes()
    changed = strike(world, Cut(at_s=20, for_s=30, nodes=(0,), from_nodes=(1,), one_way=one_way))
    world.run_until(21 * SECOND)
    assert [hears(world, 0, 1), hears(world, 1, 0)] == [False, one_way]
    assert hears(world, 0, 2)
    assert hears(world, 2, 1)
    world.run_until(51 * SECOND)
    assert hears(world, 0, 1)
    assert changed == ["end of a cut"]


def test_a_clogged_uplink_is_slow_and_then_as_before() -> None:
    world = trio_of_nodes()
    before = world.nodes[0].line.us_per_byte
    strike(world, Clog(at_s=20, for_s=10, nodes=(0,), bandwidth_mbit=0.0001))
    world.run_until(21 * SECOND)
    assert not hears(world, 0, 1)  # a dozen bytes a second
    world.run_until(31 * SECOND)
    assert world.nodes[0].line.us_per_byte == before
    assert hears(world, 0, 1)


def test_a_rough_line_loses_and_is_smooth_again() -> None:
    world = trio_of_nodes()
    strike(world, Rough(at_s=20, for_s=10, nodes=(0,), loss=1.0, delay_ms=50))
    world.run_until(21 * SECOND)
    assert [hears(world, 0, 1), hears(world, 2, 0), hears(world, 1, 2)] == [False, False, True]
    world.run_until(31 * SECOND)
    line = world.nodes[0].line
    assert [line.loss, line.delay_us] == [0.0, 0]
    assert hears(world, 0, 1)


def test_a_flapping_node_is_silent_for_moments() -> None:
    world = trio_of_nodes()
    changed = strike(world, Flap(from_s=20, to_s=60, every_s=3, down_s=2, nodes=(0,)))
    heard = []
    while world.now < 70 * SECOND:
        heard.append(hears(world, 0, 1))
    assert heard[-3:] == [True, True, True]
    assert heard.count(False) >= 5
    assert changed.count("end of a silence of n0") == len(changed) >= 5


def test_clocks_jump_and_drift_and_timers_follow_them() -> None:
    world = trio_of_nodes()
    node = world.nodes[0]
    strike(world, ClockFault(at_s=20, nodes=(0,), jump_s=100, drift_ppm=500_000))
    world.run_until(20 * SECOND)
    before = recorder(world.nodes[1])
    perform(world, node, StartTimer(TimerKey("alarm"), 1, 3000))
    world.run_until(30 * SECOND)
    fired = [now for now, event in recorder(node).seen if isinstance(event, TimerFired)]
    assert fired == [20 * SECOND + 100 * SECOND + 3 * SECOND]
    assert node.clock.read(30 * SECOND) == 135 * SECOND
    assert world.nodes[1].clock.read(30 * SECOND) == 30 * SECOND
    assert not before.of(TimerFired)


def test_a_clock_never_goes_back() -> None:
    clock = Clock(5)
    clock.change(100, rate=0.5)
    assert [clock.read(100), clock.read(200)] == [105, 155]
    clock.change(200, rate=1.5)
    assert [clock.read(200), clock.read(300)] == [155, 305]
    assert clock.wait(150) == 100


def test_a_sleeping_machine_does_not_know_that_it_slept() -> None:
    world = trio_of_nodes()
    strike(world, Hang(at_s=20, for_s=10, nodes=(0,), clock_stops=True))
    world.run_until(21 * SECOND)
    perform(world, world.nodes[1], Send(world.nodes[0].id, Lane.CONTROL, b"wake up"))
    world.run_until(30 * SECOND)
    now, event = recorder(world.nodes[0]).seen[-1]
    assert event == BytesReceived(world.nodes[1].id, b"wake up")
    assert now == 20 * SECOND


def test_a_lost_disk_makes_another_node_of_it() -> None:
    world = trio_of_nodes()
    node = world.nodes[2]
    old_id, old_address = node.id, node.address
    strike(world, Kill(at_s=20, nodes=(2,), back_after_s=5, disk_lost=True))
    world.run_until(30 * SECOND)
    assert node.id != old_id
    assert node.boot == 1
    assert world.node(old_id) is world.node(node.id) is node
    perform(world, world.nodes[0], Dial(old_address))
    world.run_until(31 * SECOND)
    failed = recorder(world.nodes[0]).of(DialFailed)[-1]
    assert failed == DialFailed(old_address, "another identity answers there")


def test_a_slow_disk_loads_slowly() -> None:
    def took(*faults: Fault) -> float | None:
        scenario = Scenario(
            name="loading",
            nodes=2,
            seconds=60.0,
            profiles=(
                Profile(name="lawyer", domains=("law",)),
                Profile(name="coder", domains=("code",)),
            ),
            workload=Workload(tasks_per_second=2.0, model_share=1.0, domain_share=0.0),
            faults=(Kill(at_s=10.0, back_after_s=2.0, nodes=(1,)), *faults),
        )
        report = run(scenario, seed=3)
        assert report.ok, report.violations
        return report.first_token_ms.p99

    usual, slow = took(), took(SlowDisk(at_s=9.0, for_s=20.0, nodes=(1,), times=30.0))
    assert usual is not None
    assert slow is not None
    assert slow > usual + 5_000


@pytest.mark.parametrize(
    "fault",
    [
        Cut(at_s=8, for_s=10),
        Cut(at_s=8, for_s=10, one_way=True),
        Clog(at_s=8, for_s=5, bandwidth_mbit=0.05),
        Rough(at_s=8, for_s=10, loss=0.5, duplicate=0.2, reorder=0.5, delay_ms=300),
        Flap(from_s=5, to_s=20, every_s=3, down_s=2),
        ClockFault(at_s=8, jump_s=3600, drift_ppm=50_000),
        Hang(at_s=8, for_s=10, clock_stops=True),
        Kill(at_s=8, back_after_s=4, disk_lost=True),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_mesh_overcomes_it(fault: Fault) -> None:
    scenario = Scenario(
        name="one", nodes=5, seconds=30.0, faults=(fault,), workload=Workload(tasks_per_second=2.0)
    )
    report = run(scenario, seed=1)
    assert report.ok, report.violations
    assert report.trace == run(scenario, seed=1).trace


def test_faults_end_when_they_say() -> None:
    assert end_s(Flap(from_s=1, to_s=9, every_s=1, down_s=2)) == 11
    assert end_s(ClockFault(at_s=3)) == 3
    assert end_s(Partition(at_s=3, for_s=2)) == 5


# --- where nodes stand --------------------------------------------------------------------------
def test_the_matrix_of_regions_is_whole() -> None:
    for one in REGIONS:
        for other in REGIONS:
            distance = region_latency_ms(one, other)
            assert distance == region_latency_ms(other, one) >= 1.0
            assert (distance == 1.0) == (one == other)


def test_nodes_are_dealt_to_groups_by_their_shares() -> None:
    topology = Topology((Group(name="a", share=1), Group(name="b", share=3)), 9)
    names = [group.name for node in range(9) if (group := topology.group(node))]
    assert names == ["a"] * 2 + ["b"] * 7


def test_a_node_behind_nat_dials_and_is_not_dialled() -> None:
    groups = (
        Group(name="open"),
        Group(name="home", nat="shared"),
        Group(name="mobile", nat="own"),
    )
    topology = Topology(groups, 6)
    assert topology.dials(2, 0)
    assert not topology.dials(0, 2)
    assert topology.dials(2, 3)
    assert not topology.dials(4, 5)
    assert [topology.meet(0, 4), topology.meet(2, 4), topology.meet(4, 5)] == [True, False, False]


def test_a_mesh_with_nat_and_regions_converges_as_far_as_it_can() -> None:
    scenario = Scenario(
        name="wide",
        nodes=8,
        seconds=30.0,
        network=Network(jitter_ms=2.0),
        groups=(
            Group(name="servers", region="europe"),
            Group(name="home", region="japan", nat="shared", latency_ms=6, bandwidth_mbit=20),
            Group(name="mobile", region="us-west", nat="own", latency_ms=30, loss=0.01),
        ),
        workload=Workload(tasks_per_second=2.0),
    )
    report = run(scenario, seed=1)
    assert report.ok, report.violations
    assert report.first_token_ms.p50 is not None
    assert report.first_token_ms.p50 > 100


def test_busy_nodes_run_half_of_the_time() -> None:
    world = trio_of_nodes()
    changed = strike(world, Busy(at_s=1.0, for_s=20.0, nodes=(1,)))
    stopped = 0
    for step in range(500):
        world.run_until(SECOND + step * SECOND // 25)
        stopped += world.nodes[1].hung
    assert 175 <= stopped <= 325
    world.run_until(23 * SECOND)
    assert not world.nodes[1].hung
    assert changed == ["rest of n1"]
    assert hears(world, 0, 1)


def test_nobody_takes_busy_nodes_for_gone() -> None:
    idle = Workload(tasks_per_second=0.0)
    faults = (Busy(at_s=8.0, for_s=12.0, count=2),)
    report = run(Scenario(name="busy", nodes=6, workload=idle, faults=faults, seconds=22.0), seed=3)
    assert report.ok, report.violations[:3]
    assert [entry.change for entry in report.convergence if entry.change == "false alarm"] == []
