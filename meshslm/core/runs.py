"""What is known of the runs on this node and of their engines; `core.serving` acts on it.

Rules:
- A run's weight is the slots that it takes, at most all of its engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from meshslm.core.line import Line
from meshslm.ids import Instant, NodeId, RunId, TaskId, ms_between
from meshslm.wire.messages import TaskRequest, TaskSubmit

ASSUMED_RUN_MS = 4_000.0
"""Length of a run while none has ended yet: 256 tokens at 64 a second."""

RUN_SHARE = 0.05
"""Of the newest run in the mean length of runs, once there were some."""

Key = tuple[NodeId, TaskId, int]
"""Origin, task and attempt."""


class RunState(Enum):
    """Where a run stands on this node."""

    QUEUED = "queued"
    RUNNING = "running"
    OVER = "over"


@dataclass(slots=True, eq=False)
class Run:
    """One attempt of one task, here."""

    run: RunId
    key: Key
    submit: TaskSubmit
    model: str
    weight: int
    state: RunState = RunState.QUEUED
    seq: int = 0
    log: list[bytes] = field(default_factory=list)
    """Encoded items for a remote origin, until it has them all."""
    arrived: Instant = Instant(0)
    started: Instant = Instant(0)

    @property
    def background(self) -> bool:
        """It gives way to others."""
        return self.submit.request.priority == "background"

    @property
    def waited_ms(self) -> float:
        """Time in this node's queue, before the engine had it."""
        return ms_between(self.arrived, self.started)


@dataclass(slots=True)
class EngineState:
    """One engine, and who waits for it."""

    model: str
    slots: int = 1
    running: dict[RunId, Run] = field(default_factory=dict)
    weight: int = 0
    yielding: int = 0
    """The part of `weight` that is background work, which gives way within the engine."""
    queue: Line[Run] = field(default_factory=Line)
    marks: dict[RunId, tuple[bytes, ...]] = field(default_factory=dict)
    """Of the prompts of runs that are under way or warm."""
    warm: list[RunId] = field(default_factory=list)
    prefill_tps: float = 0.0
    decode_tps: float = 0.0
    run_ms: float = ASSUMED_RUN_MS
    """How long runs take, as a running mean."""
    ended: int = 0
    """Runs that brought their whole answer."""

    def took(self, ms: float) -> None:
        """A run has brought its whole answer, so long after it began."""
        self.ended += 1
        self.run_ms += max(RUN_SHARE, 1.0 / self.ended) * (ms - self.run_ms)

    def wait_ms(self, choices: int) -> float:
        """How long a run that comes now would wait for its slots, about."""
        waiting = sum(run.weight for run in self.queue)
        before = self.weight + waiting + min(choices, self.slots) - self.slots
        return max(0, before) / self.slots * self.run_ms

    def measured(self, prefill_tps: float, decode_tps: float, warm: tuple[int, ...]) -> None:
        """Its speeds, and the runs whose prompts it still has."""
        self.prefill_tps = prefill_tps or self.prefill_tps
        self.decode_tps = decode_tps or self.decode_tps
        self.warm = [RunId(run) for run in warm if run in self.marks]
        kept = {*self.warm, *self.running}
        self.marks = {run: mark for run, mark in self.marks.items() if run in kept}

    def has_room(self, choices: int) -> bool:
        """Whether a run would have its slots at once, or as soon as the model is loaded."""
        waiting = sum(run.weight for run in self.queue)
        return self.weight + waiting + min(choices, self.slots) <= self.slots


def clipped(text: str, most: int) -> str:
    """At most so many bytes of a text; what is no text at all becomes question marks."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def prompt_bytes(request: TaskRequest) -> int:
    """How much text a request has."""
    texts = [request.prompt, *request.inputs, *(turn.content for turn in request.messages)]
    return sum(map(len, texts))
