"""Asking through the client library, for every command that asks: show the text, then who did it.

Rules:
- Text of a model is a stranger's: on a terminal its control characters are left out, so that no
  peer can move the cursor or set the title of whoever asks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from meshslm.cli.screen import duration_text, harmless

if TYPE_CHECKING:
    from meshslm.api.openai_responses import CascadeInfo
    from meshslm.client import Answer, TextStream

_HOW: Final = {
    "tokens": "when its node went, as that one would have",
    "text": "when its node went, in its own words",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer that was shown as it came."""

    answer: Answer
    first_text_at: float
    """On `time.monotonic`'s clock."""


def show_stream(stream: TextStream, write: Callable[[str], None]) -> Shown:
    """Hand the text of an entered stream to `write` as it comes."""
    first_text_at = None
    for piece in stream:
        if first_text_at is None:
            first_text_at = time.monotonic()
        write(piece)
    return Shown(stream.answer, first_text_at or time.monotonic())


def write_text(text: str) -> None:
    """Show a piece of a model's text on stdout at once."""
    if sys.stdout.isatty():
        text = harmless(text)
    sys.stdout.write(text)
    sys.stdout.flush()


def answered_by(answer: Answer) -> str:
    """Who answered, why, and how fast: a line each."""
    speed = answer.tokens_per_s
    figures = [
        f"first token {duration_text(answer.ttft_ms)}",
        *([f"{speed:.1f} tokens/s"] if speed is not None else []),
        f"{answer.usage.completion_tokens} tokens",
        *(["cut at the token limit"] if answer.finish_reason == "length" else []),
    ]
    who = answer.node_name or answer.node or "a server that is no mesh"
    hat = f" as {answer.profile}" if answer.profile else ""
    moved = f", after {answer.attempts} attempts" if answer.attempts > 1 else ""
    return "\n".join(
        [
            f"{who} answered{hat} ({answer.model}){moved}",
            *([f"went on there {_HOW[answer.continued]}"] if answer.continued in _HOW else []),
            *([f"steps: {_steps(answer.cascade)}"] if answer.cascade else []),
            *([f"why: {answer.route}"] if answer.route else []),
            ", ".join(figures),
        ]
    )


def _steps(cascade: CascadeInfo) -> str:
    """Who was asked one after the other, and why each was not enough."""
    told = []
    for step in cascade.steps:
        sure = "" if step.confidence is None else f" {step.confidence:.2f} sure"
        told.append(f"{step.profile}{sure}" + (f" ({step.why_not})" if step.why_not else ""))
    saved = f"; {cascade.saved_tokens} tokens saved" if cascade.saved_tokens else ""
    return ", then ".join(told) + saved


def tell_answered(answer: Answer) -> None:
    """Say on stderr who answered."""
    for line in harmless(answered_by(answer)).splitlines():
        click.secho(f"-- {line}", err=True, dim=True)


def answer_fields(answer: Answer) -> dict[str, Any]:
    """An answer for `--json`."""
    from msgspec import to_builtins

    speed = answer.tokens_per_s
    fields: dict[str, Any] = to_builtins(answer)
    return {**fields, "tokens_per_s": None if speed is None else round(speed, 3)}
