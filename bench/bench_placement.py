"""How well requests are placed: every strategy against an oracle, in a simulated mesh of 100 nodes.

Production cores with a link between every two, fast and slow machines, and loads that are stale by
a presence or two. The oracle is the same core with one change: it knows every queue to the token,
and sends each request to where it will be done first. Only how long an answer will be at one node
rather than at another, which differs with the node and is no merit of a choice, it takes as the
mean over all who could answer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from heapq import heapreplace
from statistics import mean, pstdev
from typing import Final

from bench.table import Row
from meshslm.adapters.scripted_engine import prompt_tokens
from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Refusal, Verdict
from meshslm.core.config import CoreConfig
from meshslm.core.node import NodeCore
from meshslm.core.route import decide
from meshslm.core.strategies import AUTO, STRATEGIES
from meshslm.ids import NodeId, ms_between
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation, rare_collections
from meshslm.sim.scenario import Network, Profile, Scenario, Workload
from meshslm.sim.topology import Group
from meshslm.wire.messages import TaskRequest

SEED: Final = 5
NODES: Final = 100
SECONDS: Final = 70.0
WARM_S: Final = 30.0
"""Until then the mesh finds itself and nothing has been measured: not counted."""
ORACLE: Final = "oracle"
ORACLE_MOST: Final = 1.25
DOMAINS: Final = ("code", "writing", "maths", "health")
TPS: Final = 6.0
SLOTS: Final = 2


def scenario(tasks_per_second: float, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """Servers, desktops and boards, with answers of several seconds."""
    return Scenario(
        name="placement",
        nodes=nodes,
        seconds=seconds,
        quiet_s=5.0,
        full_mesh=nodes,
        network=Network(latency_ms=2.0, latency_spread=0.7, jitter_ms=0.5),
        profiles=tuple(
            Profile(
                name=f"{domain}-small",
                domains=(domain,),
                slots=SLOTS,
                prefill_tps=40 * TPS,
                decode_tps=TPS,
            )
            for domain in DOMAINS
        ),
        groups=(
            Group(name="servers", share=0.2, speed=3.0),
            Group(name="desktops", share=0.5, speed=1.0),
            Group(name="boards", share=0.3, speed=0.4),
        ),
        workload=Workload(
            tasks_per_second=tasks_per_second,
            tokens_short=(8, 40),
            tokens_long=(64, 128),
            long_share=0.3,
            cancel_share=0.0,
            choices_share=0.0,
            deadline_s=120.0,
        ),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy came to."""

    p50_s: float
    p99_s: float
    used: float
    """Mean share of slot time in which something was generated."""
    spread: float
    """Deviation of that among nodes."""
    lost: int


class Oracle:
    """Knows when every slot of every engine will be free."""

    def __init__(self) -> None:
        self.simulation: Simulation | None = None
        self._slots: dict[tuple[int, str], list[float]] = {}

    def core(self, config: CoreConfig, chance: Chance) -> NodeCore:
        """A core whose choices are the oracle's."""
        core = NodeCore(config, chance)
        inner = chance.fork("oracle")

        def route(
            request: TaskRequest, tried: list[NodeId], candidates: list[Candidate]
        ) -> Verdict | Refusal:
            classifier = core._router._classifier(request)  # noqa: SLF001 - the same but for one thing
            decision = decide(request, candidates, tried, classifier, inner)
            if isinstance(decision.outcome, Refusal):
                return decision.outcome
            left = [a.candidate for a in decision.assessments if a.terms is not None]
            return Verdict(self._first_done(request, left), ORACLE)

        core._origin._choosing._route = route  # noqa: SLF001 - what makes it an oracle
        return core

    def _first_done(self, request: TaskRequest, left: list[Candidate]) -> Candidate:
        assert self.simulation is not None
        now = self.simulation.world.now / SECOND
        places = [self._place(candidate, now) for candidate in left]
        work = [speed * service_s(self.simulation, *of, request) for of, speed, _, _ in places]
        expected = mean(work)
        ends = [max(at, slots[0]) + expected / speed for _, speed, at, slots in places]
        best = min(range(len(left)), key=ends.__getitem__)
        _, speed, at, slots = places[best]
        heapreplace(slots, max(at, slots[0]) + work[best] / speed)
        return left[best]

    def _place(
        self, candidate: Candidate, now: float
    ) -> tuple[tuple[SimNode, str], float, float, list[float]]:
        """Node and profile, how fast it is, when a task would be there, and its slots."""
        assert self.simulation is not None
        node = self.simulation.world.node(candidate.node)
        profile = candidate.specialist.profile
        slots = self._slots.setdefault((node.index, profile), [0.0] * SLOTS)
        speed = speed_of(self.simulation.scenario, node.index)
        return (node, profile), speed, now + (candidate.rtt_ms or 0.0) / 2000.0, slots


def service_s(simulation: Simulation, node: SimNode, profile: str, request: TaskRequest) -> float:
    """How long a node will have a slot taken by a request."""
    said = simulation.engines.expected(node, profile, request, 0)
    tps = TPS * speed_of(simulation.scenario, node.index)
    return prompt_tokens(request) / (40 * tps) + len(said.tokens) / tps


def speed_of(scenario: Scenario, index: int) -> float:
    """How fast a node is."""
    seen = 0.0
    for group in scenario.groups:
        seen += group.share
        if index < round(scenario.nodes * seen):
            return group.speed
    return 1.0


def play(strategy: str, plan: Scenario, seed: int = SEED) -> Outcome:
    """Run the scenario under one strategy."""
    oracle = Oracle()

    def named(config: CoreConfig, chance: Chance) -> NodeCore:
        return NodeCore(replace(config, strategy=strategy), chance)

    make = oracle.core if strategy == ORACLE else named
    with rare_collections():
        simulation = Simulation(plan, seed, make)
        oracle.simulation = simulation
        simulation.run()
    counted = [r for r in simulation.tasks.records.values() if r.arrived >= WARM_S * SECOND]
    took = sorted(
        ms_between(r.arrived, r.ended) / 1000.0
        for r in counted
        if r.ended is not None and r.outcome == "answered"
    )
    busy: dict[int, float] = defaultdict(float)
    for record in counted:
        if record.route is not None and record.outcome == "answered":
            node = simulation.world.node(record.route.node)
            busy[node.index] += service_s(simulation, node, record.route.profile, record.request)
    window = (plan.seconds - plan.quiet_s - WARM_S) * SLOTS
    used = [busy[index] / window for index in range(plan.nodes)]
    return Outcome(
        took[len(took) // 2],
        took[len(took) * 99 // 100],
        mean(used),
        pstdev(used),
        len(counted) - len(took),
    )


def measure() -> list[Row]:
    """Every strategy and the oracle, on the same arrivals."""
    plan = scenario(RATE)
    outcomes = {name: play(name, plan) for name in (ORACLE, *STRATEGIES)}
    oracle, auto = outcomes[ORACLE], outcomes[AUTO]
    fixed = min(o.p99_s for name, o in outcomes.items() if name not in (ORACLE, AUTO))
    rows = []
    for name, outcome in outcomes.items():
        rows.append(
            Row(
                what=f"{name}: whole answer, p50 and p99",
                value=f"{outcome.p50_s:.2f} s, {outcome.p99_s:.2f} s; slots used "
                f"{outcome.used:.0%} ± {outcome.spread:.0%}; {outcome.lost} lost",
                against="" if name == ORACLE else f"oracle {oracle.p99_s:.2f} s",
                ratio="" if name == ORACLE else f"{outcome.p99_s / oracle.p99_s:.2f}",
                target=f"at most {ORACLE_MOST}, and below {fixed:.2f} s" if name == AUTO else "",
                reached=auto.p99_s <= ORACLE_MOST * oracle.p99_s and auto.p99_s < fixed
                if name == AUTO
                else None,
            )
        )
    return rows


RATE: Final = 32.0
"""Requests a second of the whole mesh: two thirds of what its servers and desktops can do."""
