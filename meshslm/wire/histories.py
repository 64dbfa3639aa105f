"""Asking other members what became of tasks that entered at them: journals stay where they are.

Rules:
- What is told has no text of a prompt, whether the journal that it comes from keeps texts or not.
- A question is answered once, with what there is room for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import state_limits
from meshslm.wire.schema import Tag

_COUNT = 2**53
_TASK = 128


@dataclass(frozen=True, slots=True)
class PastTask:
    """One task, from its arrival on."""

    task: Annotated[str, Tag(1, most=_TASK)]
    events: Annotated[bytes, Tag(2, most=state_limits.STATE_VALUE_BYTES)]
    """JSON: a list of what happened to it."""


@dataclass(frozen=True, slots=True)
class HistoryWanted:
    """Asks for one task, or for the newest ones, that entered at the receiver."""

    KIND: ClassVar[int] = 125
    number: Annotated[int, Tag(1, most=_COUNT)]
    """Stands in the answer."""
    task: Annotated[str, Tag(2, most=_TASK)] = ""
    """Empty: the newest ones."""
    limit: Annotated[int, Tag(3, most=state_limits.HISTORY_TASKS)] = 1
    state: Annotated[str, Tag(4, most=32)] = ""
    """Of the newest only those whose last event is of this kind; empty: any."""


@dataclass(frozen=True, slots=True)
class HistoryTold:
    """Answers a `HistoryWanted`."""

    KIND: ClassVar[int] = 126
    number: Annotated[int, Tag(1, most=_COUNT)]
    tasks: Annotated[tuple[PastTask, ...], Tag(2, items=state_limits.HISTORY_TASKS)] = ()
    busy: Annotated[bool, Tag(3)] = False
    """The sender was asked too often; nothing is said of what it has."""


HistoryMessage = HistoryWanted | HistoryTold
