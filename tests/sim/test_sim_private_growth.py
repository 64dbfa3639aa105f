"""A private mesh beyond a link between every two: certificates hold of those who are not linked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshslm.chance import Chance
from meshslm.core.admission_events import (
    ClockRead,
    IssueCredential,
    KeepCredential,
    KeepNotice,
    NoticeFound,
)
from meshslm.core.certificates import Act, Credentials
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    EmitChunk,
    Event,
    FailTask,
    FinishTask,
    RouteChosen,
    Started,
    TaskArrived,
)
from meshslm.core.growth_events import SealStatement
from meshslm.core.node import NodeCore
from meshslm.ids import Instant, TaskId
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Profile, Scenario, Workload
from meshslm.sim.sealing import sealed
from meshslm.wire.admission import Credential
from meshslm.wire.codec import encode
from meshslm.wire.growth import Facts
from meshslm.wire.messages import ChatMessage, TaskRequest
from tests.core.private_mesh import NOW, ROOT, credential, notice, verify
from tests.sim.large_mesh import growth

NODES, FULL, SEED = 16, 6, 7
SETTLED_S = 25
PROFILES = (
    Profile(name="coder", domains=("code",)),
    Profile(name="lawyer", domains=("law",)),
    Profile(name="all-round", domains=("general",)),
)

KEPT = (IssueCredential, KeepCredential, KeepNotice)
ANSWERS = (RouteChosen, EmitChunk, FinishTask, FailTask)


class Member(NodeCore):
    """A core with a certificate, whose wall clock is right; what it would write down is dropped."""

    def __init__(self, config: CoreConfig, chance: Chance, shown: Credential) -> None:
        super().__init__(replace(config, credentials=Credentials(ROOT, shown, verify)), chance)
        self.answered: list[Any] = []

    def handle(self, event: Event, now: Instant) -> list[Any]:
        effects = list(super().handle(ClockRead(NOW), now)) if isinstance(event, Started) else []
        effects += super().handle(event, now)
        self.answered += [effect for effect in effects if isinstance(effect, ANSWERS)]
        return [effect for effect in effects if not isinstance(effect, (*KEPT, *ANSWERS))]


def grown(shows: dict[str, dict[str, object]]) -> Simulation:
    """A private mesh that has come together; some certificates have other fields."""
    idle = Scenario(
        name="private",
        nodes=NODES,
        full_mesh=FULL,
        profiles=PROFILES,
        workload=Workload(tasks_per_second=0.0),
    )

    def make(config: CoreConfig, chance: Chance) -> Member:
        return Member(config, chance, credential(config.node, **shows.get(config.name, {})))

    simulation = Simulation(idle, SEED, make)
    simulation.begin()
    simulation.world.run_until(SETTLED_S * SECOND)
    return simulation


def unlinked(simulation: Simulation, subject: SimNode) -> SimNode:
    """Somebody who is not linked to a node."""
    return next(
        node
        for node in simulation.world.nodes
        if node is not subject and node.living and subject.id not in node.ends
    )


def hosted(simulation: Simulation, name: str) -> list[SimNode]:
    return [n for n in simulation.world.nodes if PROFILES[n.index % len(PROFILES)].name == name]


def ask(simulation: Simulation, node: SimNode, selector: str) -> list[Any]:
    """What becomes of a question at a node within ten seconds."""
    request = TaskRequest(selector, (ChatMessage("user", "hello"),), max_tokens=4)
    core = node.core
    assert isinstance(core, Member)
    core.answered.clear()
    simulation.world.tell(node, TaskArrived(TaskId("t1"), request))
    simulation.world.run_until(simulation.world.now + 10 * SECOND)
    return core.answered


def test_certificates_hold_of_members_that_are_not_linked() -> None:
    simulation = grown({})
    for node in simulation.world.nodes:
        assert growth(node).large
        assert len(growth(node).members) == NODES
    subject = simulation.world.nodes[9]
    far = unlinked(simulation, subject)
    fact = growth(far).members.get(subject.id)
    assert fact is not None
    assert fact.record.credential is not None


def test_who_is_revoked_is_forgotten_by_all_and_cannot_come_back_by_others_words() -> None:
    simulation = grown({})
    world = simulation.world
    subject = world.nodes[9]
    fact = growth(world.nodes[4]).members.get(subject.id)
    assert fact is not None
    world.tell(world.nodes[0], NoticeFound(notice("node", subject.id)))
    world.run_until(world.now + 5 * SECOND)
    others = [node for node in world.nodes if node is not subject]
    assert not [n.name for n in others if subject.id in growth(n).members]
    assert not subject.ends, "nobody is linked to it any more"
    newer = replace(fact.record, counter=fact.record.counter + 1)
    word = sealed(subject.id, SealStatement(encode(newer))).signed
    node = others[3]
    teller = next(iter(growth(node).overlay.neighbours))
    world.happen(node, BytesReceived(teller, encode(Facts((word,)))))
    world.run_until(world.now + 30 * SECOND)
    assert not [n.name for n in others if subject.id in growth(n).members]


def test_what_a_certificate_does_not_cover_is_not_found_by_anybody() -> None:
    narrow: dict[str, object] = {"rights": (Act.SERVE,), "domains": ("code",)}
    lawyers = {f"n{number}": narrow for number in range(1, NODES, len(PROFILES))}
    simulation = grown(lawyers)
    world = simulation.world
    assert hosted(simulation, "lawyer")
    for node in world.nodes:
        assert "law" not in growth(node).members.topics or node.name in lawyers
        for lawyer in hosted(simulation, "lawyer"):
            fact = growth(node).members.get(lawyer.id)
            assert fact is not None
            assert not fact.capability.specialists
    asker = unlinked(simulation, hosted(simulation, "lawyer")[0])
    assert asker.name not in lawyers
    (failed,) = ask(simulation, asker, "lawyer")
    assert isinstance(failed, FailTask)
    route, *_, end = ask(simulation, asker, "coder")
    assert isinstance(route, RouteChosen)
    assert isinstance(end, FinishTask)


def test_nobody_asks_a_coordinator_that_may_not_be_one() -> None:
    serving: dict[str, object] = {"rights": (Act.SUBMIT, Act.SERVE)}
    simulation = grown({f"n{number}": serving for number in range(NODES - 4)})
    may = {node.id for node in simulation.world.nodes[NODES - 4 :]}
    for node in simulation.world.nodes:
        for topic in ("code", "law", "general"):
            chosen = growth(node).coordinators.of(topic)
            assert len(chosen) == 3
            assert set(chosen) <= may
