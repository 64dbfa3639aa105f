"""What a coordinator must not forget, and what it may say only once that is on disk.

Rules:
- All changes of one step go out as one `PersistLog` at its end (`settle`).
- A message that promises something waits until every change that was made before it is on disk;
  one that promises nothing goes at once. Messages to oneself are promises like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from meshslm.core.consensus.events import LogRecovered, PersistLog, Snapshot
from meshslm.core.consensus.log import Log
from meshslm.ids import NodeId
from meshslm.wire.consensus import ConsensusMessage, Entry

Post = Callable[[NodeId, ConsensusMessage], None]


class Durable:
    """Term, vote, log and snapshot of one coordinator."""

    def __init__(
        self, recovered: LogRecovered, persist: Callable[[PersistLog], None], post: Post
    ) -> None:
        self._persist = persist
        self._post = post
        self.store = recovered.store
        self.group = recovered.group
        self.term = recovered.term
        self.vote = recovered.vote
        self.snapshot = recovered.snapshot
        self.log = Log()
        if recovered.snapshot is not None:
            kept = recovered.snapshot
            self.log.reset(kept.index, kept.term, kept.configuration)
        self.log.append(recovered.entries)
        self._number = 0
        self._done = 0
        self._dirty = False
        self._cut: int | None = None
        self._fresh: list[Entry] = []
        self._fresh_snapshot: Snapshot | None = None
        self._promises: list[tuple[NodeId, ConsensusMessage]] = []
        self._held: deque[tuple[int, NodeId, ConsensusMessage]] = deque()

    # --- changes --------------------------------------------------------------------------------
    def join(self, group: str) -> None:
        """Belong to a group, for ever."""
        self.group, self._dirty = group, True

    def enter(self, term: int, vote: NodeId | None) -> None:
        """Be in a term, with this vote in it."""
        assert term > self.term or (term == self.term and self.vote in (None, vote))
        self.term, self.vote, self._dirty = term, vote, True

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries behind the last."""
        self.log.append(entries)
        self._fresh.extend(entries)
        self._dirty = True

    def cut(self, index: int) -> None:
        """Forget entries from `index` on."""
        self.log.cut(index)
        self._cut = index if self._cut is None else min(index, self._cut)
        self._fresh = [entry for entry in self._fresh if entry.index < index]
        self._dirty = True

    def compact(self, snapshot: Snapshot, keep: int) -> None:
        """Have a snapshot stand for what it covers; the last `keep` entries stay in memory."""
        self.snapshot = self._fresh_snapshot = snapshot
        self._fresh = [entry for entry in self._fresh if entry.index > snapshot.index]
        self.log.compact(max(self.log.base_index, snapshot.index - keep))
        self._dirty = True

    def install(self, snapshot: Snapshot) -> None:
        """Begin anew behind a snapshot: what was in the log is of no use."""
        self.cut(self.log.base_index + 1)
        self.log.reset(snapshot.index, snapshot.term, snapshot.configuration)
        self.snapshot = self._fresh_snapshot = snapshot

    # --- messages -------------------------------------------------------------------------------
    def promise(self, to: NodeId, message: ConsensusMessage) -> None:
        """Send once everything until now is on disk."""
        self._promises.append((to, message))

    def send(self, to: NodeId, message: ConsensusMessage) -> None:
        """Send what promises nothing."""
        self._post(to, message)

    def settle(self) -> None:
        """Have the changes of this step written, and send what need not wait."""
        if self._dirty:
            self._number += 1
            self._persist(
                PersistLog(
                    self._number,
                    self.group,
                    self.term,
                    self.vote,
                    self._cut,
                    self._fresh_snapshot,
                    tuple(self._fresh),
                )
            )
            self._dirty, self._cut, self._fresh_snapshot, self._fresh = False, None, None, []
        promises, self._promises = self._promises, []
        for to, message in promises:
            self._held.append((self._number, to, message))
        self.release()

    def persisted(self, number: int) -> None:
        """Everything up to this number is on disk."""
        self._done = max(self._done, number)

    def release(self) -> None:
        """Send what waits for nothing any more, in order."""
        while self._held and self._held[0][0] <= self._done:
            _, to, message = self._held.popleft()
            self._post(to, message)

    @property
    def waiting(self) -> int:
        """Writes that are not on disk yet."""
        return self._number - self._done
