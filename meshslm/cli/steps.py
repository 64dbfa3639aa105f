"""A compact list of steps with elapsed seconds, for what takes longer than a moment.

On a terminal the running step turns and counts; in a pipe each step is one line when it is done.
It goes to stderr, so that answers stay alone on stdout.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from meshslm.cli.screen import console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

REDRAWS_PER_SECOND = 8
"""Enough for seconds with one decimal; more would take time from the engines."""

TURNING = "|/-\\"
"""A wheel that any terminal font has."""


class Step:
    """One thing being done; `note` says how far it is."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.state = "running"
        self._began = time.monotonic()
        self._took: float | None = None

    def end(self, state: str) -> None:
        """`done` or `failed`; the clock stops."""
        self.state = state
        self._took = time.monotonic() - self._began

    @property
    def seconds(self) -> float:
        """Seconds so far, or in all."""
        return time.monotonic() - self._began if self._took is None else self._took


class Steps:
    """Shows steps while they run. Use it as a context manager, and `step` within."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._steps: list[Step] = []
        self._quiet = quiet
        self._console = console(err=True)
        self.live = not quiet and self._console.is_terminal
        """Whether steps are drawn as they go."""
        self._display: Live | None = None

    def __enter__(self) -> Self:
        if self.live:
            from rich.live import Live

            self._display = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REDRAWS_PER_SECOND,
            )
            self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._display is not None:
            self._display.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Time one step; an exception marks it failed and goes on its way."""
        step = Step(title)
        self._steps.append(step)
        try:
            yield step
        except BaseException:
            step.note = ""  # it said how far it was, and how long it would take still
            step.end("failed")
            self._tell(step)
            raise
        step.end("done")
        self._tell(step)

    def say(self, text: str) -> None:
        """One line on stderr, above the list where it is drawn."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def _tell(self, step: Step) -> None:
        if not self.live:
            self.say(_line(step))

    def _render(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        colours = {"done": "green", "failed": "red", "running": "yellow"}
        table = Table.grid(padding=(0, 1))
        for step in self._steps:
            mark = Text(_mark(step), style=colours[step.state])
            note = Text(step.note, style="dim")
            table.add_row(mark, Text(step.title), Text(f"{step.seconds:.1f} s"), note)
        return table


def _mark(step: Step) -> str:
    if step.state == "running":
        return TURNING[int(step.seconds * REDRAWS_PER_SECOND) % len(TURNING)] + " "
    return "ok" if step.state == "done" else "no"


def _line(step: Step) -> str:
    note = f"  {step.note}" if step.note else ""
    return f"{_mark(step)}  {step.title}  {step.seconds:.1f} s{note}"
