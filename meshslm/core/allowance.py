"""How many bytes each peer may be told for the asking, so that questions alone fill no lane.

Rules:
- Each peer has its own, full at first, and filled again at a steady rate.
- Only who was told something lately is remembered.
"""

from __future__ import annotations

from meshslm.ids import Instant, NodeId, ms_between


class Allowance:
    """Bytes for all peers."""

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._spent: dict[NodeId, tuple[float, Instant]] = {}
        """By peer, what is missing of its burst, and since when."""

    def empty(self, node: NodeId, now: Instant) -> bool:
        """Whether a peer was told so much lately that it must wait."""
        left = {
            peer: spent - ms_between(since, now) / 1000 * self._per_s
            for peer, (spent, since) in self._spent.items()
        }
        self._spent = {peer: (spent, now) for peer, spent in left.items() if spent > 0}
        return left.get(node, 0.0) >= self._burst

    def spend(self, node: NodeId, size: int, now: Instant) -> None:
        """A peer is being told something; the last thing may be more than it had left."""
        spent, since = self._spent.get(node, (0.0, now))
        self._spent[node] = (spent + size, since)
