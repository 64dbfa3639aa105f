"""What is known of the runs on this node and of their engines; `core.serving` acts on it.

Rules:
- A run's weight is the slots that it takes, at most all of its engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from heapq import heapreplace

from meshslm.core.line import Line
from meshslm.core.prefix import digest
from meshslm.core.route_facts import (
    ASSUMED_ANSWER_TOKENS,
    CHARACTERS_PER_TOKEN,
    GENERATE,
    Length,
)
from meshslm.ids import Instant, NodeId, RunId, TaskId, ms_between
from meshslm.wire.messages import EngineLoad, TaskRequest, TaskSubmit, Timings

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
    said: int = 0
    """Tokens of its answer, all choices together."""
    log: list[bytes] = field(default_factory=list)
    """Encoded items for a remote origin, until it has them all."""
    arrived: Instant = Instant(0)
    started: Instant = Instant(0)

    @property
    def background(self) -> bool:
        """It gives way to others."""
        return self.submit.request.priority == "background"

    @property
    def forgotten(self) -> bool:
        """It is over, and nothing is left of it: it was stopped, or its origin has everything."""
        return self.state is RunState.OVER and not self.log

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
    """How long runs keep a slot, as a running mean."""
    ended: int = 0
    """Runs that brought their whole answer."""
    lengths: dict[int, Length] = field(default_factory=dict)
    """Of answers, by the power of two of their `max_tokens`; -1 for what writes no text."""

    def took(self, run: Run, timings: Timings, elapsed_ms: float) -> None:
        """A run has brought its whole answer, so long after it was given to the engine."""
        self.ended += 1
        kept = timings.prefill_ms + timings.decode_ms or elapsed_ms  # it may have waited there, too
        self.run_ms += max(RUN_SHARE, 1.0 / self.ended) * (kept - self.run_ms)
        self.lengths[_kind(run)] = self._length(run).after(run.said)

    def load(self, *, ready: bool, load_ms: float) -> EngineLoad:
        """How busy it is; `ready`: it takes runs, `load_ms`: what its model's last load took."""
        return EngineLoad(
            self.model,
            ready,
            len(self.running),
            len(self.queue),
            max(0, self.slots - self.weight) if ready else 0,
            self.prefill_tps,
            self.decode_tps,
            digest(self.marks[run] for run in self.warm if run in self.marks),
            self.run_ms if self.ended else 0.0,
            load_ms,
            self.wait_ms(1) if ready else 0.0,
        )

    def wait_ms(self, choices: int) -> float:
        """How long a run that comes now would wait for its slots, about."""
        waiting = sum(run.weight for run in self.queue)
        before = self.weight + waiting + min(choices, self.slots) - self.slots
        if before <= 0:
            return 0.0
        if not (self.ended and self.decode_tps and self.prefill_tps):
            return before / self.slots * self.run_ms
        free = [0.0] * self.slots  # a heap of when each slot is free
        for run in (*self.running.values(), *self.queue):
            left = self._left_ms(run)
            for _ in range(run.weight):
                heapreplace(free, free[0] + left)
        return sorted(free)[min(choices, self.slots) - 1]

    def _left_ms(self, run: Run) -> float:
        """What a run has still to do, by the answers of its kind so far."""
        tokens = max(1.0, self._length(run).mean - run.said)
        reading = 0.0 if run.said else prompt_bytes(run.submit.request) / CHARACTERS_PER_TOKEN
        return (tokens / self.decode_tps + reading / self.prefill_tps) * 1000.0

    def _length(self, run: Run) -> Length:
        kind = _kind(run)
        most = (run.submit.request.max_tokens or ASSUMED_ANSWER_TOKENS) if kind >= 0 else 0
        return self.lengths.get(kind) or Length.unseen(most)

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


def _kind(run: Run) -> int:
    request = run.submit.request
    return request.max_tokens.bit_length() if request.operation == GENERATE else -1


def clipped(text: str, most: int) -> str:
    """At most so many bytes of a text; what is no text at all becomes question marks."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def prompt_bytes(request: TaskRequest) -> int:
    """How much text a request has."""
    texts = [request.prompt, *request.inputs, *(turn.content for turn in request.messages)]
    return sum(map(len, texts))
