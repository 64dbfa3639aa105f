"""A large mesh that has stood for long: made at once, and then one like any other."""

from __future__ import annotations

import pytest

from meshslm.core.events import HostingChanged
from meshslm.errors import OurFault
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.scenario import Scenario, Workload
from meshslm.sim.standing import standing
from meshslm.sim.stopwatch import until, until_dropped
from meshslm.wire.messages import Hardware
from tests.sim.large_mesh import Chatty, growth

NODES, FULL = 30, 8
IDLE = Workload(tasks_per_second=0.0)


def test_everybody_is_known_without_a_word_and_the_mesh_goes_on_as_any_other() -> None:
    Chatty.kinds.clear()
    scenario = Scenario(name="standing", nodes=NODES, full_mesh=FULL, workload=IDLE)
    simulation = standing(scenario, 7, Chatty)
    world = simulation.world
    for node in world.nodes:
        assert growth(node).large
        assert len(growth(node).members) == NODES
        assert 4 <= len(growth(node).overlay.neighbours) <= 12
    assert len({growth(node).members.root for node in world.nodes}) == 1
    world.run_until(60 * SECOND)
    assert Chatty.kinds["Facts"] == 0, "what is known already is not told"
    subject = world.nodes[3]
    world.tell(subject, HostingChanged((), Hardware()))

    def knows(node: SimNode) -> bool:
        fact = growth(node).members.get(subject.id)
        return fact is not None and fact.record.services == ()

    change = until(simulation, subject, knows)
    assert change.all_ms is not None
    assert change.all_ms <= 2_000
    world.hang(world.nodes[9])
    drop = until_dropped(simulation, world.nodes[9])
    assert drop.all_ms is not None
    assert drop.all_ms <= 5_000
    assert simulation.violations.counts == {}


def test_a_mesh_whose_nodes_link_each_other_has_no_table_to_begin_with() -> None:
    with pytest.raises(OurFault, match="9 nodes link each other"):
        standing(Scenario(name="small", nodes=9, full_mesh=FULL, workload=IDLE), 7)
