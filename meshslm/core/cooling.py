"""Which engines failed of late and are left alone for a while, and who tries them again.

An engine, a model on a node, that failed is given no work for a second; each further failure makes
that twice as long, to a minute. When the time is over one request goes there as a trial, and others
follow only after that one's first token. It is what is known as a circuit breaker.

Rules:
- Failures are what a node did not bring about by being busy: gone, silent, its worker lost, a bug.
  To be full or not ready is said by its load, and no failure.
- Streams that fail together count as one failure.
- To cool is to stand back, not to be out: where nobody else can do it, whoever cools is asked.
- A trial whose outcome never comes lasts `COOL_TRIAL_MS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshslm import limits
from meshslm.core.route import Candidate
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, after, ms_between

FAILURES = frozenset({FaultCode.PEER_LOST, FaultCode.WORKER_LOST, FaultCode.INTERNAL})
"""Faults that are a node's own."""

Engine = tuple[NodeId, str]
"""A node and a model on it."""


@dataclass(slots=True)
class _Record:
    """One engine that failed."""

    strikes: int
    until: Instant
    """Nobody is sent there before."""
    trial: bool = False
    """Somebody was sent there, and there is no outcome yet."""


class Cooling:
    """The engines that failed of late."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[Engine, _Record] = {}

    def failed(self, node: NodeId, model: str, code: FaultCode, now: Instant) -> None:
        """An attempt ended there with a fault."""
        if code not in FAILURES:
            return
        record = self._records.pop((node, model), None)
        strikes = record.strikes if record is not None else 0
        if record is None or record.trial or record.until <= now:
            wait = min(limits.COOL_MS * 2**strikes, limits.COOL_MOST_MS)
            record = _Record(min(strikes + 1, 32), after(now, wait))
        self._records[node, model] = record  # the newest last
        if len(self._records) > limits.COOLING_ENGINES:
            del self._records[next(iter(self._records))]

    def worked(self, node: NodeId, model: str) -> None:
        """An attempt brought its first item: all is forgiven."""
        self._records.pop((node, model), None)

    def chosen(self, node: NodeId, model: str, now: Instant) -> None:
        """A request goes there: a trial, if that one's time to cool is over."""
        record = self._records.get((node, model))
        if record is not None and record.until <= now:
            record.trial, record.until = True, after(now, limits.COOL_TRIAL_MS)

    def cools(self, node: NodeId, model: str, now: Instant) -> bool:
        """Whether others are to be asked rather than this one."""
        record = self._records.get((node, model))
        return record is not None and now < record.until

    def left_ms(self, node: NodeId, model: str, now: Instant) -> float:
        """Until it may be tried again; 0 where it may."""
        cools = self.cools(node, model, now)
        return ms_between(now, self._records[node, model].until) if cools else 0.0

    def warm(self, candidates: Sequence[Candidate], now: Instant) -> list[Candidate]:
        """The candidates that do not cool, if there are others that do; else nothing."""
        if not self._records:
            return []
        left = [c for c in candidates if not self.cools(c.node, c.specialist.model, now)]
        return left if len(left) < len(candidates) else []

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._records) <= limits.COOLING_ENGINES
