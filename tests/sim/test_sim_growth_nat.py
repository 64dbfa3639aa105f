"""A mesh beyond a link between every two of which half can dial and cannot be dialled."""

from __future__ import annotations

import pytest

from meshslm.core.node import NodeCore
from meshslm.sim.node import SECOND
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Checks, Scenario, Workload
from meshslm.sim.stopwatch import until
from meshslm.sim.topology import Group, Topology
from tests.sim.large_mesh import growth

NODES, FULL = 20, 8


HOMES: list[Group] = [Group(name="homes", nat="own"), Group(name="homes", nat="shared")]


@pytest.mark.parametrize("homes", HOMES, ids=["own", "shared"])
def test_who_cannot_be_dialled_is_known_to_all_and_missed_by_all(homes: Group) -> None:
    half = Scenario(
        name="half-nat",
        nodes=NODES,
        full_mesh=FULL,
        seconds=60,
        workload=Workload(tasks_per_second=2.0, start_s=20),
        checks=Checks(converge_s=40, invariants_every=16, answered_share=0.97),
        groups=(Group(name="open"), homes),
    )
    simulation = Simulation(half, 7, NodeCore)
    report = simulation.run()
    assert report.ok, report.violations[:3]
    world = simulation.world
    behind = world.nodes[NODES // 2 :]
    assert not Topology(half.groups, NODES).dials(0, behind[-1].index)
    for node in world.nodes:
        assert growth(node).large
        assert len(growth(node).members) == NODES
    victim = behind[-1]
    world.kill(victim, silent=True)
    timing = until(simulation, victim, lambda node: victim.id not in growth(node).members)
    assert timing.all_ms is not None
    assert timing.all_ms <= 10 * SECOND / 1000
