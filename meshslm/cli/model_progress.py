"""How the pulling and preparing of a model is shown: which stage, how far, how long still.

On a terminal it is the note of a running step; in a pipe or a service's log one line a stage.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from meshslm.cli.screen import bytes_text

if TYPE_CHECKING:
    from meshslm.cli.steps import Step, Steps
    from meshslm.models.progress import Progress

ESTIMATE_AFTER_S: Final = 1.0
"""Before that the rate says nothing about the rest."""

ROUGHLY: Final = {
    "downloading": "some seconds to minutes, as the network goes",
    "preparing": "about 10 s for 135M parameters on two cores",
}
"""What to expect before there is a rate to tell it from; measured with the default model."""


class ModelReport:
    """Hears of progress and shows it; one for one pull."""

    def __init__(self, steps: Steps, step: Step) -> None:
        self._steps = steps
        self._step = step
        self._stage = ""
        self._began = 0.0
        self._at_start = 0

    def __call__(self, progress: Progress) -> None:
        """Show where the model is now."""
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._began = time.monotonic()
            self._at_start = progress.done
            if not self._steps.live:
                self._steps.say(f"{self._step.title}: {self._stage}{self._expectation()}")
        elapsed = time.monotonic() - self._began
        self._step.note = progress_text(progress, self._at_start, elapsed) or (
            f"{self._stage}{self._expectation()}"
        )

    def _expectation(self) -> str:
        text = ROUGHLY.get(self._stage)
        return f" ({text})" if text else ""


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

