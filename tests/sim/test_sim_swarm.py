"""Seeds that draw their own trouble; those that failed once never fail again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.errors import OurFault
from meshslm.sim.fault_kinds import Kill, end_s
from meshslm.sim.regressions import read_cases, with_case
from meshslm.sim.run import run
from meshslm.sim.scenario import Network, Sabotage, Scenario, Workload, check_scenario
from meshslm.sim.swarm import PLAN_S, Verdict, drawn, judge, swarm

REGRESSIONS = Path(__file__).parent / "regression_seeds.toml"


def test_what_failed_once_does_not_fail_again() -> None:
    for case, scenario in read_cases(REGRESSIONS.name, REGRESSIONS.read_text()):
        report = run(scenario, seed=case.seed)
        assert report.ok, (case.seed, case.why, report.violations)


@given(seed=st.integers(0, 2**64))
def test_whatever_is_drawn_makes_sense_and_ends_in_peace(seed: int) -> None:
    scenario = drawn(seed)
    check_scenario(scenario)
    assert scenario == drawn(seed)
    assert all(end_s(fault) < PLAN_S for fault in scenario.faults)
    network = scenario.network
    assert (network.loss, network.duplicate, network.reorder) == (0.0, 0.0, 0.0)


def test_everything_is_drawn_some_time() -> None:
    plans = [drawn(seed) for seed in range(300)]
    kinds = {type(fault).__name__ for plan in plans for fault in plan.faults}
    assert len(kinds) == 15
    assert len({hostile.does for plan in plans for hostile in plan.hostile}) == 5
    assert {len(plan.groups) for plan in plans} == {0, 2, 3}
    assert {plan.groups[0].relay for plan in plans if plan.groups} == {False, True}
    behind = {(g.nat, g.symmetric) for plan in plans for g in plan.groups[1:]}
    assert len(behind) == 6
    assert {drawn(seed, nodes=7).nodes for seed in range(20)} == {7}


def test_a_few_seeds_hold() -> None:
    verdicts = list(swarm(range(1, 4), nodes=4))
    assert [verdict.seed for verdict in verdicts] == [1, 2, 3]
    assert all(verdict.ok for verdict in verdicts), [verdict.wrong for verdict in verdicts]


@pytest.mark.long
def test_many_seeds_hold() -> None:
    for verdict in swarm(range(1000, 1300), jobs=2):
        assert verdict.ok, (verdict.seed, verdict.wrong)


def test_processes_do_not_change_what_happens() -> None:
    alone = {verdict.seed: verdict.trace for verdict in swarm((5, 6), nodes=3)}
    side_by_side = {verdict.seed: verdict.trace for verdict in swarm((5, 6), nodes=3, jobs=2)}
    assert alone == side_by_side


# --- what is kept -------------------------------------------------------------------------------
def failing() -> Verdict:
    broken = Scenario(
        name='broken "mesh"',
        nodes=3,
        seconds=15.0,
        quiet_s=1.0,
        grace_s=5.0,
        workload=Workload(tasks_per_second=5.0, start_s=2.0),
        network=Network(loss=0.01),
        faults=(Kill(at_s=5.0, back_after_s=2.0),),
        sabotage=Sabotage(drop_chunks=0.5),
    )
    verdict = judge(9, broken)
    assert not verdict.ok
    return verdict


def test_a_failure_is_kept_once_and_read_again() -> None:
    verdict = failing()
    text = with_case("kept", "", verdict)
    assert with_case("kept", text, verdict) == text
    ((case, scenario),) = read_cases("kept", text)
    assert (case.seed, scenario) == (9, verdict.scenario)
    assert case.why == verdict.wrong[0]
    assert judge(case.seed, scenario).trace == verdict.trace
    assert text.startswith("# Simulations that failed once")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("cases = 3", "cases"),
        ('[[cases]]\nseed = 1\nwhy = "x"\nscenario = "{"', "scenario"),
        ('[[cases]]\nseed = 1\nwhy = "x"\nscenario = "{}"', "name"),
        ('[[cases]]\nseed = 1\nwhy = "x"\nscenario = \'{"name":"x","nodes":0}\'', "nodes"),
        ('[[cases]]\nseed = 1\nwhy = "x"\nscenario = "{}"\nwho = 1', "who"),
    ],
)
def test_a_damaged_file_is_told(text: str, part: str) -> None:
    with pytest.raises(OurFault, match=part):
        read_cases("kept", text)
    with pytest.raises(OurFault, match=part):
        with_case("kept", text, Verdict(1, False, drawn(1), "", 0, 0.0, (), ()))
