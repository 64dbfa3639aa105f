"""What waits to become durable, and who is to be told when it is.

Rules:
- Numbers are given in order and answered in order; an answer for one is an answer for all before.
- While the journal cannot write, nothing is lost: it keeps what it was given and tries again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from meshslm import state_limits
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import Persist, StoredDelta, StoredSnapshot
from meshslm.ids import Instant
from meshslm.state.part import PartKey

Durable = Callable[[Instant], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    number: int
    size: int
    durable: Durable


class StateJournal:
    """The core's side of the journal."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._number = 0
        self._waiting: deque[_Waiting] = deque()
        self.waiting_bytes = 0
        self.trouble = ""
        """Why nothing becomes durable at present; empty where it does."""

    @property
    def full(self) -> bool:
        """Whether so much waits for the disk that nothing more of others is taken."""
        return self.waiting_bytes > state_limits.STATE_JOURNAL_BYTES

    def persist(
        self,
        durable: Durable,
        deltas: tuple[StoredDelta, ...] = (),
        snapshots: tuple[StoredSnapshot, ...] = (),
        dropped: tuple[PartKey, ...] = (),
        forgotten: tuple[PartKey, ...] = (),
    ) -> None:
        """Have it written, all or nothing; `durable` is called when it is."""
        self._number += 1
        size = sum(len(delta.signed.payload) for delta in deltas)
        size += sum(len(snapshot.state) for snapshot in snapshots)
        self._waiting.append(_Waiting(self._number, size, durable))
        self.waiting_bytes += size
        self._out.put(Persist(self._number, deltas, snapshots, dropped, forgotten))

    def persisted(self, number: int, now: Instant) -> None:
        """Everything up to a number is durable."""
        if self.trouble:
            self._out.tell("state.journal-well", self.trouble)
            self.trouble = ""
        while self._waiting and self._waiting[0].number <= number:
            entry = self._waiting.popleft()
            self.waiting_bytes -= entry.size
            entry.durable(now)

    def failed(self, reason: str) -> None:
        """The disk does not take it now."""
        if reason != self.trouble:
            self._out.tell("state.journal-ill", reason)
        self.trouble = reason

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert self.waiting_bytes == sum(entry.size for entry in self._waiting)
