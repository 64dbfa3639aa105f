"""How well requests are placed: every strategy against an oracle, in a simulated mesh of 100 nodes.

Production cores, fast and slow machines, and loads that are stale. The main case is what 100 nodes
do by default: beyond 64 others each is linked with some, and hears of the rest from coordinators.
The other has a link between every two.

The oracle is the same core with a link to everybody, and knows every queue to the token: it sends
each request to where it will be done first. Only how long an answer will be at one node rather than
at another, which differs with the node and is no merit of a choice, it takes as the mean over all
who could answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapreplace
from statistics import mean, pstdev
from typing import Final

from bench.table import Row
from bench.worlds import Work, side_by_side
from meshslm import mesh_limits
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

SEEDS: Final = (5, 6, 7)
NODES: Final = 100
SECONDS: Final = 70.0
WARM_S: Final = 30.0
"""Until then the mesh finds itself and nothing has been measured: not counted."""
ORACLE: Final = "oracle"
ORACLE_MOST: Final = 1.25
PARTIAL: Final = "partial views"
ALL: Final = "all linked"
DOMAINS: Final = ("code", "writing", "maths", "health")
TPS: Final = 6.0
SLOTS: Final = 2
RTT_MS: Final = 4.0
"""There and back, of most pairs."""
RATE: Final = 32.0
"""Requests a second of the whole mesh: two thirds of what its servers and desktops can do."""


def scenario(tasks_per_second: float, links: str) -> Scenario:
    """Servers, desktops and boards, with answers of several seconds."""
    return Scenario(
        name="placement",
        nodes=NODES,
        seconds=SECONDS,
        quiet_s=5.0,
        full_mesh=NODES if links == ALL else mesh_limits.FULL_MESH,
        network=Network(latency_ms=RTT_MS / 2, latency_spread=0.7, jitter_ms=0.5),
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


class Oracle:
    """Knows everybody, and when every slot of every engine will be free."""

    def __init__(self) -> None:
        self.simulation: Simulation | None = None
        self._everybody: list[Candidate] = []
        self._slots: dict[tuple[int, str], list[float]] = {}

    def core(self, config: CoreConfig, chance: Chance) -> NodeCore:
        """A core whose choices are the oracle's."""
        core = NodeCore(config, chance)
        inner = chance.fork("oracle")

        def route(
            request: TaskRequest, tried: list[NodeId], _known: list[Candidate]
        ) -> Verdict | Refusal:
            classifier = core._router._classifier(request)  # noqa: SLF001 - the same but for one thing
            decision = decide(request, self._all(), tried, classifier, inner)
            if isinstance(decision.outcome, Refusal):
                return decision.outcome
            left = [a.candidate for a in decision.assessments if a.terms is not None]
            left = inner.shuffled(left)  # or of equal ones always the same would be asked
            return Verdict(self._first_done(request, left), ORACLE)

        core._origin._choosing._route = route  # noqa: SLF001 - what makes it an oracle
        return core

    def _all(self) -> list[Candidate]:
        """Every specialist of the mesh, whoever of them the asking node has heard of."""
        assert self.simulation is not None
        if not self._everybody:
            hosted = self.simulation.engines.hosted
            for node in self.simulation.world.nodes:
                for specialist in hosted(node):
                    self._everybody.append(Candidate(node.id, node.name, specialist, None, RTT_MS))
        return self._everybody

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
        return (node, profile), speed, now + RTT_MS / 2000.0, slots


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


@dataclass(frozen=True, slots=True)
class Play:
    """One run of the scenario."""

    strategy: str
    links: str
    """`PARTIAL`: as meshes of so many nodes do by default; `ALL`: between every two."""
    seed: int

    def __str__(self) -> str:
        return f"{self.strategy}, {self.links}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of what was asked."""

    took_s: tuple[float, ...]
    """Of whole answers, ascending."""
    used: tuple[float, ...]
    """Of each node, the share of slot time in which something was generated."""
    lost: int

    @property
    def p50_s(self) -> float:
        """Half of the answers took longer."""
        return self.took_s[len(self.took_s) // 2]

    @property
    def p99_s(self) -> float:
        """One in a hundred took longer."""
        return self.took_s[len(self.took_s) * 99 // 100]

    def __add__(self, other: Outcome) -> Outcome:
        """Both as one sample."""
        took = tuple(sorted(self.took_s + other.took_s))
        return Outcome(took, self.used + other.used, self.lost + other.lost)


def play(what: Play, rate: float = RATE) -> Outcome:
    """Run the scenario under one strategy."""
    plan, oracle = scenario(rate, what.links), Oracle()

    def named(config: CoreConfig, chance: Chance) -> NodeCore:
        return NodeCore(replace(config, strategy=what.strategy), chance)

    make = oracle.core if what.strategy == ORACLE else named
    with rare_collections():
        simulation = Simulation(plan, what.seed, make)
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
    used = tuple(busy[index] / window for index in range(plan.nodes))
    return Outcome(tuple(took), used, len(counted) - len(took))


def played(plays: Sequence[Play]) -> dict[Play, Outcome]:
    """All of them, two at a time; with a link between every two they take longest."""
    works = [Work(str(one), play, (one,), 1.0 if one.links == ALL else 0.5) for one in plays]
    return dict(zip(plays, side_by_side(works), strict=True))


def measure() -> list[Row]:
    """Every strategy and the oracle, on the same arrivals."""
    plays = [Play(ORACLE, ALL, seed) for seed in SEEDS]
    plays += [Play(name, PARTIAL, seed) for name in STRATEGIES for seed in SEEDS]
    plays += [Play(name, ALL, SEEDS[0]) for name in STRATEGIES]
    found = played(plays)
    return [*_rows(found, PARTIAL), *_rows(found, ALL)]


def _rows(found: Mapping[Play, Outcome], links: str) -> Iterator[Row]:
    """One case: each strategy's figures, then what is to be reached."""
    seeds = [play.seed for play in found if play.strategy == AUTO and play.links == links]
    oracle = _all_of(found, [Play(ORACLE, ALL, seed) for seed in seeds])
    fixed = {}
    for name in STRATEGIES:
        fixed[name] = _all_of(found, [Play(name, links, seed) for seed in seeds])
        yield _row(f"{name}, {links}", fixed[name], oracle)
    yield _row(f"oracle, beside {links}", oracle, oracle)
    auto = fixed.pop(AUTO)
    ratios = [
        found[Play(AUTO, links, seed)].p99_s / found[Play(ORACLE, ALL, seed)].p99_s
        for seed in seeds
    ]
    within = auto.p99_s / oracle.p99_s
    yield Row(
        what=f"auto within {ORACLE_MOST} of the oracle, {links}",
        value=f"p99 {auto.p99_s:.2f} s; by seed {', '.join(f'{r:.2f}' for r in sorted(ratios))}",
        against=f"oracle {oracle.p99_s:.2f} s",
        ratio=f"{within:.2f}",
        target=f"at most {ORACLE_MOST}",
        reached=within <= ORACLE_MOST,
    )
    best = min(fixed, key=lambda name: fixed[name].p99_s)
    yield Row(
        what=f"auto better than every fixed strategy, {links}",
        value=f"p99 {auto.p99_s:.2f} s",
        against=f"{best} {fixed[best].p99_s:.2f} s",
        ratio=f"{auto.p99_s / fixed[best].p99_s:.2f}",
        target="below 1",
        reached=auto.p99_s < fixed[best].p99_s,
    )
    soon = min(fixed, key=lambda name: fixed[name].p50_s)
    yield Row(
        what=f"auto beside the fixed strategy that is best for most, {links}",
        value=f"p50 {auto.p50_s:.2f} s, p99 {auto.p99_s:.2f} s",
        against=f"{soon} {fixed[soon].p50_s:.2f} s, {fixed[soon].p99_s:.2f} s",
        ratio=f"{auto.p50_s / fixed[soon].p50_s:.2f}",
    )


def _all_of(found: Mapping[Play, Outcome], plays: Sequence[Play]) -> Outcome:
    first, *others = (found[one] for one in plays)
    return sum(others, first)


def _row(what: str, outcome: Outcome, oracle: Outcome) -> Row:
    used = outcome.used
    return Row(
        what=f"{what}: whole answer, p50 and p99",
        value=f"{outcome.p50_s:.2f} s, {outcome.p99_s:.2f} s; slots used {mean(used):.0%} ± "
        f"{pstdev(used):.0%}; {outcome.lost} lost",
        against="" if outcome is oracle else f"oracle {oracle.p50_s:.2f} s, {oracle.p99_s:.2f} s",
        ratio="" if outcome is oracle else f"{outcome.p99_s / oracle.p99_s:.2f}",
    )
