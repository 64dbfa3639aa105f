"""Whole runs of production's core: scenarios hold, faults are overcome, and seeds decide it all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import EmitChunk, Event, FinishTask, RouteChosen, TaskArrived, TimerFired
from meshslm.core.node import NodeCore
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.sim.checkers import TaskRecord
from meshslm.sim.fault_kinds import (
    Churn,
    ClockFault,
    Clog,
    Cut,
    EngineCrash,
    Fault,
    Flap,
    Hang,
    Kill,
    Leave,
    OneWay,
    Partition,
    Rough,
    SlowDisk,
)
from meshslm.sim.node import SECOND
from meshslm.sim.run import Progress, Simulation, run
from meshslm.sim.scenario import Checks, Network, Profile, Scenario, Workload, load_scenario
from meshslm.wire.messages import ChatMessage, TaskRequest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))
SMALL = Scenario(
    name="small",
    nodes=5,
    seconds=25.0,
    quiet_s=5.0,
    network=Network(loss=0.02, duplicate=0.02, reorder=0.05),
    workload=Workload(tasks_per_second=4.0, start_s=3.0),
    faults=(Kill(at_s=8.0, back_after_s=3.0), Partition(at_s=13.0, for_s=4.0)),
)

# --- the seed decides ---------------------------------------------------------------------------
ONE_RUN = """
from meshslm.sim.run import run
from tests.sim.test_sim_runs import SMALL
report = run(SMALL, seed=3)
print(report.trace, report.events, report.tasks.answered)
"""


def in_another_process(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", ONE_RUN],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    report = run(SMALL, seed=3)
    here = f"{report.trace} {report.events} {report.tasks.answered}\n"
    assert report.tasks.answered > 0
    assert [in_another_process(hash_seed) for hash_seed in ("0", "1", "4242")] == [here] * 3


def test_seeds_differ() -> None:
    assert len({run(SMALL, seed=seed).trace for seed in range(5)}) == 5


# --- the examples -------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_ends_as_it_says(file: Path, seed: int) -> None:
    scenario = load_scenario(file)
    report = run(scenario, seed=seed)
    assert report.tasks.sent > 0
    assert report.ok is (scenario.expect == "pass"), report.violations


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 40))
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_ends_as_it_says_with_many_seeds(file: Path, seed: int) -> None:
    scenario = load_scenario(file)
    report = run(scenario, seed=seed)
    assert report.ok is (scenario.expect == "pass"), report.violations


def test_there_is_a_scenario_that_must_fail() -> None:
    (canary,) = [file for file in EXAMPLES if load_scenario(file).expect == "fail"]
    report = run(load_scenario(canary), seed=1)
    assert not report.ok
    assert report.violation_counts["tokens"] > 0


# --- cores that are wrong -----------------------------------------------------------------------
class Forgetful(NodeCore):
    """Never tells its clients that it is done."""

    def handle(self, event: Event, now: Instant) -> list[Any]:
        return [e for e in super().handle(event, now) if not isinstance(e, FinishTask)]


class Stuttering(NodeCore):
    """Says every third piece of an answer twice."""

    def __init__(self, config: CoreConfig, chance: Chance) -> None:
        super().__init__(config, chance)
        self.said = 0

    def handle(self, event: Event, now: Instant) -> list[Any]:
        effects: list[Any] = []
        for effect in super().handle(event, now):
            effects.append(effect)
            if isinstance(effect, EmitChunk):
                self.said += 1
                if self.said % 3 == 0:
                    effects.append(effect)
        return effects


class Solitary(NodeCore):
    """Hears nobody after a while: its presences go out, those of others expire."""

    def handle(self, event: Event, now: Instant) -> list[Any]:
        late = now > 12 * SECOND and self.specialists() and self._config.name == "n2"
        return [] if late and not isinstance(event, TimerFired) else super().handle(event, now)


class Misdirecting(NodeCore):
    """Names another node than the one it has chosen."""

    def handle(self, event: Event, now: Instant) -> list[Any]:
        wrong = NodeId(self._config.node)
        return [
            RouteChosen(e.task, wrong, e.node_name, e.profile, e.model, e.digest, "", e.attempt)
            if isinstance(e, RouteChosen)
            else e
            for e in super().handle(event, now)
        ]


class Crashing(NodeCore):
    """Has a bug in what it does with a question."""

    def handle(self, event: Event, now: Instant) -> list[Any]:
        if isinstance(event, TaskArrived):
            raise KeyError("a bug")
        return super().handle(event, now)


@pytest.mark.parametrize(
    ("core", "found"),
    [
        (Forgetful, "task lost"),
        (Stuttering, "tokens"),
        (Solitary, "convergence"),
        (Misdirecting, "tokens"),
        (Crashing, "core"),
    ],
)
def test_a_wrong_core_is_found_out(core: type[NodeCore], found: str) -> None:
    scenario = Scenario(name="wrong", nodes=5, seconds=25.0, grace_s=5.0, quiet_s=5.0)
    assert found in run(scenario, seed=1, make_core=core).violation_counts


# --- faults -------------------------------------------------------------------------------------
def ask(simulation: Simulation, node: int, selector: str, max_tokens: int = 20) -> TaskRecord:
    """Let a client of one node ask now."""
    world = simulation.world
    home = world.nodes[node]
    request = TaskRequest(selector, (ChatMessage("user", "hello"),), max_tokens=max_tokens)
    task = TaskId(f"{world.now:032x}")
    record = TaskRecord(task, home, request, "code", "model", world.now)
    simulation.tasks.submitted(record)
    world.happen(home, TaskArrived(task, request))
    return record


CALM = Scenario(
    name="calm",
    nodes=3,
    boot_over_s=0.1,
    workload=Workload(tasks_per_second=0.0),
    profiles=(
        Profile(name="listener", domains=("general",)),
        Profile(name="coder", domains=("code",), prefill_tps=10.0),
        Profile(name="other-coder", domains=("code",), prefill_tps=10.0),
    ),
)


def settled(scenario: Scenario = CALM, seed: int = 1) -> Simulation:
    """A mesh whose members know each other."""
    simulation = Simulation(scenario, seed, NodeCore)
    simulation.begin()
    simulation.world.run_until(5 * SECOND)
    assert simulation.views.converged
    return simulation


@pytest.mark.parametrize("silent", [False, True], ids=["killed", "without power"])
def test_a_task_moves_on_when_its_node_dies_before_the_first_token(silent: bool) -> None:
    simulation = settled()
    world = simulation.world
    record = ask(simulation, 0, "domain:code")
    world.run_until(world.now + SECOND // 10)
    assert record.route is not None
    assert record.first_chunk is None
    world.kill(world.node(record.route.node), silent=silent)
    world.run_until(world.now + 30 * SECOND)
    assert record.outcome == "answered"
    assert record.attempts == 2
    assert simulation.violations.counts == {}


def test_a_task_whose_node_dies_after_the_first_token_fails_and_says_so() -> None:
    slow = Profile(name="coder", domains=("code",), decode_tps=5.0)
    simulation = settled(replace(CALM, profiles=(slow,)))
    world = simulation.world
    record = ask(simulation, 0, "coder@n1", max_tokens=60)
    while record.first_chunk is None:
        world.run_until(world.now + SECOND // 10)
    world.kill(world.nodes[1])
    world.run_until(world.now + 5 * SECOND)
    assert (record.outcome, record.code) == ("failed", "peer_lost")
    assert simulation.violations.counts == {}


def test_a_partition_heals() -> None:
    scenario = Scenario(
        name="split",
        nodes=8,
        seconds=40.0,
        workload=Workload(tasks_per_second=0.0),
        faults=(Partition(at_s=8.0, for_s=12.0),),
    )
    report = run(scenario, seed=2)
    assert report.ok, report.violations
    assert [entry.change for entry in report.convergence] == ["start", "heal"]
    assert all(entry.took_ms is not None for entry in report.convergence)


def test_a_silent_death_is_noticed_within_seconds() -> None:
    scenario = Scenario(
        name="power loss",
        nodes=6,
        seconds=30.0,
        workload=Workload(tasks_per_second=0.0),
        faults=(Kill(at_s=10.0, silent=True),),
    )
    report = run(scenario, seed=5)
    assert report.ok
    took = report.convergence[-1].took_ms
    assert took is not None
    assert 1_500 < took < 5_000


def test_a_mesh_that_cannot_converge_fails() -> None:
    scenario = Scenario(name="never", nodes=4, seconds=10.0, grace_s=5.0, network=Network(loss=1.0))
    assert "convergence" in run(scenario, seed=1).violation_counts


def test_demands_of_a_scenario_are_checked() -> None:
    lossy = Scenario(
        name="demanding",
        nodes=4,
        seconds=20.0,
        faults=(Kill(at_s=8.0, count=3),),
        checks=Checks(answered_share=1.0, right_domain_share=1.0),
    )
    counts = run(lossy, seed=1).violation_counts
    assert "answered" in counts
    assert "right domain" in counts


# --- figures ------------------------------------------------------------------------------------
def test_a_report_adds_up() -> None:
    steps: list[Progress] = []
    report = run(SMALL, seed=4, on_progress=steps.append)
    tasks = report.tasks
    ends = tasks.answered + tasks.refused + tasks.cancelled + tasks.orphaned + tasks.lost
    assert ends == tasks.sent
    assert sum(tasks.refusals.values()) == tasks.refused
    assert report.routing.classified + report.routing.named == tasks.answered
    assert steps[-1].virtual_s == report.virtual_s >= SMALL.seconds
    assert [step.events for step in steps] == sorted(step.events for step in steps)
    assert report.traffic.bytes_most >= report.traffic.bytes > report.traffic.messages > 0
    figures = report.as_dict()
    assert figures["trace"] == report.trace
    assert figures["ok"] is report.ok is True


# --- laws ---------------------------------------------------------------------------------------
moments = st.floats(0.5, 14)
settled_moments = st.floats(8, 14)
"""When all have met: who comes to a mesh whose configured nodes have gone for good finds nobody."""
spans = st.floats(0.2, 6)
counts = st.integers(1, 2)
faults = st.one_of(
    st.builds(Kill, at_s=settled_moments, count=counts, silent=st.booleans()),
    st.builds(Kill, at_s=moments, count=counts, back_after_s=spans, silent=st.booleans()),
    st.builds(Hang, at_s=moments, for_s=spans, count=counts, clock_stops=st.booleans()),
    st.builds(Cut, at_s=moments, for_s=spans, from_count=counts, one_way=st.booleans()),
    st.builds(Clog, at_s=moments, for_s=spans),
    st.builds(Rough, at_s=moments, for_s=spans, loss=st.floats(0, 1), delay_ms=st.floats(0, 900)),
    st.builds(
        Flap, from_s=st.just(1.0), to_s=st.just(10.0), every_s=st.floats(0.5, 5), down_s=spans
    ),
    st.builds(
        ClockFault,
        at_s=moments,
        jump_s=st.floats(0, 100),
        drift_ppm=st.floats(-100_000, 100_000),
    ),
    st.builds(SlowDisk, at_s=moments, for_s=spans),
    st.builds(Leave, at_s=settled_moments),
    st.builds(Leave, at_s=moments, back_after_s=spans),
    st.builds(OneWay, at_s=moments, for_s=spans, count=counts),
    st.builds(EngineCrash, at_s=moments, for_s=spans, count=counts),
    st.builds(Partition, at_s=moments, for_s=spans),
    st.builds(
        Churn,
        from_s=st.just(1.0),
        to_s=st.just(10.0),
        every_s=st.floats(0.5, 5),
        down_s=spans,
        silent_share=st.floats(0, 1),
    ),
)


def one_partition(drawn: list[Fault]) -> tuple[Fault, ...]:
    """Partitions may not overlap: keep the first."""
    splits = [fault for fault in drawn if isinstance(fault, Partition)]
    return tuple(fault for fault in drawn if not isinstance(fault, Partition) or fault is splits[0])


scenarios = st.builds(
    Scenario,
    name=st.just("drawn"),
    nodes=st.integers(1, 7),
    seconds=st.just(22.0),
    quiet_s=st.just(2.0),
    grace_s=st.just(120.0),
    profiles_per_node=st.integers(1, 3),
    bootstrap_nodes=st.integers(1, 3),
    network=st.builds(
        Network,
        latency_ms=st.sampled_from((0.1, 5.0, 60.0)),
        latency_spread=st.floats(0, 1),
        jitter_ms=st.sampled_from((0.0, 1.0, 20.0)),
        loss=st.sampled_from((0.0, 0.02, 0.1)),
        duplicate=st.sampled_from((0.0, 0.05, 0.3)),
        reorder=st.sampled_from((0.0, 0.1, 0.5)),
        reorder_ms=st.sampled_from((5.0, 200.0)),
        bandwidth_mbit=st.sampled_from((2.0, 1000.0)),
    ),
    workload=st.builds(
        Workload,
        tasks_per_second=st.sampled_from((1.0, 8.0)),
        start_s=st.sampled_from((0.1, 3.0)),
        cancel_share=st.floats(0, 0.5),
        choices_share=st.floats(0, 0.5),
        deadline_s=st.sampled_from((1.0, 30.0)),
    ),
    faults=st.lists(faults, max_size=4).map(one_partition),
    checks=st.just(Checks(converge_s=100.0)),
)


@settings(max_examples=25)
@given(scenario=scenarios, seed=st.integers(0, 2**32))
def test_whatever_happens_the_checks_hold(scenario: Scenario, seed: int) -> None:
    report = run(scenario, seed=seed)
    assert report.ok, report.violations


@pytest.mark.long
@settings(max_examples=300)
@given(scenario=scenarios, seed=st.integers(0, 2**32))
def test_whatever_happens_the_checks_hold_for_long(scenario: Scenario, seed: int) -> None:
    report = run(scenario, seed=seed)
    assert report.ok, report.violations


@pytest.mark.long
def test_two_hundred_nodes_hold() -> None:
    report = run(Scenario(name="large", faults=SMALL.faults), seed=1, nodes=200)
    assert report.ok, report.violations
