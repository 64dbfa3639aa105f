"""When an engine takes no more runs, whom it sheds, and when to come again.

Rules:
- What would wait beyond the bound is refused at once: a queue that is longer only makes all late.
- The time told is the one in which a place gets free, as runs end of late.
- Background work is shed first: its place goes to interactive work, last come, first gone.
"""

from __future__ import annotations

from meshslm.core.runs import EngineState
from meshslm.errors import FaultCode
from meshslm.wire.messages import TaskRefused, TaskSubmit

RETRY_AFTER_LEAST_MS = 250
INTERACTIVE = "interactive"


def place_ms(engine: EngineState) -> float:
    """Until a place in a full queue is free: one leaves it as often as a run ends."""
    return max(RETRY_AFTER_LEAST_MS, engine.run_ms / engine.slots)


def full(engine: EngineState, submit: TaskSubmit, bound: int) -> bool:
    """Whether a run would be one too many to wait."""
    return len(engine.queue) >= bound and not engine.has_room(submit.request.choices)


def turned_away(engine: EngineState, submit: TaskSubmit, bound: int) -> TaskRefused | None:
    """Why a run is not taken, and when to come again; None where it is."""
    task, attempt, code = submit.task, submit.attempt, FaultCode.OVERLOADED
    gives_way = submit.request.priority == INTERACTIVE and engine.queue.background
    if full(engine, submit, bound) and not gives_way:
        waiting = f"{engine.model} has no free slot, and {len(engine.queue)} tasks wait already"
        return TaskRefused(task, attempt, code, waiting, int(place_ms(engine)))
    wait = engine.wait_ms(submit.request.choices)
    if 0 < submit.patience_ms < wait:
        detail = f"it would wait {wait:.0f} ms here"
        return TaskRefused(task, attempt, code, detail, int(wait), wait)
    return None
