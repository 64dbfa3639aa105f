"""What the leader of a term does: replicates, commits, answers questions, changes who decides.

Rules:
- An entry is committed when a majority of voters has it on disk, and only if it is of this term;
  what is before it is committed with it. The leader's own disk is one voter's, no more.
- Questions are answered from what is committed once this term has committed something, and while no
  other leader can have been chosen: within the lease, which counts from when a heartbeat was *sent*
  that a majority has answered; else after such a round that began after the question.
- Once this leader asked another to stand, it has no lease in this term any more: the other may
  stand late, and followers would help it.
- One change of who decides at a time, by one seat, and only after this term has committed an entry
  (Ongaro, raft-dev, 2015): so that any two majorities have a voter in common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from meshslm.core.consensus.progress import Handover, Progress, Question
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.consensus import (
    Append,
    AppendReply,
    Configuration,
    Entry,
    Proposal,
    Seat,
    SnapshotPart,
)

if TYPE_CHECKING:
    from meshslm.core.consensus.raft import Raft

QUIET_BEATS: Final = 2
"""Heartbeats without an answer after which what is on its way counts as lost."""

WINDOW: Final = 4
"""Messages full of entries that may be on their way to one follower."""

ROUNDS: Final = 64
"""Heartbeat rounds of which the time is remembered: some seconds."""


class Leading:
    """One term's leader. It lives as long as that term's leadership."""

    def __init__(self, raft: Raft, now: Instant) -> None:
        self._raft = raft
        self._durable = raft.durable
        self._term = raft.durable.term
        self._first = 0
        """Index of this term's first entry."""
        self._own = 0
        """What this node's own disk has."""
        self._round = 0
        self._rounds: dict[int, Instant] = {}
        self._began = now
        self._peers: dict[NodeId, Progress] = {}
        self._questions: list[Question] = []
        self._handover: Handover | None = None
        self._lease_given_up = False
        self.ended = False
        self.next_beat = now

    # --- begin and end --------------------------------------------------------------------------
    def begin(self, now: Instant) -> None:
        """Show oneself, with an entry by which everything before can be committed."""
        self._first = self._append(Entry(self._durable.log.last_index + 1, self._term), now)
        self.beat(now)

    def end(self) -> None:
        """Somebody else leads, or nobody."""
        self.ended = True
        self._questions.clear()

    def beat(self, now: Instant) -> None:
        """Send a heartbeat to everybody, and what they lack; give up where nobody follows."""
        if ms_between(self._majority_since(now), now) > 2 * self._raft.timing.election_ms:
            self._raft.follow(self._term, NodeId(""), now)
            return
        if self._handover is not None and now >= self._handover.until:
            self._handover = None
        self.next_beat = after(now, self._raft.timing.heartbeat_ms)
        for progress in self._peers.values():
            progress.quiet += 1
            if progress.quiet > QUIET_BEATS and progress.sending is None:
                progress.next, progress.quiet = progress.match + 1, 0
        self._broadcast(now)

    def _broadcast(self, now: Instant) -> None:
        """Begin a round."""
        self._round += 1
        self._rounds[self._round] = now
        self._rounds.pop(self._round - ROUNDS, None)
        self._meet(now)
        for node in self._peers:
            self._send(node, always=True)
        self._settle_questions(now)

    def _meet(self, now: Instant) -> None:
        """Know everybody in the configuration, and nobody else."""
        configuration = self._durable.log.configuration
        seats = {seat.node for seat in (*configuration.voters, *configuration.learners)}
        for node in [node for node in self._peers if node not in seats]:
            del self._peers[node]
        for seat in (*configuration.voters, *configuration.learners):
            if seat.node != self._raft.node and seat.node not in self._peers:
                self._peers[seat.node] = Progress(self._durable.log.last_index + 1, now, now)

    # --- entries --------------------------------------------------------------------------------
    def _append(self, entry: Entry, now: Instant) -> int:
        self._durable.append((entry,))
        self._meet(now)
        durable = self._durable
        own = AppendReply(
            durable.group, self._term, success=True, match=entry.index, store=durable.store
        )
        durable.promise(self._raft.node, own)
        for node in self._peers:
            self._send(node)
        return entry.index

    def propose(self, proposal: Proposal, now: Instant) -> int:
        """Put a proposal into the log; its index. What comes of it is told when it is applied."""
        index = self._durable.log.last_index + 1
        return self._append(Entry(index, self._term, proposal), now)

    def _send(self, node: NodeId, *, always: bool = False) -> None:
        """Send what a follower lacks, or at least a heartbeat."""
        progress, log, timing = self._peers[node], self._durable.log, self._raft.timing
        if progress.sending is not None or progress.next <= log.base_index:
            self._send_snapshot(node, progress, always=always)
            return
        previous = progress.next - 1
        room = progress.next - progress.match <= WINDOW * timing.append_entries or always
        entries = log.behind(previous, timing.append_entries) if room else ()
        if not entries and not always:
            return
        term = log.term_at(previous)
        assert term is not None, "entries behind the base are kept"
        progress.next += len(entries)
        stand = self._is_to_stand(node, progress)
        self._lease_given_up = self._lease_given_up or stand
        self._send_append(node, previous, term, entries, stand=stand)

    def _send_append(
        self,
        node: NodeId,
        previous: int,
        term: int,
        entries: tuple[Entry, ...] = (),
        *,
        stand: bool = False,
    ) -> None:
        group, commit = self._durable.group, self._raft.commit
        message = Append(group, self._term, previous, term, entries, commit, self._round, stand)
        self._durable.send(node, message)

    def _send_snapshot(self, node: NodeId, progress: Progress, *, always: bool) -> None:
        """Begin, repeat what seems lost, or show oneself while a part is on its way."""
        if progress.sending is None or progress.quiet > QUIET_BEATS:
            progress.offset, progress.quiet = progress.wanted, 0
            self._send_part(node, progress)
        elif always:
            self._send_append(node, 0, 0)

    def _send_part(self, node: NodeId, progress: Progress) -> None:
        if progress.sending is None:
            progress.sending, progress.offset, progress.wanted = self._durable.snapshot, 0, 0
        kept = progress.sending
        assert kept is not None, "a log is cut only behind a snapshot"
        data = kept.data[progress.offset : progress.offset + self._raft.timing.part_bytes]
        self._durable.send(
            node,
            SnapshotPart(
                self._durable.group,
                self._term,
                kept.index,
                kept.term,
                kept.configuration,
                progress.offset,
                len(kept.data),
                data,
                self._round,
            ),
        )

    def on_reply(self, sender: NodeId, reply: AppendReply, now: Instant) -> None:
        """A coordinator, or this node's own disk, acknowledges."""
        if sender == self._raft.node:
            self._own = max(self._own, reply.match)
            self._commit(now)
            return
        progress = self._peers.get(sender)
        if progress is None or not self._is_its_disk(sender, progress, reply):
            return
        if reply.round > progress.round and reply.round in self._rounds:
            progress.round = reply.round
            progress.followed_at = self._rounds[reply.round]
        if reply.offset is not None:
            self._on_part_reply(sender, progress, reply)
        elif reply.success:
            self._on_match(sender, progress, reply.match, now)
        elif progress.match < reply.match + 1 < progress.next:
            progress.next, progress.quiet = reply.match + 1, 0
            self._send(sender, always=True)
        elif reply.match <= progress.match:
            progress.next = progress.match + 1
        self._settle_questions(now)

    def _is_its_disk(self, sender: NodeId, progress: Progress, reply: AppendReply) -> bool:
        """A voter acknowledges with the disk that has its seat; a learner may come anew."""
        seat = self._raft.seat(sender)
        if seat is not None:
            return seat.store == reply.store
        if progress.store not in (0, reply.store):
            progress.match, progress.next, progress.sending = 0, 1, None
        progress.store = reply.store
        return True

    def _on_part_reply(self, sender: NodeId, progress: Progress, reply: AppendReply) -> None:
        kept = progress.sending
        assert reply.offset is not None, "its caller looked"
        if kept is None or kept.index != reply.match or reply.offset >= len(kept.data):
            return
        progress.wanted = reply.offset
        if reply.offset == progress.offset + self._raft.timing.part_bytes:
            progress.offset, progress.quiet = reply.offset, 0
            self._send_part(sender, progress)

    def _on_match(self, sender: NodeId, progress: Progress, match: int, now: Instant) -> None:
        if match > self._durable.log.last_index:
            return  # no honest follower has what its leader lacks
        if progress.sending is not None and match >= progress.sending.index:
            progress.sending, progress.next = None, match + 1
        if match > progress.match or match == self._durable.log.last_index:
            progress.quiet = 0
        progress.match = max(progress.match, match)
        progress.next = max(progress.next, progress.match + 1)
        self._commit(now)
        if not self.ended:
            self._send(sender)
            self._urge(now)

    def _matched(self, seat: Seat) -> int:
        if seat.node == self._raft.node:
            return self._own
        progress = self._peers.get(seat.node)
        return progress.match if progress is not None else 0

    def _commit(self, now: Instant) -> None:
        """Commit what a majority has on disk."""
        voters = self._durable.log.configuration.voters
        matches = sorted((self._matched(seat) for seat in voters), reverse=True)
        reached = matches[len(voters) // 2]
        if reached <= self._raft.commit or not self._may_commit(reached):
            return
        self._raft.commit_to(reached)
        self._settle_questions(now)
        configured = self._durable.log.configured_at
        if configured <= reached and self._raft.seat(self._raft.node) is None:
            self._raft.follow(self._term, NodeId(""), now)

    def _may_commit(self, index: int) -> bool:
        """By counting, only entries of this term."""
        return self._durable.log.term_at(index) == self._term

    # --- questions ------------------------------------------------------------------------------
    @property
    def settled(self) -> bool:
        """This term has committed something: so what is committed is known."""
        return self._raft.commit >= self._first > 0

    @property
    def questions(self) -> int:
        """Questions that wait."""
        return len(self._questions)

    def ask(self, answer: Callable[[], None], now: Instant) -> None:
        """Call `answer` as soon as what is committed here is all that is committed anywhere."""
        self._questions.append(Question(self._round + 1, answer))
        self._settle_questions(now)
        if any(question.answer is answer for question in self._questions) and self.settled:
            self._broadcast(now)

    def _settle_questions(self, now: Instant) -> None:
        if not self._questions or not self.settled:
            return
        leased = self.has_lease(now)
        answered = self._majority_round()
        due = [q for q in self._questions if leased or q.round <= answered]
        self._questions = [q for q in self._questions if not leased and q.round > answered]
        for question in due:
            question.answer()

    def has_lease(self, now: Instant) -> bool:
        """Whether certainly nobody else leads."""
        if self._lease_given_up or self._handover is not None:
            return False
        return ms_between(self._majority_since(now), now) < self._raft.timing.lease_ms

    def _majority_since(self, now: Instant) -> Instant:
        """The latest instant at which a majority still followed."""
        voters = self._durable.log.configuration.voters
        times = sorted((self._followed_at(seat, now) for seat in voters), reverse=True)
        return times[len(voters) // 2]

    def _followed_at(self, seat: Seat, now: Instant) -> Instant:
        if seat.node == self._raft.node:
            return now
        progress = self._peers.get(seat.node)
        return progress.followed_at if progress is not None else self._began

    def _majority_round(self) -> int:
        voters = self._durable.log.configuration.voters
        rounds = sorted((self._round_of(seat) for seat in voters), reverse=True)
        return rounds[len(voters) // 2]

    def _round_of(self, seat: Seat) -> int:
        if seat.node == self._raft.node:
            return self._round
        progress = self._peers.get(seat.node)
        return progress.round if progress is not None else 0

    # --- who decides ----------------------------------------------------------------------------
    def obstacle(self) -> str:
        """Why who decides cannot be changed now; empty: it can."""
        if not self.settled:
            return "this leader is new and has not committed anything"
        if self._durable.log.configured_at > self._raft.commit:
            return "another change is under way"
        return ""

    def change(self, configuration: Configuration, now: Instant) -> None:
        """Have others decide: from now on, and for good once it is committed."""
        assert not self.obstacle(), self.obstacle()
        index = self._durable.log.last_index + 1
        self._append(Entry(index, self._term, None, configuration), now)

    def seated(self, node: NodeId) -> Seat:
        """The seat of a learner, with the disk that it acknowledges with."""
        progress = self._peers.get(node)
        return Seat(node, progress.store if progress is not None else 0)

    def caught_up(self, node: NodeId, now: Instant) -> bool:
        """Whether a learner has all that is committed, and answers."""
        progress = self._peers.get(node)
        if progress is None or not progress.store:
            return False
        answers = ms_between(progress.followed_at, now) < self._raft.timing.election_ms
        return answers and progress.match >= self._raft.commit

    def learns_since(self, node: NodeId) -> Instant | None:
        """Since when this leader has known a coordinator."""
        progress = self._peers.get(node)
        return progress.since if progress is not None else None

    def silent_ms(self, node: NodeId, now: Instant) -> float:
        """For how long a coordinator has not followed, at least."""
        progress = self._peers.get(node)
        return ms_between(progress.followed_at, now) if progress is not None else 0.0

    # --- handing over ---------------------------------------------------------------------------
    def hand_over(self, now: Instant, to: NodeId | None = None) -> NodeId | None:
        """Have another lead: the one named, or the voter that is furthest; None: there is none."""
        voters = [s.node for s in self._durable.log.configuration.voters if s.node in self._peers]
        fresh = [n for n in voters if self.silent_ms(n, now) < self._raft.timing.election_ms]
        able = [node for node in fresh if to in (None, node)]
        if not able:
            return None
        best = max(able, key=lambda node: (self._peers[node].match, node))
        self._handover = Handover(best, after(now, self._raft.timing.election_ms))
        self._urge(now)
        return best

    @property
    def handing_over(self) -> bool:
        """Nothing new is taken while another is to lead."""
        return self._handover is not None

    def _urge(self, now: Instant) -> None:
        """Ask the next leader to stand, as soon as it has everything."""
        if self._handover is None or now >= self._handover.until:
            return
        node = self._handover.to
        if node in self._peers and self._is_to_stand(node, self._peers[node]):
            self._send(node, always=True)

    def _is_to_stand(self, node: NodeId, progress: Progress) -> bool:
        handover = self._handover
        whole = progress.match == self._durable.log.last_index
        return handover is not None and handover.to == node and whole
