"""Telling how far a long step is, and the one way to stop it.

Rules:
- Every loop of this floor that can take longer than a moment calls its `Report` at least five
  times a second. Only a silent network may take longer, up to `limits.PULL_IDLE_MS`.
- An exception that a report raises stops the work at once and leaves what can be resumed: that is
  how a thread is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """What is being done to a model."""

    WAITING = "waiting"
    """Another process is pulling the same model."""
    DOWNLOADING = "downloading"
    UNPACKING = "unpacking"
    COPYING = "copying"
    CONVERTING = "converting"
    WRITING = "writing"
    PREPARING = "preparing"
    MEASURING = "measuring"
    CHECKING = "checking"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage is, in bytes."""

    stage: Stage
    done: int = 0
    total: int = 0
    """0: not known."""


Report = Callable[[Progress], None]
"""Hears of progress; may raise to stop the work."""

TICK_S = 0.1
"""Time between two reports of something that is only waited for, in seconds."""
