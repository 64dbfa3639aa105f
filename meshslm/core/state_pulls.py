"""What this node has asked of its peers, and what it still has to: few documents of each at a time.

An answer may take 256 KiB, and all answers of a peer wait in one lane of it. So few are under way,
and the next document is asked for when one has come.

Timer: `state.pull`, while anything is under way.

Rules:
- At most `STATE_PULLS` of a peer are under way; the rest wait in the order in which they came up,
  and a document of which there is more goes to their end.
- A document is under way at one peer at a time; where no answer came from that one for
  `STATE_PULL_MS`, another that offers it is asked.
- What has not come is asked for again when no answer at all came from its peer for a while. That is
  three times as long as the last answer took, at least `STATE_PULL_MS`; and twice as long each time
  that it was in vain. After the longest one the peer is asked nothing more until it is compared
  with again.
- A peer that answers other things is no reason to wait for ever: `STATE_PULL_HELD_MS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshslm import state_limits
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, ms_between

TIMER = "state.pull"


@dataclass(slots=True)
class _Peer:
    """What one peer was, and will be, asked for."""

    asked: dict[str, Instant] = field(default_factory=dict)
    """Documents under way, and since when."""
    waiting: dict[str, bytes] = field(default_factory=dict)
    """Documents to be asked for, in order, with the vector that the peer told of, if it did."""
    again: dict[str, None] = field(default_factory=dict)
    """Documents asked for more than once: how long their answers took says nothing."""
    came: list[int] = field(default_factory=list)
    """Numbers of answers that came, and of which the peer does not know."""
    heard: Instant = Instant(0)
    patience_ms: float = state_limits.STATE_PULL_MS

    def overdue(self, asked: Instant, now: Instant) -> bool:
        silent = ms_between(max(asked, self.heard), now)
        held = ms_between(asked, now)
        return silent >= self.patience_ms or held >= state_limits.STATE_PULL_HELD_MS


class StatePulls:
    """What is asked of whom."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._peers: dict[NodeId, _Peer] = {}
        self._at: dict[str, NodeId] = {}
        """At whom each document is under way."""

    def busy(self, name: str, node: NodeId, now: Instant) -> bool:
        """Whether a document is under way, so that this peer need not be asked."""
        at = self._at.get(name)
        if at is None or at == node:
            return at is not None
        peer = self._peers[at]
        return ms_between(max(peer.asked[name], peer.heard), now) < state_limits.STATE_PULL_MS

    def full(self, node: NodeId) -> bool:
        """Whether no more can be asked of a peer now."""
        peer = self._peers.get(node)
        return peer is not None and len(peer.asked) >= state_limits.STATE_PULLS

    def begin(self, node: NodeId, name: str, now: Instant) -> None:
        """A document is being asked for, and of nobody else any more."""
        if name in self._at:
            del self._peers[self._at[name]].asked[name]
        peer = self._peer(node)
        peer.waiting.pop(name, None)
        peer.asked[name] = now
        self._at[name] = node
        if not self._out.timer_runs(TIMER, ""):
            self._out.start_timer(TIMER, "", state_limits.STATE_PULL_MS)

    def wait(self, node: NodeId, name: str, told: bytes = b"") -> None:
        """A document is to be asked for; what is too much is found by a later comparison."""
        waiting = self._peer(node).waiting
        if name in waiting or len(waiting) < state_limits.DOCUMENTS:
            waiting[name] = told

    def next(self, node: NodeId) -> tuple[str, bytes] | None:
        """Take out what is to be asked of a peer now, with the vector that it told of."""
        peer = self._peers.get(node)
        if peer is None or self.full(node):
            return None
        name = next((name for name in peer.waiting if name not in self._at), None)
        return (name, peer.waiting.pop(name)) if name is not None else None

    def came(self, node: NodeId, name: str, number: int, now: Instant) -> bool:
        """Deltas came from a peer; whether they answer what it was asked for.

        `number` is the answer's, 0 where it has none.
        """
        peer = self._peer(node)
        if number:
            peer.came = [*peer.came, number][-state_limits.STATE_CAME :]
        if self._at.get(name) != node:
            return False
        since, peer.heard = peer.heard, now
        asked = peer.asked.pop(name)
        del self._at[name]
        if name in peer.again:
            del peer.again[name]
        else:
            took = ms_between(max(asked, since), now)
            peer.patience_ms = min(
                max(3 * took, state_limits.STATE_PULL_MS), state_limits.STATE_PULL_MOST_MS
            )
        return True

    def tell_came(self, node: NodeId) -> tuple[int, ...]:
        """Numbers of answers that came, to be told now."""
        peer = self._peers.get(node)
        if peer is None:
            return ()
        came, peer.came = tuple(peer.came), []
        return came

    def look(self, now: Instant) -> list[NodeId]:
        """Give up what does not come; peers of which something may be asked now."""
        for peer in self._peers.values():
            late = [name for name, asked in peer.asked.items() if peer.overdue(asked, now)]
            if late:
                self._give_up(peer, late)
        if any(peer.asked or peer.waiting for peer in self._peers.values()):
            self._out.start_timer(TIMER, "", state_limits.STATE_PULL_MS)
        return [node for node, peer in self._peers.items() if peer.waiting]

    def _give_up(self, peer: _Peer, late: list[str]) -> None:
        for name in late:
            del peer.asked[name], self._at[name]
            peer.again[name] = None
            peer.waiting.setdefault(name, b"")
        if peer.patience_ms >= state_limits.STATE_PULL_MOST_MS and not peer.asked:
            peer.waiting.clear()
            peer.again.clear()
        peer.patience_ms = min(2 * peer.patience_ms, state_limits.STATE_PULL_MOST_MS)

    def parted(self, node: NodeId) -> None:
        """A peer is gone."""
        peer = self._peers.pop(node, None)
        for name in peer.asked if peer is not None else ():
            del self._at[name]

    def _peer(self, node: NodeId) -> _Peer:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer()
        return peer

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        under_way = {name: node for node, peer in self._peers.items() for name in peer.asked}
        assert under_way == self._at, "documents are under way at others than they seem to be"
        for node, peer in self._peers.items():
            assert len(peer.asked) <= state_limits.STATE_PULLS, f"{node} is asked too much"
        assert not under_way or self._out.timer_runs(TIMER, ""), "a pull that may never end"
