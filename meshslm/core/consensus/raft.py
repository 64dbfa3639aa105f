"""One coordinator: follows, votes, stands for election; `Leading` is what it does as a leader.

Rules (Ongaro 2014, chapters 3, 4, 6 and 9):
- A term has one leader: a node votes once in it, and the vote is on disk before it is told.
- Only who has every committed entry gets votes: the log of the candidate must be no older.
- Whoever heard the leader less than `election_ms` ago, by its own clock, helps nobody to replace
  it, unless the leader asked for that. The lease for reads rests on this; a node that has just
  started cannot know, and counts as one that has heard it.
- Before a node begins a term it asks whether it would be chosen: who was cut off disturbs nobody.
- A vote or an acknowledgement counts with the disk that has the seat, and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from meshslm.chance import Chance
from meshslm.core.consensus.decided import Decided
from meshslm.core.consensus.durable import Durable
from meshslm.core.consensus.events import LogRecovered, PersistLog, Snapshot
from meshslm.core.consensus.leading import Leading
from meshslm.core.consensus.receiving import Receiving
from meshslm.core.consensus.timing import Timing
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.consensus import (
    Append,
    AppendReply,
    Ballot,
    BallotReply,
    Configuration,
    ConsensusMessage,
    Entry,
    Result,
    Seat,
    SnapshotPart,
)

NOBODY = NodeId("")


class Role(StrEnum):
    """What a coordinator does at the moment."""

    FOLLOWER = "follower"
    ASKING = "asking"
    """It asks whether it would be chosen."""
    CANDIDATE = "candidate"
    LEADER = "leader"


class Raft:
    """The machine of one coordinator. Every public step ends with `settle`."""

    def __init__(
        self,
        node: NodeId,
        recovered: LogRecovered,
        timing: Timing,
        chance: Chance,
        now: Instant,
        *,
        persist: Callable[[PersistLog], None],
        post: Callable[[NodeId, ConsensusMessage], None],
        applied: Callable[[Entry, Result | None], None],
    ) -> None:
        self.node = node
        self.timing = timing
        self._chance = chance
        self._post = post
        self._applied = applied
        self._to_self: list[ConsensusMessage] = []
        self.durable = self._make_durable(recovered, persist)
        self.decided = Decided()
        self.commit = 0
        if recovered.snapshot is not None:
            self.decided.load(recovered.snapshot.data)
            self.commit = recovered.snapshot.index
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.leading: Leading | None = None
        self._heard: Instant | None = now if recovered.group else None
        self._deadline = now
        self._votes: list[NodeId] = []
        self._receiving = Receiving()
        self._wait(now)

    def _make_durable(
        self, recovered: LogRecovered, persist: Callable[[PersistLog], None]
    ) -> Durable:
        return Durable(recovered, persist, self._route)

    # --- what others ask ------------------------------------------------------------------------
    @property
    def configuration(self) -> Configuration:
        """Who decides, as far as is known here."""
        return self.durable.log.configuration

    @property
    def votes_here(self) -> bool:
        """Whether this node has a vote, with the disk that it has."""
        seat = self.seat(self.node)
        return seat is not None and seat.store == self.durable.store

    def seat(self, node: NodeId) -> Seat | None:
        """A voter's seat."""
        return next((seat for seat in self.configuration.voters if seat.node == node), None)

    def next_wake(self) -> Instant:
        """When `wake` is to be called, if nothing else comes before."""
        return self.leading.next_beat if self.leading is not None else self._deadline

    # --- steps ----------------------------------------------------------------------------------
    def found(self, group: str, now: Instant) -> None:
        """Begin a group of which this node is the only voter."""
        assert not self.durable.group, "it belongs to a group already"
        self.durable.join(group)
        self.durable.enter(1, None)
        alone = Configuration((Seat(self.node, self.durable.store),))
        self.durable.append((Entry(1, 1, None, alone),))
        self._heard, self._deadline = None, now
        self.wake(now)

    def wake(self, now: Instant) -> None:
        """Time has passed."""
        if self.leading is not None:
            self.leading.beat(now)
        elif now >= self._deadline:
            self._wait(now)
            if self.votes_here and self.durable.group:
                self._ask_for_votes(now)
        self.settle(now)

    def persisted(self, number: int, now: Instant) -> None:
        """The disk has everything up to this number."""
        self.durable.persisted(number)
        self.settle(now)

    def hear(self, sender: NodeId, message: ConsensusMessage, now: Instant) -> None:
        """A coordinator says something. Raises `PeerFault` where it breaks the protocol."""
        try:
            self._hear(sender, message, now)
        finally:
            self.settle(now)

    def settle(self, now: Instant) -> None:
        """End a step: write, send, and hear what this node said to itself."""
        self.durable.settle()
        while self._to_self:
            message = self._to_self.pop(0)
            self._hear(self.node, message, now)
            self.durable.settle()

    def _route(self, to: NodeId, message: ConsensusMessage) -> None:
        if to == self.node:
            self._to_self.append(message)
        else:
            self._post(to, message)

    def _hear(self, sender: NodeId, message: ConsensusMessage, now: Instant) -> None:
        match message:
            case Ballot():
                self._on_ballot(sender, message, now)
            case BallotReply():
                self._on_ballot_reply(sender, message, now)
            case Append():
                self._on_append(sender, message, now)
            case SnapshotPart():
                self._on_part(sender, message, now)
            case AppendReply():
                self._on_append_reply(sender, message, now)
            case _:
                raise PeerFault(f"{type(message).__name__} is not for a coordinator")

    # --- terms ----------------------------------------------------------------------------------
    def _wait(self, now: Instant) -> None:
        """Give the leader, or whoever becomes one, some time."""
        wait_ms = self.timing.election_ms * self._chance.between(1, 2)
        self._deadline = after(now, wait_ms)

    def follow(self, term: int, leader: NodeId, now: Instant) -> None:
        """Be a follower in a term that is no older than the present one."""
        if term > self.durable.term:
            self.durable.enter(term, None)
        if self.leading is not None:
            self.leading.end()
            self.leading = None
            self._wait(now)
        self.role = Role.FOLLOWER
        self.leader = leader

    def _sticks(self, now: Instant) -> bool:
        """Whether the leader was heard so lately that nobody is to take its place."""
        if self.leading is not None:
            return True
        heard = self._heard
        return heard is not None and ms_between(heard, now) < self.timing.election_ms

    def _is_current(self, ballot: Ballot) -> bool:
        """Whether the candidate's log is no older than this node's."""
        log = self.durable.log
        return (ballot.last_term, ballot.last_index) >= (log.last_term, log.last_index)

    # --- elections ------------------------------------------------------------------------------
    def _ask_for_votes(self, now: Instant) -> None:
        """Find out whether a majority would vote for this node."""
        self.follow(self.durable.term, NOBODY, now)
        self.role, self._votes = Role.ASKING, []
        self._canvass(self.durable.term + 1, pre=True)
        durable = self.durable
        term = durable.term + 1
        reply = BallotReply(durable.group, term, granted=True, pre=True, store=durable.store)
        self._count(self.node, reply, now)

    def _stand(self, now: Instant, *, handover: bool = False) -> None:
        """Begin a term and ask for the votes in it."""
        durable = self.durable
        self.follow(durable.term, NOBODY, now)
        durable.enter(durable.term + 1, self.node)
        self.role, self._votes = Role.CANDIDATE, []
        self._wait(now)
        self._canvass(durable.term, handover=handover)
        own = BallotReply(durable.group, durable.term, granted=True, store=durable.store)
        durable.promise(self.node, own)

    def _canvass(self, term: int, *, pre: bool = False, handover: bool = False) -> None:
        durable = self.durable
        log = durable.log
        ballot = Ballot(durable.group, term, log.last_index, log.last_term, pre, handover)
        for seat in self.configuration.voters:
            if seat.node != self.node:
                (durable.send if pre else durable.promise)(seat.node, ballot)

    def _on_ballot(self, sender: NodeId, ballot: Ballot, now: Instant) -> None:
        durable = self.durable
        if not ballot.handover and self._sticks(now):
            return
        if ballot.pre:
            granted = ballot.term > durable.term and self._is_current(ballot)
            term = ballot.term if granted else durable.term
            reply = BallotReply(durable.group, term, granted, pre=True, store=durable.store)
            durable.promise(sender, reply)
            return
        if ballot.term > durable.term:
            self.follow(ballot.term, NOBODY, now)
        granted = (
            ballot.term == durable.term
            and durable.vote in (None, sender)
            and self._is_current(ballot)
        )
        if granted and durable.vote is None:
            durable.enter(durable.term, sender)
            self._wait(now)
        reply = BallotReply(durable.group, durable.term, granted, store=durable.store)
        durable.promise(sender, reply)

    def _on_ballot_reply(self, sender: NodeId, reply: BallotReply, now: Instant) -> None:
        if reply.term > self.durable.term and not (reply.pre and reply.granted):
            self.follow(reply.term, NOBODY, now)
        elif reply.granted:
            self._count(sender, reply, now)

    def _count(self, sender: NodeId, reply: BallotReply, now: Instant) -> None:
        wanted = self.durable.term + (1 if reply.pre else 0)
        asking = self.role is (Role.ASKING if reply.pre else Role.CANDIDATE)
        seat = self.seat(sender)
        if not asking or reply.term != wanted or seat is None or seat.store != reply.store:
            return  # another store: it lost its log, and with it the votes that it has given
        if sender not in self._votes:
            self._votes.append(sender)
        if len(self._votes) <= len(self.configuration.voters) // 2:
            return
        if reply.pre:
            self._stand(now)
        else:
            self.role, self.leader = Role.LEADER, self.node
            self.leading = self._make_leading(now)
            self.leading.begin(now)

    def _make_leading(self, now: Instant) -> Leading:
        return Leading(self, now)

    # --- following ------------------------------------------------------------------------------
    def _accept_leader(self, sender: NodeId, term: int, now: Instant) -> bool:
        """Whether to hear the sender as this term's leader; one of an older term is told."""
        if term < self.durable.term:
            return False
        if term == self.durable.term and self.leading is not None:
            raise PeerFault(f"a second leader in term {term}")
        self.follow(term, sender, now)
        self._heard = now
        self._wait(now)
        return True

    def _reply(
        self, to: NodeId, match: int, round_: int, *, success: bool, offset: int | None = None
    ) -> None:
        durable = self.durable
        reply = AppendReply(
            durable.group, durable.term, success, match, round_, durable.store, offset
        )
        durable.promise(to, reply)

    def _on_append(self, sender: NodeId, message: Append, now: Instant) -> None:
        if not self._accept_leader(sender, message.term, now):
            self._reply(sender, 0, 0, success=False)
            return
        log, previous = self.durable.log, message.previous_index
        known = log.term_at(previous)
        if previous > log.last_index:
            self._reply(sender, log.last_index, message.round, success=False)
        elif previous >= log.base_index and known != message.previous_term:
            first = max(log.first_of_term(previous) - 1, self.commit)
            self._reply(sender, min(first, previous - 1), message.round, success=False)
        else:
            self._take(message)
            match = previous + len(message.entries)
            self.commit_to(min(message.commit, match))
            self._reply(sender, match, message.round, success=True)
        if message.stand and self.votes_here:
            self._stand(now, handover=True)

    def _take(self, message: Append) -> None:
        """Put what is new behind what is here; what contradicts it goes."""
        log = self.durable.log
        for place, entry in enumerate(message.entries):
            if entry.index != message.previous_index + place + 1 or entry.term > message.term:
                raise PeerFault("entries that do not follow each other")
            if entry.index <= log.base_index or log.term_at(entry.index) == entry.term:
                continue
            if entry.index <= self.commit:
                raise PeerFault(f"entry {entry.index} is committed with another term")
            if entry.index <= log.last_index:
                self.durable.cut(entry.index)
            self.durable.append(message.entries[place:])
            return

    def _on_append_reply(self, sender: NodeId, reply: AppendReply, now: Instant) -> None:
        if reply.term > self.durable.term:
            self.follow(reply.term, NOBODY, now)
        elif self.leading is not None and reply.term == self.durable.term:
            self.leading.on_reply(sender, reply, now)

    # --- snapshots ------------------------------------------------------------------------------
    def _on_part(self, sender: NodeId, part: SnapshotPart, now: Instant) -> None:
        if not self._accept_leader(sender, part.term, now):
            self._reply(sender, 0, 0, success=False)
            return
        if part.index <= self.commit:
            self._reply(sender, part.index, part.round, success=True)
            return
        wanted = self._receiving.take(part)
        if wanted < part.total:
            self._reply(sender, part.index, part.round, success=True, offset=wanted)
            return
        data, self._receiving = bytes(self._receiving.data), Receiving()
        self._install(Snapshot(part.index, part.last_term, part.configuration, data))
        self._reply(sender, part.index, part.round, success=True)

    def _install(self, snapshot: Snapshot) -> None:
        """Take a snapshot's place in the log; what follows a known entry there stays."""
        if self.durable.log.term_at(snapshot.index) == snapshot.term:
            self.commit_to(snapshot.index)
            return
        fresh = Decided()
        fresh.load(snapshot.data)
        self.decided = fresh
        self.durable.install(snapshot)
        self.commit = snapshot.index

    # --- what is committed ----------------------------------------------------------------------
    def commit_to(self, index: int) -> None:
        """Carry out what is committed; cut the log where it has grown long."""
        log = self.durable.log
        while self.commit < index:
            self.commit += 1
            entry = log.entry(self.commit)
            result = None
            if entry.proposal is not None:
                result = self.decided.carry_out(entry.index, entry.proposal)
            self._applied(entry, result)
        kept = self.durable.snapshot
        if self.commit - (kept.index if kept is not None else 0) >= self.timing.log_entries:
            self._compact()

    def _compact(self) -> None:
        log, index = self.durable.log, self.commit
        term = log.term_at(index)
        assert term is not None, "what was just carried out is kept"
        configuration = log.configuration_at(index)
        snapshot = Snapshot(index, term, configuration, self.decided.saved())
        self.durable.compact(snapshot, keep=self.timing.log_entries // 4)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        log = self.durable.log
        assert log.base_index <= self.commit <= log.last_index
        assert (self.leading is not None) == (self.role is Role.LEADER)
        assert self.commit - log.base_index <= self.timing.log_entries * 2
