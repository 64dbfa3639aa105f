"""What this origin has seen its candidates do, which goes before what they say of themselves.

It learns from what clients are told (who was chosen, first item, end, failure), so that nobody has
to report to it, and a candidate cannot: every figure is this node's own count by its own clock.

Rules:
- What was seen replaces what was told step by step: after one answer a quarter of it, after three a
  half, after nine three quarters.
- What is bad is forgotten with time, by half in `HALF_MS`, so that who was slow once is asked again
  at some time, and is found out again if it still is.
- Bounded: of `limits.TRACKED_ENGINES` engines, those last seen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from meshslm import limits
from meshslm.core.candidates import Candidate, Verdict
from meshslm.core.events import EmitChunk, FailTask, RouteChosen
from meshslm.core.route_facts import ASSUMED_ANSWER_TOKENS, Length
from meshslm.ids import Instant, NodeId, TaskId, ms_between

HALF_MS: Final = 120_000.0
"""A grudge is half as large after two minutes (a guess)."""
BELIEF: Final = 3.0
"""So many answers weigh as much as what was told."""
STEP: Final = 0.25
"""Share of the newest in a running mean."""
LATE_MOST_MS: Final = 60_000.0

Engine = tuple[NodeId, str]
"""A node and a model on it."""


@dataclass(slots=True)
class Record:
    """One engine, as seen from here."""

    sent: deque[Instant] = field(default_factory=deque)
    """When tasks went there, of late."""
    answers: int = 0
    decode_tps: float = 0.0
    late_ms: float = 0.0
    """First tokens came so much later than expected, as a running mean."""
    response_ms: float = 0.0
    good: float = 0.0
    bad: float = 0.0
    """Attempts that went well or not, each counting less as it ages."""
    at: Instant = Instant(0)
    """When the figures that age were last made so."""
    turn: int = 0

    def age(self, now: Instant) -> None:
        """Let what is bad fade."""
        passed = ms_between(self.at, now)
        if passed > 0.0:
            kept = 0.5 ** (passed / HALF_MS)
            self.late_ms *= kept
            self.good *= kept
            self.bad *= kept
            self.at = now


@dataclass(slots=True)
class Attempt:
    """A task under way, as far as its times matter."""

    engine: Engine
    begun: Instant
    expected_ms: float
    kinds: tuple[str, ...]
    """Under which the length of its answer is remembered."""
    most: int
    """Tokens that it may have."""
    first: Instant | None = None
    last: Instant = Instant(0)
    tokens: int = 0
    counted: int = 0
    """Tokens that came after the first item, and so took time that was seen."""


class TrackRecord:
    """All engines that this origin has used."""

    def __init__(self) -> None:
        self._records: dict[Engine, Record] = {}
        self._attempts: dict[TaskId, Attempt] = {}
        self._turns = 0
        self._now = Instant(0)
        self.lengths: dict[str, Length] = {}
        """Tokens of answers, by `route_facts.length_key`."""

    # --- what is asked for each candidate of a choice -------------------------------------------
    def at(self, now: Instant) -> TrackRecord:
        """Itself, at this instant."""
        self._now = now
        return self

    def pending(self, candidate: Candidate) -> int:
        """Tasks sent there from here that its load does not count yet; see `Measured`."""
        record = self._records.get((candidate.node, candidate.specialist.model))
        if record is None or candidate.local:
            return 0
        sent = record.sent
        seen = candidate.told - int((candidate.rtt_ms or 0.0) * 500)
        while sent and sent[0] < seen:
            sent.popleft()
        return len(sent)

    def decode_tps(self, candidate: Candidate, told: float) -> float:
        """Tokens a second of one stream; see `Measured`."""
        record = self._records.get((candidate.node, candidate.specialist.model))
        if record is None or not record.answers or candidate.local:
            return told
        belief = record.answers / (record.answers + BELIEF)
        # Slowness is what is believed of whom: times add up, not rates.
        return 1.0 / (belief / record.decode_tps + (1.0 - belief) / told)

    def late_ms(self, candidate: Candidate) -> float:
        """How much later than promised its first tokens come; see `Measured`."""
        record = self._records.get((candidate.node, candidate.specialist.model))
        if record is None or candidate.local:
            return 0.0
        record.age(self._now)
        return record.late_ms

    def failing(self, candidate: Candidate) -> float:
        """Share of its attempts that fail; see `Measured`."""
        record = self._records.get((candidate.node, candidate.specialist.model))
        if record is None:
            return 0.0
        record.age(self._now)
        # A single failure is `core.cooling`'s affair: after it somebody has to try again.
        return max(0.0, record.bad - 1.0) / (record.good + record.bad + 1.0)

    def response_ms(self, candidate: Candidate) -> float:
        """Time that its answers took; see `Measured`."""
        record = self._records.get((candidate.node, candidate.specialist.model))
        return record.response_ms if record is not None else 0.0

    def turn(self, candidate: Candidate) -> int:
        """When it was last chosen here; see `Measured`."""
        record = self._records.get((candidate.node, candidate.specialist.model))
        return record.turn if record is not None else 0

    # --- what clients are told ------------------------------------------------------------------
    def chosen(
        self,
        route: RouteChosen,
        verdict: Verdict | None,
        kinds: tuple[str, ...],
        now: Instant,
        *,
        most: int = ASSUMED_ANSWER_TOKENS,
    ) -> None:
        """An attempt begins; one of the same task that was under way has failed."""
        former = self._attempts.pop(route.task, None)
        if former is not None:
            self._failed(former, now)
        engine = (route.node, route.model)
        record = self._record(engine, now)
        self._turns += 1
        record.turn = self._turns
        record.sent.append(now)
        if len(record.sent) > limits.TASKS_PER_PEER:
            record.sent.popleft()
        expected = verdict.first_ms if verdict is not None else 0.0
        self._attempts[route.task] = Attempt(engine, now, expected, kinds, most)
        if len(self._attempts) > limits.TASKS_PER_NODE:
            del self._attempts[next(iter(self._attempts))]

    def item(self, emitted: EmitChunk, now: Instant) -> None:
        """Something of an answer is here."""
        attempt = self._attempts.get(emitted.task)
        if attempt is None:
            return
        count = len(emitted.chunk.tokens) or bool(emitted.chunk.text)
        attempt.tokens += count
        attempt.last = now
        if attempt.first is not None:
            attempt.counted += count
            return
        attempt.first = now
        late = max(0.0, ms_between(attempt.begun, now) - attempt.expected_ms)
        record = self._record(attempt.engine, now)
        record.late_ms += STEP * (min(late, LATE_MOST_MS) - record.late_ms)

    def ended(self, task: TaskId, now: Instant) -> None:
        """An answer is whole."""
        attempt = self._attempts.pop(task, None)
        if attempt is None:
            return
        record = self._record(attempt.engine, now)
        record.good += 1.0
        took = ms_between(attempt.begun, now)
        record.response_ms += (STEP if record.response_ms else 1.0) * (took - record.response_ms)
        flowed = ms_between(attempt.first, attempt.last) if attempt.first is not None else 0.0
        if attempt.counted and flowed > 0.0:
            tps = attempt.counted / flowed * 1000.0
            share = STEP if record.answers else 1.0
            record.decode_tps += share * (tps - record.decode_tps)
            record.answers += 1
        for kind in attempt.kinds:
            self._learn_length(kind, attempt.tokens, attempt.most)

    def failed(self, told: FailTask, now: Instant) -> None:
        """A task ended without its answer."""
        attempt = self._attempts.pop(told.task, None)
        if attempt is not None:
            self._failed(attempt, now)

    def dropped(self, task: TaskId) -> None:
        """A client went away: that says nothing of who was answering."""
        self._attempts.pop(task, None)

    # --- inside ---------------------------------------------------------------------------------
    def _failed(self, attempt: Attempt, now: Instant) -> None:
        self._record(attempt.engine, now).bad += 1.0

    def _record(self, engine: Engine, now: Instant) -> Record:
        record = self._records.pop(engine, None)
        if record is None:
            record = Record(at=now)
            if len(self._records) >= limits.TRACKED_ENGINES:
                del self._records[next(iter(self._records))]
        self._records[engine] = record  # the newest last
        record.age(now)
        return record

    def _learn_length(self, kind: str, tokens: int, most: int) -> None:
        known = self.lengths.pop(kind, None)
        if known is None and len(self.lengths) >= limits.TRACKED_KINDS:
            del self.lengths[next(iter(self.lengths))]
        self.lengths[kind] = (known or Length.unseen(most)).after(tokens)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._records) <= limits.TRACKED_ENGINES
        assert len(self._attempts) <= limits.TASKS_PER_NODE
        assert len(self.lengths) <= limits.TRACKED_KINDS
        for record in self._records.values():
            assert 0.0 <= record.late_ms <= LATE_MOST_MS
            assert not record.answers or record.decode_tps > 0.0
