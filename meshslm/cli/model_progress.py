"""How the pulling and preparing of a model is shown: which stage, how far, how long still.

On a terminal it is the note of a running step; in a pipe or a service's log one line a stage.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from meshslm.cli.screen import bytes_text

if TYPE_CHECKING:
    from meshslm.cli.steps import Step, Steps
    from meshslm.models.progress import Progress

ESTIMATE_AFTER_S: Final = 1.0
"""Before that the rate says nothing about the rest."""

LINE_SECONDS: Final = 5.0
"""Between two lines of the same stage in a log."""

ROUGHLY: Final = {
    "downloading": "some seconds to minutes, as the network goes",
    "preparing": "about 10 s for 135M parameters on two cores",
}
"""What to expect before there is a rate to tell it from; measured with the default model."""


class ModelReport:
    """Hears of progress and shows it as the note of a step; one for one pull."""

    def __init__(self, steps: Steps, step: Step) -> None:
        self._steps = steps
        self._step = step
        self._stage = StageClock()

    def __call__(self, progress: Progress) -> None:
        """Show where the model is now."""
        if self._stage.enter(progress) and not self._steps.live:
            self._steps.say(f"{self._step.title}: {self._stage.text(progress)}")
        self._step.note = self._stage.text(progress)


class ProgressLines:
    """Hears of progress and writes lines to stderr, among those of a log; one for a process."""

    def __init__(self) -> None:
        self._stages: dict[str, StageClock] = {}
        self._told = 0.0

    def __call__(self, model: str, progress: Progress) -> None:
        """A line when a stage begins, and then every few seconds."""
        stage = self._stages.setdefault(model, StageClock())
        now = time.monotonic()
        if stage.enter(progress) or now - self._told > LINE_SECONDS:
            self._told = now
            click.echo(f"model {model}: {stage.text(progress)}", err=True)


class StageClock:
    """When the present stage of one model began, and where."""

    def __init__(self) -> None:
        self._name = ""
        self._began = 0.0
        self._at_start = 0

    def enter(self, progress: Progress) -> bool:
        """Note `progress`; whether it is the first of its stage."""
        if progress.stage == self._name:
            return False
        self._name = progress.stage
        self._began = time.monotonic()
        self._at_start = progress.done
        return True

    def text(self, progress: Progress) -> str:
        """The stage, with the time left as soon as there is a rate to tell it from."""
        elapsed_s = time.monotonic() - self._began
        expected = ROUGHLY.get(progress.stage)
        return progress_text(progress, self._at_start, elapsed_s) or (
            f"{progress.stage} ({expected})" if expected else str(progress.stage)
        )


def progress_text(progress: Progress, at_start: int, elapsed_s: float) -> str:
    """Stage, amount and the time left at the rate so far; empty while there is no rate."""
    if not progress.total or elapsed_s < ESTIMATE_AFTER_S or progress.done <= at_start:
        return ""
    left_s = (progress.total - progress.done) * elapsed_s / (progress.done - at_start)
    amount = f"{bytes_text(progress.done)} of {bytes_text(progress.total)}"
    return f"{progress.stage} {amount}, about {max(0, left_s):.0f} s left"


def parameters_text(count: int) -> str:
    """Parameters as people write them: 135M, 1.7B."""
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if count >= size:
            shown = f"{count / size:.1f}".removesuffix(".0")
            return f"{shown}{unit}"
    return str(count)
