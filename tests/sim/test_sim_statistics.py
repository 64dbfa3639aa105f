"""Statistics against known values and laws; comparisons against what was built in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.sim.comparison import FIGURES, comparison, reports
from meshslm.sim.scenario import Network, NodeSettings, Profile, Scenario, Workload
from meshslm.sim.statistics import compare, mann_whitney

values = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        # By the normal approximation with continuity: z = 4.5, 12, ... over its deviation.
        ([1, 2, 3], [4, 5, 6], math.erfc(4.0 / math.sqrt(5.25) / math.sqrt(2))),
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([7, 7, 7], [7, 7], 1.0),
        ([1, 1, 2], [2, 3, 3], math.erfc(3.5 / math.sqrt(4.8) / math.sqrt(2))),
    ],
)
def test_the_rank_sum_test_gives_known_values(a: list[float], b: list[float], p: float) -> None:
    assert mann_whitney(a, b) == pytest.approx(p)


@given(values, values)
def test_the_rank_sum_test_is_a_probability_and_fair(a: list[float], b: list[float]) -> None:
    p = mann_whitney(a, b)
    assert 0.0 <= p <= 1.0
    assert p == pytest.approx(mann_whitney(b, a))
    assert p == pytest.approx(mann_whitney([x / 2 for x in a], [x / 2 for x in b]))


def test_a_clear_difference_is_clear_and_none_is_none() -> None:
    chance = Chance.from_int(1)
    a = [chance.normal(100, 5) for _ in range(30)]
    b = [chance.normal(110, 5) for _ in range(30)]
    again = [chance.normal(100, 5) for _ in range(30)]
    found = compare(a, b, chance.fork("x"))
    assert found.clear
    assert 5 < found.low < found.difference < found.high < 15
    assert found == compare(a, b, chance.fork("x"))
    assert not compare(a, again, chance.fork("y")).clear


@given(st.floats(-1e6, 1e6))
def test_one_value_each_is_never_clear(value: float) -> None:
    found = compare([value], [value + 1], Chance.from_int(1))
    assert not found.clear
    assert found.low == found.high == found.difference


def test_a_slower_network_is_found_to_be_slower() -> None:
    def plan(latency_ms: float) -> Scenario:
        return Scenario(
            name=f"{latency_ms}",
            nodes=3,
            seconds=15.0,
            quiet_s=3.0,
            network=Network(latency_ms=latency_ms, jitter_ms=0.0),
            workload=Workload(tasks_per_second=4.0, start_s=4.0),
        )

    seeds = range(1, 7)
    a, b = (list(reports(plan(ms), seeds)) for ms in (0.1, 60.0))
    result = comparison(a, b)
    assert (result.seeds, result.failed_a, result.failed_b) == (6, 0, 0)
    assert set(result.figures) == set(FIGURES)
    first = result.figures["first token p50 ms"]
    assert first is not None
    assert first.clear
    assert first.difference > 50
    right = result.figures["right domain %"]
    assert right is None or not right.clear


def test_what_nodes_are_set_to_can_be_compared() -> None:
    slow = Profile(name="slow", domains=("code",), slots=1, decode_tps=20.0)

    def plan(queue: int) -> Scenario:
        return Scenario(
            name=f"{queue} wait",
            nodes=2,
            seconds=15.0,
            quiet_s=3.0,
            profiles=(slow,),
            settings=NodeSettings(strategy="least-connections", queue=queue),
            workload=Workload(tasks_per_second=4.0, start_s=4.0),
        )

    a, b = (list(reports(plan(queue), range(1, 5))) for queue in (64, 0))
    refused = comparison(a, b).figures["refused %"]
    assert refused is not None
    assert refused.clear
    assert refused.difference > 5
