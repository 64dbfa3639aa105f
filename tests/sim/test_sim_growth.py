"""A mesh beyond a link between every two, whole: small ones, told that eight others are many."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from meshslm.core.events import BytesReceived, Event, HostingChanged, Tell
from meshslm.core.growth_events import SealStatement
from meshslm.core.node import NodeCore
from meshslm.ids import Instant, NodeId
from meshslm.sim.fault_kinds import Fault, Hang, Kill, Leave, Partition
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.report import Report
from meshslm.sim.run import Simulation, run
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.sealing import sealed
from meshslm.sim.stopwatch import until, until_dropped
from meshslm.wire.codec import encode
from meshslm.wire.growth import Accusation, Facts
from meshslm.wire.messages import Hardware
from tests.sim.large_mesh import Chatty, growth

NODES, FULL = 20, 8
SEED = 7
IDLE = Workload(tasks_per_second=0.0)
BUSY = Workload(tasks_per_second=2.0, start_s=20)
SETTLED_S = 22


def scenario(*faults: Fault, seconds: float = 60, answered: float = 0.97) -> Scenario:
    return Scenario(
        name="growth",
        nodes=NODES,
        full_mesh=FULL,
        seconds=seconds,
        workload=BUSY,
        faults=faults,
        checks=Checks(converge_s=30, invariants_every=16, answered_share=answered),
    )


def grown(
    nodes: int = NODES, full: int = FULL, make_core: Any = NodeCore, seed: int = SEED
) -> Simulation:
    """A mesh that has come together."""
    idle = Scenario(name="grown", nodes=nodes, full_mesh=full, workload=IDLE)
    simulation = Simulation(idle, seed, make_core)
    simulation.begin()
    simulation.world.run_until(SETTLED_S * SECOND)
    assert simulation.views.converged
    return simulation


def sound(report: Report) -> None:
    assert report.ok, report.violations[:3]


def test_everybody_knows_everybody_with_few_links_and_little_traffic() -> None:
    simulation = grown()
    world = simulation.world
    world.run_until(60 * SECOND)
    sent = [node.sent_bytes for node in world.nodes]
    world.run_until(80 * SECOND)
    for node, before in zip(world.nodes, sent, strict=True):
        assert growth(node).large
        assert len(growth(node).members) == NODES
        assert 4 <= len(growth(node).overlay.neighbours) <= 12
        assert len(node.ends) < NODES - 1
        assert (node.sent_bytes - before) / 20 < 1_000
    assert simulation.violations.counts == {}


def test_a_mesh_within_the_bound_says_and_keeps_nothing_of_all_this() -> None:
    simulation = grown(nodes=9)
    for node in simulation.world.nodes:
        assert not growth(node).large
        assert len(growth(node).members) == 0
        assert len(node.ends) == 8


def test_a_mesh_that_shrinks_links_everybody_with_everybody_again() -> None:
    simulation = grown(nodes=14)
    world = simulation.world
    for node in world.nodes[7:]:
        world.kill(node)
    simulation.views.changed("kill", world.now)
    world.run_until(world.now + 90 * SECOND)
    for node in world.nodes[:7]:
        assert not growth(node).large
        assert len(node.ends) == 6
    assert simulation.violations.counts == {}


def test_tasks_find_their_specialists_and_the_same_seed_does_the_same() -> None:
    report = run(scenario(seconds=45), seed=SEED)
    sound(report)
    assert report.tasks.answered > 20
    again = run(scenario(seconds=45), seed=SEED)
    assert again.trace == report.trace


@pytest.mark.parametrize(
    "fault",
    [
        Kill(at_s=25, count=3),
        Kill(at_s=25, count=2, back_after_s=6),
        pytest.param(
            Kill(at_s=25, count=2, back_after_s=6, disk_lost=True), marks=pytest.mark.long
        ),
        pytest.param(Hang(at_s=25, count=2, for_s=15), marks=pytest.mark.long),
        Hang(at_s=25, count=1, for_s=25, clock_stops=True),
        Leave(at_s=25, count=2),
    ],
    ids=["kill", "restart", "another disk", "hang", "sleep", "leave"],
)
def test_who_goes_is_gone_for_all_and_who_comes_back_is_back(fault: Fault) -> None:
    sound(run(scenario(fault), seed=SEED))


def test_both_halves_of_a_cut_mesh_go_on_and_become_one_again() -> None:
    # A half may lack a domain, and then nobody there can answer.
    sound(run(scenario(Partition(at_s=25, for_s=25), seconds=70, answered=0.8), seed=SEED))


@pytest.mark.parametrize(
    "strike",
    [
        "hang",
        "mute",
        pytest.param("power loss", marks=pytest.mark.long),
        pytest.param("kill", marks=pytest.mark.long),
    ],
)
def test_a_loss_is_known_to_all_within_five_seconds(strike: str) -> None:
    simulation = grown()
    world, victim = simulation.world, simulation.world.nodes[-1]
    match strike:
        case "hang":
            world.hang(victim)
        case "mute":
            world.network.mute(victim.index, on=True)
        case _:
            world.kill(victim, silent=strike == "power loss")
    timing = until_dropped(simulation, victim)
    assert timing.first_ms is not None
    assert timing.all_ms is not None
    assert timing.all_ms <= 5_000


@pytest.mark.parametrize(
    "seed", [SEED, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 4, 15, 20))]
)
def test_who_dies_next_is_missed_as_soon_though_paths_of_news_have_broken(seed: int) -> None:
    simulation = grown(seed=seed)
    for victim in simulation.world.nodes[-1:-4:-1]:
        simulation.world.hang(victim)
        timing = until_dropped(simulation, victim)
        assert timing.first_ms is not None
        assert timing.first_ms <= 3_000
        assert timing.all_ms is not None
        assert timing.all_ms <= 4_500
        simulation.world.kill(victim, silent=True)


def test_a_change_is_known_to_all_within_two_seconds() -> None:
    simulation = grown()
    subject = simulation.world.nodes[11]
    simulation.world.tell(subject, HostingChanged((), Hardware()))

    def knows(node: SimNode) -> bool:
        fact = growth(node).members.get(subject.id)
        return fact is not None and fact.record.services == ()

    timing = until(simulation, subject, knows)
    assert timing.all_ms is not None
    assert timing.all_ms <= 2_000


class Telling(NodeCore):
    """Counts refutations."""

    refuted: ClassVar[int] = 0

    def handle(self, event: Event, now: Instant) -> list[Any]:
        effects = super().handle(event, now)
        Telling.refuted += sum(
            isinstance(effect, Tell) and effect.topic == "peer.refuted" for effect in effects
        )
        return effects


def test_at_five_per_cent_loss_nobody_is_wronged() -> None:
    lossy = Scenario(
        name="lossy", nodes=NODES, full_mesh=FULL, workload=IDLE, network=Network(loss=0.05)
    )
    simulation = Simulation(lossy, SEED, Telling)
    simulation.begin()
    simulation.world.run_until(30 * SECOND)
    Telling.refuted = 0
    for second in range(30, 75):
        simulation.world.run_until((second + 1) * SECOND)
        assert all(len(growth(node).members) == NODES for node in simulation.world.nodes)
    assert Telling.refuted == 0


def coordinators(simulation: Simulation, topic: str) -> tuple[NodeId, ...]:
    """As the first living node sees them; all must agree."""
    seen = [growth(n).coordinators.of(topic) for n in simulation.world.nodes if n.living]
    assert all(names == seen[0] for names in seen)
    return seen[0]


def test_coordinators_that_die_are_replaced_in_seconds_and_nothing_is_lost() -> None:
    simulation = grown()
    world = simulation.world
    topic = next(iter(growth(world.nodes[0]).members.topics))
    before = coordinators(simulation, topic)
    for node in before[:2]:
        world.kill(world.node(node), silent=True)
    world.run_until(world.now + 8 * SECOND)
    after = coordinators(simulation, topic)
    assert after[0] == before[2]
    assert len(after) == 3
    for name in after:
        core = world.node(name).core
        assert isinstance(core, NodeCore)
        linked = {peer.node for peer in core._directory.alive() if peer.capability is not None}
        providers = set(growth(world.node(name)).members.providers(topic)) - {name}
        assert providers <= linked, "it does not hear the load of everybody it coordinates"


def neighbours(simulation: Simulation) -> tuple[SimNode, SimNode]:
    """A node, and a neighbour of it."""
    node = simulation.world.nodes[5]
    return node, simulation.world.node(next(iter(growth(node).overlay.neighbours)))


def test_who_hands_on_a_forged_record_is_banned_and_not_believed() -> None:
    simulation = grown()
    world = simulation.world
    node, liar = neighbours(simulation)
    victim = next(n for n in world.nodes if n not in (node, liar))
    fact = growth(node).members.get(victim.id)
    assert fact is not None
    forged = sealed(liar.id, SealStatement(fact.signed.payload)).signed
    world.happen(node, BytesReceived(liar.id, encode(Facts((forged,)))))
    assert isinstance(node.core, NodeCore)
    banned = node.core.status(node.clock.read(world.now)).banned
    assert [ban.node for ban in banned] == [liar.id]
    assert growth(node).members.get(victim.id) is fact


def test_a_replayed_record_changes_nothing() -> None:
    simulation = grown()
    world = simulation.world
    node, teller = neighbours(simulation)
    subject = next(n for n in world.nodes if n not in (node, teller))
    old = growth(node).members.get(subject.id)
    assert old is not None
    world.tell(subject, HostingChanged((), Hardware()))
    world.run_until(world.now + 5 * SECOND)
    new = growth(node).members.get(subject.id)
    assert new is not old
    world.happen(node, BytesReceived(teller.id, encode(Facts((old.signed,)))))
    assert growth(node).members.get(subject.id) is new


def test_one_member_that_declares_everybody_dead_kills_nobody() -> None:
    simulation = grown(make_core=Telling)
    world = simulation.world
    node, liar = neighbours(simulation)
    lies = []
    for fact in growth(node).members.all():
        if fact.record.node not in (node.id, liar.id):
            said = Accusation(fact.record.node, fact.record.boot, fact.record.life, liar.id)
            lies.append(sealed(liar.id, SealStatement(encode(said))).signed)
    Telling.refuted = 0
    world.happen(node, BytesReceived(liar.id, encode(Facts(tuple(lies)))))
    for second in range(10):
        world.run_until(world.now + SECOND)
        for other in world.nodes:
            assert len(growth(other).members) == NODES, f"after {second} s"
    assert Telling.refuted == len(lies)
    assert not any(growth(n).members.is_accused(o.id) for n in world.nodes for o in world.nodes)


def test_news_goes_along_a_tree() -> None:
    simulation = grown(make_core=Chatty)
    world = simulation.world
    for round_of_news in range(12):
        if round_of_news == 10:
            Chatty.kinds.clear()
        world.tell(world.nodes[3], HostingChanged((), Hardware(cores=round_of_news + 1)))
        world.run_until(world.now + 3 * SECOND)
    assert Chatty.kinds["Facts"] <= 2 * 2 * NODES, "each node hands news on to two at most"


def test_what_can_wait_is_not_told_by_all_at_the_same_moment() -> None:
    idle = Scenario(name="herd", nodes=30, full_mesh=FULL, workload=IDLE)
    simulation = Simulation(idle, SEED, Chatty)
    simulation.begin()
    world = simulation.world
    world.run_until(14 * SECOND)
    told = []
    for _ in range(40):
        Chatty.kinds.clear()
        world.run_until(world.now + SECOND)
        told.append(Chatty.kinds["Facts"])
    own = [growth(node).members.get(node.id) for node in world.nodes]
    assert all(fact is not None and fact.record.dialled for fact in own)
    assert sum(told) >= 2 * 30, "each tells two others at least"
    assert max(told) <= sum(told) / 5


@pytest.mark.long
def test_a_thousand_nodes_come_together_and_stay_cheap() -> None:
    idle = Scenario(
        name="thousand", nodes=1_000, workload=IDLE, checks=Checks(invariants_every=1024)
    )
    simulation = Simulation(idle, SEED, NodeCore)
    simulation.begin()
    world = simulation.world
    world.run_until(40 * SECOND)
    assert simulation.views.converged
    sent = [node.sent_bytes for node in world.nodes]
    world.run_until(60 * SECOND)
    spent = sorted((n.sent_bytes - b) / 20 for n, b in zip(world.nodes, sent, strict=True))
    assert spent[500] <= 1_000
    assert spent[-1] <= 4_000
    victim = world.nodes[-1]
    world.hang(victim)
    timing = until(simulation, victim, lambda n: victim.id not in growth(n).members)
    assert timing.all_ms is not None
    assert timing.all_ms <= 5_000
