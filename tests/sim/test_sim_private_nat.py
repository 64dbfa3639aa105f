"""A private mesh beyond a link between every two, most of it behind NAT: strangers and revoked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshslm.chance import Chance
from meshslm.core.admission_events import NoticeFound
from meshslm.core.certificates import Credentials
from meshslm.core.config import CoreConfig
from meshslm.core.node import NodeCore
from meshslm.core.views import ReachView
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.relays import Relays
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Scenario, Workload
from meshslm.sim.topology import Group
from meshslm.wire.admission import Credential
from tests.core.private_mesh import certificate, credential, notice, signed_with, verify
from tests.sim.large_mesh import growth
from tests.sim.test_sim_private_growth import Member

OTHER = b"another mesh's key".ljust(32)
NODES, SERVERS, FULL = 16, 4, 6
SETTLED_S = 30


class Behind(Member):
    """A member that relays by itself where it finds that others can dial it."""

    def __init__(self, config: CoreConfig, chance: Chance, shown: Credential) -> None:
        super().__init__(replace(config, relay="auto"), chance, shown)


def forged(config: CoreConfig) -> Credential:
    """Of this mesh by its name, and signed by another."""
    return Credential(signed_with(OTHER, certificate(config.node)))


def grown(strangers: int = 0, nodes: int = NODES, full_mesh: int = FULL) -> Simulation:
    """A private mesh of servers and homes that has come together, and strangers at its door."""
    homes = nodes - SERVERS
    idle = Scenario(
        name="private-nat",
        nodes=nodes,
        full_mesh=full_mesh,
        workload=Workload(tasks_per_second=0.0),
        groups=(
            Group(name="servers", share=SERVERS, relay=True),
            Group(name="homes", share=homes - homes // 2, nat="own"),
            Group(name="offices", share=homes // 2, nat="own", symmetric=True),
        ),
    )

    def make(config: CoreConfig, chance: Chance) -> Behind:
        stranger = config.name in {f"n{nodes - 1 - place}" for place in range(strangers)}
        core = Behind(config, chance, forged(config) if stranger else credential(config.node))
        if stranger:  # it holds its own certificate for good
            own = Credentials(OTHER, forged(config), verify)
            core = Behind(config, chance, forged(config))
            NodeCore.__init__(core, replace(config, relay="auto", credentials=own), chance)
        return core

    simulation = Simulation(idle, 7, make)
    simulation.begin()
    simulation.world.run_until(SETTLED_S * SECOND)
    return simulation


def reach(simulation: Simulation, node: SimNode) -> ReachView:
    assert isinstance(node.core, NodeCore)
    return node.core.status(node.clock.read(simulation.world.now)).reach


def relays(simulation: Simulation) -> Relays:
    reaching = simulation.world.network.reach
    assert reaching is not None
    return reaching.relays


def test_members_behind_nat_are_known_to_all_and_served_by_members() -> None:
    simulation = grown()
    world = simulation.world
    for node in world.nodes:
        assert growth(node).large
        assert len(growth(node).members) == NODES
        offers = reach(simulation, node).offers_relay
        assert offers is (node.index < SERVERS), "those who can be dialled relay by themselves"
    used = [relay.node for n in world.nodes for relay in reach(simulation, n).relays if relay.used]
    assert used
    assert set(used) <= {server.id for server in world.nodes[:SERVERS]}


def test_a_relay_that_is_revoked_is_nobodys_relay_any_more() -> None:
    simulation = grown()
    world = simulation.world
    busiest = max(world.nodes[:SERVERS], key=lambda n: len(relays(simulation).places(n)))
    assert relays(simulation).places(busiest)
    teller = world.nodes[SERVERS + 1]
    world.tell(teller, NoticeFound(notice("node", busiest.id)))
    world.run_until(world.now + 5 * SECOND)
    others = [node for node in world.nodes if node is not busiest]
    assert not busiest.ends, "nobody is linked to it any more"
    assert not [n.name for n in others if busiest.id in growth(n).members]
    assert not relays(simulation).places(busiest)
    assert not relays(simulation).of(busiest)
    world.run_until(world.now + 15 * SECOND)
    for node in others:
        assert busiest.id not in node.ends
        assert busiest.id not in [r.node for r in reach(simulation, node).relays if r.used]
        assert len(growth(node).members) == NODES - 1
    assert not simulation.violations.kept


@pytest.mark.long
def test_eighty_members_come_together_by_four_relays_and_lose_one() -> None:
    simulation = grown(nodes=80, full_mesh=64)
    world = simulation.world
    world.run_until(90 * SECOND)  # four relays carry few of the pairs: the rest hears by others
    for node in world.nodes:
        assert growth(node).large
        assert len(growth(node).members) == 80
    busiest = max(world.nodes[:SERVERS], key=lambda n: len(relays(simulation).places(n)))
    world.tell(world.nodes[SERVERS + 1], NoticeFound(notice("node", busiest.id)))
    world.run_until(world.now + 5 * SECOND)
    assert not busiest.ends, "nobody is linked to it any more"
    others = [node for node in world.nodes if node is not busiest]
    assert not [node.name for node in others if busiest.id in growth(node).members]
    assert not simulation.violations.kept


def test_strangers_behind_nat_get_no_link_no_place_and_no_name() -> None:
    strangers = 3
    simulation = grown(strangers)
    world = simulation.world
    inside, outside = world.nodes[: NODES - strangers], world.nodes[NODES - strangers :]
    names = [stranger.id for stranger in outside]
    for node in inside:
        assert len(growth(node).members) == NODES - strangers
        assert not [name for name in names if name in growth(node).members]
        assert isinstance(node.core, NodeCore)
        seen = node.core.peers(node.clock.read(world.now))
        assert not [peer for peer in seen if peer.node in names and peer.state == "alive"]
    for server in world.nodes[:SERVERS]:
        assert not set(relays(simulation).places(server)) & set(names)
        assert isinstance(server.core, NodeCore)
        assert not any(server.core.may_relay(name) for name in names)
    for stranger in outside:
        assert isinstance(stranger.core, NodeCore)
        seen = stranger.core.peers(stranger.clock.read(world.now))
        assert not [peer for peer in seen if peer.state == "alive"]
        assert not any(peer.specialists for peer in seen if peer.state != "self")
