"""Runs with different adapters on one engine: never in one step, and none starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.prefix_cache import TILE
from meshslm.engine.schedule import Scheduler
from meshslm.engine.steps import Job, Shape, Step

SHAPE = Shape(slots=6, context=400, batch=128)
GROUPS = ("", "a", "b")


def play(waves: list[list[Job]]) -> list[Step]:
    """Add each wave after ten more steps, then compute until nothing is left."""
    scheduler = Scheduler(SHAPE)
    steps: list[Step] = []
    made: dict[tuple[int, int], int] = {}
    jobs = {job.run: job for wave in waves for job in wave}

    def go(most: int) -> None:
        for _ in range(most):
            step = scheduler.schedule()
            if step is None:
                return
            steps.append(step)
            finished = []
            for piece in step.pieces:
                for sample in piece.sample:
                    key = (piece.run, sample.choice)
                    made[key] = made.get(key, 0) + 1
                    if made[key] == jobs[piece.run].most:
                        finished.append(sample.slot)
            scheduler.learn(step, finished)
        assert most < 20_000, "it never ends"

    for wave in waves:
        for job in wave:
            scheduler.add(job)
        go(10)
    go(20_000)
    assert scheduler.idle
    assert made == {(job.run, n): job.most for job in jobs.values() for n in range(job.choices)}
    return steps


def _numbered(waves: list[list[tuple[int, int, int, str]]]) -> list[list[Job]]:
    count = iter(range(1000))
    return [[Job(next(count), p, m, c, group=g) for p, m, c, g in wave] for wave in waves]


waves_of_jobs = st.lists(
    st.lists(
        st.tuples(
            st.integers(1, 200), st.integers(1, 60), st.integers(1, 3), st.sampled_from(GROUPS)
        ),
        max_size=6,
    ),
    max_size=4,
).map(_numbered)


@given(waves_of_jobs)
def test_a_step_has_runs_of_one_group_only(waves: list[list[Job]]) -> None:
    groups = {job.run: job.group for wave in waves for job in wave}
    for step in play(waves):
        assert {groups[piece.run] for piece in step.pieces} == {step.group}


@given(waves_of_jobs)
def test_a_stream_waits_for_one_step_of_each_other_group_and_few_prompt_rows(
    waves: list[list[Job]],
) -> None:
    steps = play(waves)
    last: dict[tuple[int, int], int] = {}
    for now, step in enumerate(steps):
        if not step.decode:
            continue
        for piece in step.pieces:
            key = (piece.run, piece.choice)
            between = steps[last[key] + 1 : now] if key in last else []
            others = [other.group for other in between if other.decode]
            assert len(others) == len(set(others)) < len(GROUPS)
            assert sum(other.rows for other in between if not other.decode) <= TILE
            last[key] = now


def test_two_groups_take_turns() -> None:
    steps = play([[Job(1, 5, 20), Job(2, 5, 20, group="a"), Job(3, 5, 20), Job(4, 5, 20)]])
    order = [(step.group, len(step.pieces)) for step in steps if step.decode]
    together = order[order.index(("", 3)) :]
    assert together[:6] == [("", 3), ("a", 1)] * 3


def test_runs_of_a_group_sit_together() -> None:
    steps = play(
        [[Job(run, 5, 20, group=group) for run, group in enumerate(["", "a", "", "a", "", "a"])]]
    )
    full = [(step.group, [p.slot for p in step.pieces]) for step in steps if len(step.pieces) == 3]
    assert full[:2] == [("", [0, 1, 2]), ("a", [3, 4, 5])]
