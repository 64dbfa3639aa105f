"""Threads that follow the machine: a climb on machines whose speeds are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.engine.threads import WAIT_MOST_S, Climb

Cost = Callable[[int], float]
"""Threads -> seconds of a step of one row."""
Noisy = Callable[[Chance], float]
"""Seconds of a step, drawn."""


@dataclass
class Machine:
    """Computes steps, each in the time that the number of threads takes just then."""

    climb: Climb
    noise: float = 0.0
    now: float = 100.0
    chance: Chance = field(default_factory=lambda: Chance.from_int(1))

    def work(self, seconds: float, cost: Cost, rows: Sequence[int] = (1,), room: int = 0) -> float:
        """Rows a second over a time in which nothing changes."""
        end, done, begun, looked = self.now + seconds, 0, self.now, self.now
        while self.now < end:
            if room and self.now - looked >= 1:
                looked = self.now
                self.climb.room(room, self.now)
            size = rows[done % len(rows)]
            threads = self.climb.choose(size, self.now)
            took = cost(threads) * size * (1 + self.noise * (2 * self.chance.unit() - 1))
            self.now += took
            self.climb.learn(size, threads, took, self.now)
            done += size
        return done / (self.now - begun)


def free(threads: int) -> float:
    return {1: 0.0125, 2: 0.01}[threads]


def crowded(threads: int) -> float:
    """One busy neighbour on two cores."""
    return {1: 0.0125, 2: 0.15}[threads]


def best(cost: Cost, most: int = 2) -> float:
    return 1 / min(cost(threads) for threads in range(1, most + 1))


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("room", [0, 1, 2])
@pytest.mark.parametrize("cost", [free, crowded])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_best_is_found_whatever_the_system_says(
    start: int, room: int, cost: Cost, noise: float
) -> None:
    machine = Machine(Climb(2, start), noise)
    machine.work(20, cost, room=room)
    assert machine.work(60, cost, room=room) >= 0.93 * best(cost)


def sometimes(low: float, high: float, share: float) -> Noisy:
    """Steps that now and then wait for a thread without its core."""
    return lambda chance: (
        high * (0.5 + chance.unit())
        if chance.unit() < share
        else low * (0.95 + 0.1 * chance.unit())
    )


def crowd(mean: float) -> Noisy:
    """Steps among many others that want the cores: some are lucky, some wait for long."""
    return lambda chance: mean * (0.3 - 0.7 * math.log(1.0 - chance.unit()))


ONE_BESIDE_A_NEIGHBOUR = sometimes(0.0125, 0.02, 0.1)
NOISY = {
    "two threads wait at every step": (ONE_BESIDE_A_NEIGHBOUR, sometimes(0.06, 0.12, 0.5)),
    "two threads wait now and then": (ONE_BESIDE_A_NEIGHBOUR, sometimes(0.01, 0.2, 0.12)),
    "many neighbours, two get more": (crowd(0.1), crowd(0.05)),
    "many neighbours, two get a little more": (crowd(0.06), crowd(0.05)),
    "many neighbours, two get the same": (crowd(0.1), crowd(0.1)),
    "many neighbours, one is better": (crowd(0.06), crowd(0.1)),
}


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("room", [1, 2])
def test_the_better_is_found_among_noise(name: str, room: int) -> None:
    speeds, steps = [], NOISY[name]
    for seed in range(4):
        machine = Machine(Climb(2, room), chance=Chance.from_int(seed))

        def cost(threads: int, chance: Chance = machine.chance) -> float:
            return steps[threads - 1](chance)

        speeds.append(machine.work(90, cost, room=room))
    chance = Chance.from_int(0)
    means = [fmean(step(chance) for _ in range(4000)) for step in steps]
    assert fmean(speeds) >= 0.8 / min(means)


def test_a_neighbour_that_comes_is_noticed_within_a_few_steps() -> None:
    machine = Machine(Climb(2, 2))
    machine.work(5, free)
    assert machine.work(4, crowded) >= 0.7 * best(crowded)
    assert machine.climb.threads == 1


def test_a_neighbour_that_goes_is_noticed_when_the_system_says_so() -> None:
    machine = Machine(Climb(2, 2))
    machine.work(30, crowded, room=1)
    machine.work(2.5, free, room=2)
    assert machine.climb.threads == 2


def test_trials_that_never_pay_become_rare() -> None:
    trials = []
    climb = Climb(2, 1)
    machine = Machine(climb)

    def counted(threads: int) -> float:
        if threads == 2:
            trials.append(machine.now)
        return crowded(threads)

    machine.work(200, counted)
    gaps = [later - earlier for earlier, later in pairwise(trials)]
    assert len([gap for gap in gaps if gap > 1]) < 25
    assert max(gaps) >= WAIT_MOST_S / 2


def test_a_trial_whose_steps_come_no_more_is_dropped() -> None:
    climb = Climb(4, 2)
    machine = Machine(climb)
    machine.work(1.0, lambda _: 0.01)
    sizes = set()
    for number in range(400):
        rows = 1 + number % 16  # no size comes often enough within a trial
        threads = climb.choose(rows, machine.now)
        machine.now += 0.3
        climb.learn(rows, threads, 0.01 * rows, machine.now)
        sizes.add(threads)
        assert 1 <= threads <= 4


def test_one_core_leaves_no_choice() -> None:
    climb = Climb(1, 1)
    assert Machine(climb).work(10, lambda threads: 0.01 * threads) == pytest.approx(100, rel=0.01)


costs = st.lists(st.floats(0.004, 0.1), min_size=1, max_size=5)


@settings(max_examples=40)
@given(
    costs=costs,
    room=st.integers(0, 5),
    start=st.integers(1, 5),
    rows=st.lists(st.sampled_from([1, 2, 8, 64, 512]), min_size=1, max_size=4),
)
def test_no_machine_makes_it_leave_the_range_or_stay_at_the_worst(
    costs: list[float], room: int, start: int, rows: list[int]
) -> None:
    """Speeds may have several summits, so only neighbours are promised."""
    most = len(costs)
    climb = Climb(most, min(start, most))
    machine = Machine(climb)
    asked: set[int] = set()

    def cost(threads: int) -> float:
        asked.add(threads)
        return costs[threads - 1]

    machine.work(120, cost, rows, min(room, most))
    assert asked <= set(range(1, most + 1))
    speed = machine.work(60, cost, rows, min(room, most))
    here = climb.threads
    neighbours = [costs[n - 1] for n in (here - 1, here, here + 1) if 1 <= n <= most]
    if len(set(rows)) == 1 and rows[0] * max(costs) < 0.4:
        assert speed >= 0.8 / min(neighbours)


def test_after_a_pause_it_begins_anew() -> None:
    machine = Machine(Climb(2, 2))
    machine.work(20, crowded)
    machine.climb.start(2)
    assert machine.climb.choose(1, machine.now) == 2
