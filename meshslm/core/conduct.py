"""Who misbehaves, and for how long nobody here talks to them.

A peer that breaks the protocol, or sends more housekeeping than any honest node does, gets a
strike: its link ends, and no link to it is taken for a while. Each further strike makes the while
four times as long, from a second to an hour; time without one makes up for them.

Rules:
- A strike is for an identity, never for an address: others behind the same NAT are not to suffer.
  What an address may do is bounded by the link.
- Only what the peer proves to have sent counts: not silence, slowness, or bytes that somebody on
  the way may have changed.
- Messages of tasks are not counted here: tokens may come as fast as the link brings them, and
  tasks have a bound of their own.
- Kept in memory alone, and bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import limits
from meshslm.core.outbox import Outbox
from meshslm.core.views import BanView
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.messages import (
    TaskAccepted,
    TaskCancel,
    TaskChunk,
    TaskDone,
    TaskEnded,
    TaskFailed,
    TaskRefused,
    TaskResend,
    TaskSubmit,
)

TASK_MESSAGES = frozenset(
    (
        *(TaskSubmit, TaskResend, TaskDone, TaskCancel),
        *(TaskAccepted, TaskRefused, TaskChunk, TaskEnded, TaskFailed),
    )
)
"""What a member may send as much of as the link brings."""


@dataclass(slots=True)
class Record:
    """What is held against one identity, and what it may still send."""

    touched: Instant
    tokens: float = limits.HOUSEKEEPING_BURST
    """Messages of housekeeping that it may send at once."""
    strikes: int = 0
    until: Instant = Instant(0)
    """No link to it before then."""
    reason: str = ""
    """Of the last strike."""


class Conduct:
    """The records of all peers that were heard of lately."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._records: dict[NodeId, Record] = {}

    def spend(self, peer: NodeId, now: Instant) -> None:
        """Count one message of housekeeping; raises `PeerFault` where it is one too many."""
        record = self._records.get(peer) or self._record(peer, now)
        passed_ms = ms_between(record.touched, now)
        record.touched = now
        tokens = record.tokens
        if passed_ms > 0:
            tokens += passed_ms / 1000 * limits.HOUSEKEEPING_PER_S
            tokens = min(tokens, limits.HOUSEKEEPING_BURST)
        record.tokens = tokens - 1
        if tokens < 1:
            record.tokens = 0
            raise PeerFault(f"over {limits.HOUSEKEEPING_PER_S} messages of housekeeping a second")

    def strike(self, peer: NodeId, reason: str, now: Instant) -> float:
        """Hold a fault against a peer; milliseconds for which no link to it is taken."""
        record = self._record(peer, now)
        self._forgive(record, now)
        record.strikes += 1
        record.reason = reason
        record.touched = now
        away = min(
            limits.BAN_MS * 4.0 ** min(record.strikes - 1, 16),
            limits.BAN_MOST_MS,
        )
        record.until = after(now, away)
        self._out.tell("peer.banned", f"for {away / 1000:.0f} s: {reason}", peer=peer)
        return away

    def refusal(self, peer: NodeId, now: Instant) -> str:
        """Why no link to a peer is taken now; empty where one is."""
        record = self._records.get(peer)
        if record is None or record.until <= now:
            return ""
        left = ms_between(now, record.until) / 1000
        return f"banned for {left:.0f} s more: {record.reason}"

    def banned(self, now: Instant) -> tuple[BanView, ...]:
        """Everybody to whom no link is taken now, those for the longest time first."""
        found = [
            BanView(peer, record.reason, record.strikes, ms_between(now, record.until))
            for peer, record in self._records.items()
            if record.until > now
        ]
        return tuple(sorted(found, key=lambda ban: -ban.left_ms))

    def _record(self, peer: NodeId, now: Instant) -> Record:
        record = self._records.get(peer)
        if record is None:
            if len(self._records) >= limits.CONDUCT_RECORDS:
                self._forget_one(now)
            record = self._records[peer] = Record(now)
        return record

    def _forgive(self, record: Record, now: Instant) -> None:
        """One strike for each while without another, counted from the end of the ban."""
        good_ms = ms_between(record.until, now)
        if record.strikes and good_ms > 0:
            record.strikes = max(0, record.strikes - int(good_ms / limits.BAN_FORGIVE_MS))

    def _forget_one(self, now: Instant) -> None:
        """Of those who are not banned the one longest unheard of; else who is banned least."""

        def worth(peer: NodeId) -> tuple[int, Instant]:
            record = self._records[peer]
            return max(record.until, now), record.touched

        del self._records[min(self._records, key=worth)]

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._records) <= limits.CONDUCT_RECORDS
