"""Judges coordinators from outside: the laws of Raft, by what their logs and states show.

Written against the paper's figure 3, not against the machine: it looks at logs, terms and states
alone, and keeps its own books of what was ever seen.

- Election safety: at most one leader in a term.
- Log matching: two entries of the same index and term are the same, and so is all before them.
- Leader completeness: what was committed in a term is in the log of every later term's leader. The
  term of the commit counts, not the entry's: a leader of a term in between, whose votes are late,
  may lack it, and leads nobody.
- State machine safety: whoever has carried out as many entries has the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshslm.core.consensus.raft import Raft
    from meshslm.wire.consensus import Decision, Entry


@dataclass(slots=True)
class Seen:
    """What was last seen of one node."""

    last: tuple[int, int, int] = (-1, -1, -1)
    commit: int = 0
    led: int = 0


class Judge:
    """The books of one run."""

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int | None]] = {}
        self._committed: dict[int, int] = {}
        """By index, the term of the entry."""
        self._committed_in: dict[int, int] = {}
        """By index, the term of who was first seen to have it committed: the leader who did it."""
        self._states: dict[int, tuple[Decision, ...]] = {}
        self._seen: dict[str, Seen] = {}
        self.elections = 0
        self.committed = 0

    def gone(self, node: str) -> None:
        """A process ended; what it had in memory counts no more."""
        self._seen.pop(node, None)

    def look(self, node: str, raft: Raft) -> None:
        """Look at a node after one step. Raises `AssertionError` where a law is broken."""
        seen = self._seen.setdefault(node, Seen())
        log, term = raft.durable.log, raft.durable.term
        last = (log.base_index, log.last_index, log.last_term)
        if last != seen.last:
            seen.last = last
            self._look_at_log(node, raft)
        if raft.commit != seen.commit:
            self._look_at_commit(node, raft, seen.commit)
            seen.commit = raft.commit
        if raft.role == "leader" and term != seen.led:
            seen.led = term
            self._look_at_leader(node, raft, term)

    def _look_at_log(self, node: str, raft: Raft) -> None:
        log = raft.durable.log
        before: int | None = log.term_at(log.base_index)
        for index in range(log.base_index + 1, log.last_index + 1):
            entry = log.entry(index)
            known = self._entries.setdefault((index, entry.term), (entry, before))
            assert known == (entry, before), f"log matching: {node} has {entry}, others {known}"
            before = entry.term

    def _look_at_commit(self, node: str, raft: Raft, since: int) -> None:
        assert raft.commit > since, f"{node} takes back what was committed"
        log = raft.durable.log
        for index in range(max(since, log.base_index) + 1, raft.commit + 1):
            term = log.term_at(index)
            assert term is not None
            known = self._committed.setdefault(index, term)
            self._committed_in.setdefault(index, raft.durable.term)
            assert known == term, f"{node} commits term {term} at {index}, others {known}"
        state = raft.decided.find("", "")
        same = self._states.setdefault(raft.commit, state)
        assert same == state, f"state machine safety: {node} differs at {raft.commit}"
        self.committed = max(self.committed, raft.commit)

    def _look_at_leader(self, node: str, raft: Raft, term: int) -> None:
        other = self._leaders.setdefault(term, node)
        assert other == node, f"election safety: {other} and {node} lead in term {term}"
        self.elections += 1
        log = raft.durable.log
        for index, committed in self._committed.items():
            if index > log.base_index and self._committed_in[index] < term:
                has = log.term_at(index)
                assert has == committed, (
                    f"leader completeness: {node}, leader of term {term}, has {has} at {index}, "
                    f"where {committed} was committed"
                )

    def finish(self) -> None:
        """The run is over."""
        assert self._leaders, "nobody ever led"
