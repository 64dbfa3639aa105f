"""Production's cores behind NAT boxes: they find out, reserve, call, and link directly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from meshslm.core.node import NodeCore
from meshslm.core.views import ReachView
from meshslm.sim.fault_kinds import Kill, NatRestart
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation, production
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.swarm import judge
from meshslm.sim.topology import Group

STRICT = Group(name="strict", share=3, nat="own", symmetric=True)
LENIENT = Group(name="lenient", share=3, nat="own")
OFFICE = Group(name="office", share=3, nat="shared", symmetric=True)


def behind(relays: int, *groups: Group, **changes: object) -> Scenario:
    """Relays that can be dialled, and three nodes of each group that cannot."""
    servers = Group(name="servers", share=relays, relay=True)
    scenario = Scenario(
        name="behind",
        nodes=relays + 3 * len(groups),
        bootstrap_nodes=relays,
        seconds=60,
        groups=(servers, *groups),
        network=Network(latency_ms=5.0),
        workload=Workload(tasks_per_second=0.0),
        checks=Checks(converge_s=30),
    )
    return replace(scenario, **changes)


def reach(simulation: Simulation, node: SimNode) -> ReachView:
    assert isinstance(node.core, NodeCore)
    return node.core.status(node.clock.read(simulation.world.now)).reach


def links(simulation: Simulation, *, relayed: bool) -> int:
    """Pairs of nodes that are linked so."""
    ends = [end for node in simulation.world.nodes for end in node.ends.values()]
    return sum((end.circuit is not None) is relayed for end in ends) // 2


def until(simulation: Simulation, holds: Callable[[], bool], seconds: float) -> float:
    """Virtual seconds until something is so."""
    world = simulation.world
    begun = world.now
    while not holds():
        assert world.now - begun < seconds * SECOND, "it never was so"
        world.run_until(world.now + SECOND // 10)
    return (world.now - begun) / SECOND


def whole(simulation: Simulation) -> bool:
    """Whether everybody who lives is linked with everybody."""
    living = [node for node in simulation.world.nodes if node.living]
    return all(other.id in node.ends for node in living for other in living if other is not node)


def test_two_groups_behind_boxes_find_each_other_by_one_relay() -> None:
    simulation = production(behind(1, STRICT, OFFICE), 7)
    report = simulation.run()
    assert report.ok, report.violations
    assert whole(simulation)
    assert links(simulation, relayed=True) == 3 + 3 * 3, "but within the office none is"
    server, *others = simulation.world.nodes
    assert reach(simulation, server).state == "public"
    assert reach(simulation, server).offers_relay
    assert {reach(simulation, node).state for node in others} == {"private"}
    for node in others:
        assert [relay.node for relay in reach(simulation, node).relays] == [server.id]
        assert not reach(simulation, node).offers_relay


@pytest.mark.parametrize("silent", [False, True])
def test_another_relay_takes_over(*, silent: bool) -> None:
    simulation = production(behind(2, STRICT, OFFICE), 3)
    simulation.begin()
    world = simulation.world
    until(simulation, lambda: whole(simulation), 30)
    first, second, *others = world.nodes
    relays = world.network.reach.relays if world.network.reach is not None else None
    assert relays is not None
    world.run_until(world.now + 70 * SECOND)  # a second place is asked for a minute after the first
    carried = [len(relays.of(relay)) for relay in (first, second)]
    busier = first if carried[0] >= carried[1] else second
    world.kill(busier, silent=silent)
    took = until(simulation, lambda: not any(busier.id in n.ends for n in others), 10)
    took += until(simulation, lambda: whole(simulation), 15)
    assert took <= 15
    assert not simulation.violations.kept
    left = second if busier is first else first
    assert len(relays.of(left)) == 12
    world.boot(busier)
    until(simulation, lambda: whole(simulation), 30)


def test_direct_links_take_the_place_of_relayed_ones() -> None:
    simulation = production(behind(1, LENIENT, OFFICE), 5)
    simulation.begin()
    world = simulation.world
    until(simulation, lambda: links(simulation, relayed=True) > 9, 20)
    until(simulation, lambda: links(simulation, relayed=True) == 9, 30)
    assert whole(simulation)
    for node in world.nodes:
        kinds = {peer: end.circuit is not None for peer, end in node.ends.items()}
        for peer, relayed in kinds.items():
            groups = {world.network._topology.group(n.index) for n in (node, world.node(peer))}
            assert relayed is (groups == {LENIENT, OFFICE}), "only strict boxes stay shut"


def test_a_link_that_is_replaced_costs_no_task() -> None:
    tasks = Workload(tasks_per_second=8.0, start_s=7, cancel_share=0.0, long_share=1.0)
    scenario = behind(1, LENIENT, LENIENT, workload=tasks, seconds=28)
    simulation = production(scenario, 5)
    report = simulation.run()
    assert report.ok, report.violations
    assert links(simulation, relayed=True) == 0
    assert set(report.tasks.refusals) <= {"unknown_model"}, "asked for before it was found"
    assert report.tasks.answered > 60


def test_a_box_that_forgets_costs_a_moment() -> None:
    faults = (NatRestart(at_s=20, nodes=(2,)), NatRestart(at_s=30, nodes=(5,)))
    simulation = production(behind(2, LENIENT, OFFICE, faults=faults), 11)
    simulation.begin()
    world = simulation.world
    until(simulation, lambda: whole(simulation), 19)
    office = world.nodes[5:]
    for box in ([world.nodes[2]], office):
        at_s = 20 if box is not office else 30
        world.run_until(at_s * SECOND)
        until(simulation, lambda: not whole(simulation), 5)
        assert until(simulation, lambda: whole(simulation), 10) < 10
    for one in office:
        assert all(one.ends[other.id].circuit is None for other in office if other is not one)
    assert not simulation.violations.kept


def test_the_same_seed_gives_the_same_run() -> None:
    faults = (Kill(at_s=10, back_after_s=2, nodes=(0,)),)
    scenario = behind(1, LENIENT, STRICT, seconds=15, faults=faults)
    one, again = judge(1, scenario), judge(1, scenario)
    assert one.ok, one.wrong
    assert again.trace == one.trace
