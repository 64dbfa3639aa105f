"""With the real model: tokens that may wait are told with those that follow, within a bound."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from meshslm import limits
from meshslm.engine import loop
from meshslm.engine.protocol import Command, Ended, Measured, Produced, Report, Start, Stop
from tests.engine.worker_script import ScriptedWorker, ask

pytestmark = pytest.mark.model

STEP_S = 0.010


@dataclass(slots=True)
class StepClock:
    """Time passes while a model computes, and at no other time."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


class FramedWorker(ScriptedWorker):
    """Keeps what is told at a time, and takes the same time for each step."""

    def __init__(self, path: Path, clock: StepClock, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(path)
        self.frames: list[tuple[float, list[Report]]] = []
        self._clock = clock
        self.worker.guesser.enabled = False
        compute = self.worker._model.compute

        def slowly() -> None:
            compute()
            clock.now += STEP_S

        monkeypatch.setattr(self.worker._model, "compute", slowly)

    def send(self, reports: list[Report]) -> None:
        super().send(reports)
        if any(isinstance(report, Produced) for report in reports):
            told: list[Report] = [r for r in reports if not isinstance(r, Measured)]
            self.frames.append((self._clock.now, told))

    def runs(self) -> list[list[int]]:
        """The runs of the tokens of each frame."""
        return [
            [report.run for report in frame if isinstance(report, Produced)]
            for _, frame in self.frames
        ]


@pytest.fixture
def worker(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> FramedWorker:
    clock = StepClock()
    monkeypatch.setattr(loop, "time", clock)
    return FramedWorker(model_path, clock, monkeypatch)


def patient(run: int, text: str, most: int = 24) -> Start:
    return msgspec.structs.replace(ask(run, text, most), coalesce=True)


def test_tokens_wait_for_the_next_but_not_the_first_nor_past_the_bound(
    worker: FramedWorker,
) -> None:
    plain = worker.play([ask(1, "Tell me of the sea.")])[1]
    assert worker.runs() == [[1]] * 24, "a run that does not allow it waits for nothing"
    worker.frames.clear()
    told = worker.play([patient(1, "Tell me of the sea.")])[1]
    assert (told.tokens, told.text) == (plain.tokens, plain.text)
    first, *others, last = worker.runs()
    assert first == [1], "the first token waited"
    fit = int(limits.COALESCE_MS / 1000 / STEP_S) + 1
    # What an engine tells of itself once a second goes at once, and what waits with it.
    assert others.count([1] * fit) >= len(others) - 1 > 4
    assert len(last) <= fit
    assert isinstance(worker.frames[-1][1][-1], Ended), "its end waited"
    times = [at for at, _ in worker.frames[1:-1]]
    apart = [later - earlier for earlier, later in pairwise(times)]
    assert max(apart) <= limits.COALESCE_MS / 1000 + STEP_S


def test_a_slow_model_tells_each_token(
    worker: FramedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COALESCE_MS", 0.9 * STEP_S * 1000)
    worker.play([patient(1, "Tell me of the sea.")])
    assert worker.runs() == [[1]] * 24


def test_beside_a_run_that_waits_for_nothing_none_waits(worker: FramedWorker) -> None:
    commands: list[Command] = [patient(1, "Tell me of the sea."), ask(2, "Who are you?")]
    worker.play(commands)
    together = [runs for runs in worker.runs() if len(runs) > 1]
    assert together
    assert all(runs == [1, 2] for runs in together)


def test_what_waits_goes_before_the_prompt_of_a_new_run(
    worker: FramedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COALESCE_MS", 60_000)
    worker.play([patient(1, "Tell me of the sea.")], later=[(9, patient(2, "Who are you?"))])
    runs = worker.runs()
    came = next(place for place, frame in enumerate(runs) if 2 in frame)
    assert runs[came] == [2], "tokens waited while a prompt was computed"
    assert sum(len(frame) for frame in runs[:came]) >= 6
    assert max(len(frame) for frame in runs[:came]) >= 4, "nothing waited before"


def test_a_run_that_is_stopped_takes_nothing_of_others_along(
    worker: FramedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COALESCE_MS", 60_000)
    commands: list[Command] = [patient(1, "Tell me of the sea."), patient(2, "Who are you?")]
    told = worker.play(commands, later=[(12, Stop(2))])
    assert len(told[1].tokens) == 24
    assert told[1].usage.completion_tokens == 24
