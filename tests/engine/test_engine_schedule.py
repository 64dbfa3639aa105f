"""The scheduler's laws, under any arrivals and cancellations."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.prefix_cache import TILE
from meshslm.engine.schedule import Scheduler
from meshslm.engine.steps import Job, Piece, Sample, Shape, Step, filled_rows

SHAPE = Shape(slots=4, context=400, batch=128)


Mark = tuple[object, bool]
"""A computed token, and whether the tiled kernel computed it."""


def words(job: Job, family: int = -1, common: int = 0) -> list[object]:
    """A prompt's tokens; the first `common` are those of all of its family."""
    own = max(0, job.prompt - common)
    return [(family, n) for n in range(job.prompt - own)] + [
        (job.run, n, "own") for n in range(own)
    ]


def names(tokens: list[object]) -> tuple[bytes, ...]:
    """Names of the whole tiles."""
    ends = range(TILE, len(tokens) + 1, TILE)
    return tuple(hashlib.sha256(repr(tokens[:end]).encode()).digest() for end in ends)


class Engine:
    """Computes steps like a worker, and checks each against what it already knows."""

    def __init__(self, shape: Shape = SHAPE) -> None:
        self.shape = shape
        self.scheduler = Scheduler(shape)
        self.jobs: dict[int, Job] = {}
        self.prompts: dict[int, list[object]] = {}
        self.ends: dict[tuple[int, int], int] = {}
        self.made: dict[tuple[int, int], int] = {}
        self.cells: list[list[Mark]] = [[] for _ in range(shape.slots)]
        self.open: set[tuple[int, int]] = set()
        self.admitted: list[int] = []
        self.steps: list[Step] = []

    def add(self, job: Job, ends: int, family: int = -1, common: int = 0) -> None:
        self.prompts[job.run] = words(job, family, common)
        job = replace(job, tiles=names(self.prompts[job.run]))
        self.jobs[job.run] = job
        for choice, made in dict(job.resumed).items() or ((c, 0) for c in range(job.choices)):
            key = (job.run, choice)
            self.ends[key] = max(made + 1, min(job.most, ends + choice))
            self.made[key] = made
            self.open.add(key)
        self.scheduler.add(job)

    def cancel(self, run: int) -> None:
        self.scheduler.cancel(run)
        self.open = {key for key in self.open if key[0] != run}

    def marks(self, run: int, choice: int, start: int, end: int) -> list[Mark]:
        """What a run that is computed alone and afresh has at these places."""
        prompt = self.prompts[run]
        filled = filled_rows(len(prompt)) > 0
        tiled = len(prompt) if filled else len(prompt) // TILE * TILE
        return [
            (prompt[n] if n < len(prompt) else (run, choice, n), n < tiled)
            for n in range(start, end)
        ]

    def step(self) -> Step | None:
        step = self.scheduler.schedule()
        self.admitted += self.scheduler.admitted()
        if step is None:
            return None
        self.steps.append(step)
        for source, target in step.moves:
            self.cells[target] = list(self.cells[source])
        for slot, kept in step.keep:
            assert kept <= len(self.cells[slot]), "keeps what is not there"
            del self.cells[slot][kept:]
        finished = [slot for piece in step.pieces for slot in self._piece(piece)]
        self.scheduler.learn(step, finished)
        self.scheduler.check()
        return step

    def _piece(self, piece: Piece) -> list[int]:
        """Compute a piece; the slots whose sequences end."""
        cells, run = self.cells[piece.slot], piece.run
        job, end = self.jobs[run], piece.start + piece.count
        assert piece.count >= 1
        assert cells == self.marks(run, piece.choice, 0, piece.start), (
            "another's, or otherwise made"
        )
        assert end <= job.prompt + self.made[run, piece.choice] <= self.shape.context
        assert piece.fill == 0 or end == job.prompt
        tokens = self.marks(run, piece.choice, piece.start, end)
        cells += [(token, piece.count + piece.fill >= TILE) for token, _ in tokens]
        for slot in piece.share:
            assert end == job.prompt
            self.cells[slot] = list(cells)
        finished = []
        for sample in piece.sample:
            key = (run, sample.choice)
            assert key in self.open
            assert end == job.prompt + self.made[key], "a draw before everything is computed"
            self.made[key] += 1
            if self.made[key] >= self.ends[key]:
                self.open.remove(key)
                finished.append(sample.slot)
        return finished


def _job(prompt: int, most: int, resumed: list[int | None], tenant: str, background: bool) -> Job:
    """`resumed`: tokens that each choice has already; None for one that has ended."""
    going = tuple((c, min(made, most - 1)) for c, made in enumerate(resumed) if made is not None)
    begun = going if len(going) < len(resumed) or any(made for _, made in going) else ()
    return Job(0, prompt, most, len(resumed), begun, "", (), tenant, background)


def jobs(background: bool) -> st.SearchStrategy[Job]:
    return st.builds(
        _job,
        st.integers(1, 300),
        st.integers(1, 100),
        st.one_of(
            st.lists(st.just(0), min_size=1, max_size=4),
            st.lists(st.sampled_from([0, 1, 40, 99, None]), min_size=1, max_size=4).filter(
                lambda resumed: resumed != [None] * len(resumed)
            ),
        ),
        st.sampled_from(["", "a", "b"]) if background else st.just(""),
        st.booleans() if background else st.just(value=False),
    )


def scripts(*, background: bool) -> st.SearchStrategy[list[Any]]:
    return st.lists(
        st.one_of(
            st.tuples(
                jobs(background),
                st.integers(1, 100),
                st.integers(0, 1),
                st.sampled_from([0, 64, 100, 200, 300]),
            ),
            st.integers(0, 10),  # cancel this run
            st.none(),  # a step
        ),
        max_size=40,
    )


script = scripts(background=False)
mixed = scripts(background=True)


def play(actions: list[Any]) -> Engine:
    engine = Engine()
    number = 0
    for action in actions:
        if action is None:
            engine.step()
        elif isinstance(action, int):
            engine.cancel(action)
        else:
            job, ends, family, common = action
            engine.add(replace(job, run=number), ends, family, common)
            number += 1
    for _ in range(200_000):
        if engine.step() is None:
            break
    else:
        raise AssertionError("it never ends")
    return engine


@given(mixed)
def test_every_sequence_ends_and_nothing_stays(actions: list[Any]) -> None:
    engine = play(actions)
    assert not engine.open
    assert engine.scheduler.idle
    assert engine.scheduler.running == engine.scheduler.waiting == 0


@given(mixed)
def test_no_step_exceeds_its_bounds(actions: list[Any]) -> None:
    engine = play(actions)
    for step in engine.steps:
        assert step.rows <= SHAPE.batch
        slots = [piece.slot for piece in step.pieces]
        assert len(set(slots)) == len(slots) <= SHAPE.slots
        assert all(0 <= slot < SHAPE.slots for slot in slots)
        if step.decode:
            assert slots == sorted(slots)
            assert all(piece.count == 1 for piece in step.pieces)
        else:
            assert len(slots) == 1


@given(script)
def test_first_come_first_served(actions: list[Any]) -> None:
    engine = play(actions)
    assert engine.admitted == sorted(engine.admitted)


@given(script)
def test_running_streams_wait_for_few_prompt_rows(actions: list[Any]) -> None:
    engine = play(actions)
    since: int | None = None
    going: set[tuple[int, int]] = set()
    for step in engine.steps:
        if step.decode:
            since = 0
            going = {(piece.run, piece.choice) for piece in step.pieces}
        elif since is not None and going & _later(engine, step):
            since += step.rows
            assert since <= TILE
        else:
            since = None


def _later(engine: Engine, step: Step) -> set[tuple[int, int]]:
    """Sequences that are computed in a later step."""
    after = engine.steps[engine.steps.index(step) + 1 :]
    return {(piece.run, piece.choice) for later in after for piece in later.pieces}


def test_alone_a_prompt_is_computed_in_large_pieces() -> None:
    engine = Engine(Shape(slots=2, context=2048, batch=512))
    engine.add(Job(1, 1500, 4), 4)
    while engine.step():
        pass
    assert [step.rows for step in engine.steps] == [512, 512, 448, TILE, 1, 1, 1]


def test_a_long_prompt_beside_a_stream_alternates_with_it() -> None:
    engine = Engine(Shape(slots=2, context=2048, batch=512))
    engine.add(Job(1, 10, 50), 50)
    engine.step()
    engine.add(Job(2, 600, 2), 2)
    kinds = []
    while engine.step():
        kinds.append(engine.steps[-1].rows if not engine.steps[-1].decode else 0)
    assert kinds[:21] == [0, *[TILE, 0] * 10, 0][:21]


def test_choices_share_one_prefill() -> None:
    engine = Engine()
    engine.add(Job(1, 100, 5, choices=4), 5)
    while engine.step():
        pass
    prefills = [step for step in engine.steps if not step.decode]
    assert [step.rows for step in prefills] == [64, 36]
    assert prefills[-1].pieces[0].share == (1, 2, 3)
    assert len(prefills[-1].pieces[0].sample) == 4


def test_choices_that_go_on_share_one_prefill_however_far_each_is() -> None:
    engine = Engine()
    engine.add(Job(1, 100, 40, 4, resumed=((0, 20), (2, 0), (3, 1))), 30)
    while engine.step():
        pass
    prefills = [step.pieces[0] for step in engine.steps if not step.decode]
    assert [(piece.choice, piece.count) for piece in prefills] == [(2, 64), (2, 36), (0, 20)]
    assert prefills[1].sample == (Sample(2, prefills[1].slot),)
    assert engine.made == {(1, 0): 30, (1, 2): 32, (1, 3): 33}


def test_who_is_left_moves_together() -> None:
    engine = Engine()
    for run, ends in enumerate((1, 30, 1, 30)):
        engine.add(Job(run, 5, 30), ends)
    while engine.step():
        pass
    pairs = [step for step in engine.steps if step.decode and len(step.pieces) == 2]
    assert {tuple(piece.slot for piece in step.pieces) for step in pairs} == {(1, 2)}
    assert next(step.moves for step in engine.steps if step.moves) == ((3, 2),)


def test_a_conversation_goes_on_in_its_slot() -> None:
    engine = Engine(Shape(slots=3, context=2048))
    engine.add(Job(1, 640, 20), 20, family=0, common=640)
    while engine.step():
        pass
    engine.add(Job(2, 900, 5), 5, family=0, common=640)
    step = engine.step()
    assert step is not None
    assert (step.moves, step.keep) == ((), ((0, 640),))
    assert (step.pieces[0].start, step.pieces[0].cached) == (640, 640)


def test_eight_with_a_common_beginning_compute_it_once() -> None:
    engine = Engine(Shape(slots=8, context=2048))
    for run in range(8):
        engine.add(Job(run, 1040, 4), 4, family=0, common=1000)
    while engine.step():
        pass
    rows = sum(step.rows for step in engine.steps if not step.decode)
    assert rows == 1024 + TILE + 7 * (1024 - 960 + TILE)


def test_what_was_used_last_is_given_up_last() -> None:
    engine = Engine(Shape(slots=2, context=400))
    for run, family in enumerate((0, 1, 0, 2, 0, 1)):
        engine.add(Job(run, 200, 2), 2, family=family, common=200)
        while engine.step():
            pass
    first = {step.pieces[0].run: step for step in reversed(engine.steps) if not step.decode}
    assert {run for run, step in first.items() if step.pieces[0].cached} == {2, 4}


def test_an_interactive_run_takes_the_slot_of_background_work() -> None:
    engine = Engine(Shape(slots=1, context=400))
    engine.add(Job(1, 100, 50, background=True), 50)
    for _ in range(20):
        engine.step()
    engine.add(Job(2, 10, 3), 3)
    while engine.step():
        pass
    order = [step.pieces[0].run for step in engine.steps]
    assert order[20:24] == [2, 2, 2, 1]
    assert engine.admitted == [1, 2, 1]
    assert engine.made == {(1, 0): 50, (2, 0): 3}


def test_background_work_goes_on_where_it_was_if_its_slot_was_not_needed() -> None:
    engine = Engine(Shape(slots=3, context=400))
    engine.add(Job(1, 100, 50, choices=2, background=True), 50)
    for _ in range(20):
        engine.step()
    engine.add(Job(2, 10, 1, choices=2), 1)
    while engine.step():
        pass
    again = [piece for step in engine.steps[20:] for piece in step.pieces if piece.run == 1]
    rows = {choice: {p.count for p in again if p.choice == choice} for choice in (0, 1)}
    assert rows[0] == {1}
    assert max(rows[1]) > 1


@pytest.mark.parametrize(
    "job",
    [
        Job(1, 300, 101),
        Job(1, 0, 5),
        Job(1, 5, 5, choices=5),
        Job(1, 5, 5, choices=0),
        Job(1, 5, 5, resumed=((0, 5),)),
        Job(1, 5, 5, resumed=((1, 2),)),
    ],
)
def test_what_could_never_run_is_refused(job: Job) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Scheduler(SHAPE).add(job)
