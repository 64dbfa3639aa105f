"""Large meshes that have stood for long, to be looked at without their coming together.

Why: when some thousands start at once each hears the record of each, twenty-five million in all for
five thousand, which takes a simulator far longer than what one wants to see afterwards.

Rules:
- Every node is handed a copy of one table, in which each record is what its node would say itself.
- Nothing else is made up: links, neighbours and coordinators are what the nodes make of it.
"""

from __future__ import annotations

from meshslm.core.coordinators import may_coordinate
from meshslm.core.growth_events import SealStatement
from meshslm.core.members import Members
from meshslm.core.node import NodeCore
from meshslm.core.records import Fact, checked
from meshslm.core.rendezvous import Rendezvous, key_of, shares
from meshslm.errors import OurFault
from meshslm.sim.node import SECOND, MakeCore, SimNode
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Scenario
from meshslm.sim.sealing import sealed, signed_by
from meshslm.wire.codec import encode

CALM_S = 24
"""From the beginning until links that were needed to find others are closed."""


def standing(
    scenario: Scenario, seed: int, make_core: MakeCore = NodeCore, calm_s: int = CALM_S
) -> Simulation:
    """A mesh beyond `full_mesh` others in which everybody knows everybody from the beginning.

    It has gone on for `calm_s` virtual seconds. Raises `OurFault` where it is too small.
    """
    if scenario.nodes <= scenario.full_mesh + 1:
        raise OurFault(f"{scenario.nodes} nodes link each other: they have no table of members")
    simulation = Simulation(scenario, seed, make_core)
    world = simulation.world
    for node in world.nodes:
        world.boot(node)
    world.call(0, lambda: _hand_out(world.nodes, world.now))
    simulation.watch()
    world.run_until(calm_s * SECOND)
    return simulation


def _hand_out(nodes: tuple[SimNode, ...], now: int) -> None:
    table = Members(_nobody, _nobody)
    for node in nodes:
        record = _core(node).growth.says()
        fact = checked(sealed(node.id, SealStatement(encode(record))).signed, signed_by)
        assert isinstance(fact, Fact), "a record is no accusation"
        table.take(fact, node.clock.read(now))
    coordinating = _coordinating(table)
    for node in nodes:
        _core(node).growth.resume(table, coordinating, node.clock.read(now))


def _coordinating(table: Members) -> Rendezvous:
    """Who coordinates what: the same for all, so it is found once."""
    eligible = dict.fromkeys(fact.record.node for fact in table.all() if may_coordinate(fact))
    found = Rendezvous(lambda: eligible)
    for topic in table.topics:
        parts = shares(len(table.providers(topic)))
        for share in range(parts):
            found.of(key_of(topic, share, parts))
    return found


def _core(node: SimNode) -> NodeCore:
    assert isinstance(node.core, NodeCore), "only production's cores keep such tables"
    return node.core


def _nobody(_fact: Fact) -> None:
    """The table that is copied is nobody's."""
