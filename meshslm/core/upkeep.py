"""What keeps a large mesh in one piece and its links few: audits, and the end of idle links.

Rules:
- Now and then a member drawn from all is called and compared with, so that a record whose member
  nobody watches does not stand for ever, and the halves of a cut mesh meet again: those who are
  gone are called too.
- A failed call accuses only who is known to take calls.
- A link that serves for nothing is closed by who dialled it.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.directory import Directory, Peer
from meshslm.core.members import Members
from meshslm.ids import Instant, NodeId, after, ms_between

AUDITS_FOR_CONFIGURED = 8
"""One in so many calls goes to the addresses from the configuration."""


class Upkeep:
    """The rounds of one node."""

    def __init__(
        self,
        node: NodeId,
        directory: Directory,
        members: Members,
        chance: Chance,
        *,
        reach: Callable[[NodeId, Instant], bool],
        configured: Callable[[Instant], None],
        accuse: Callable[[NodeId, Instant], None],
        close: Callable[[Peer, str, Instant], None],
    ) -> None:
        self._node = node
        self._directory = directory
        self._members = members
        self._chance = chance
        self._reach = reach
        self._configured = configured
        self._accuse = accuse
        self._close = close
        self._next: Instant | None = None
        self._called: NodeId | None = None

    def audit(self, now: Instant) -> None:
        """Call somebody, if it is time."""
        lost = self._members.lost
        interval = mesh_limits.AUDIT_MS / 4 if lost else mesh_limits.AUDIT_MS
        if self._next is None:
            self._next = after(now, interval * self._chance.unit())
        if self._next > now and ms_between(now, self._next) <= 1.5 * interval:
            return
        self._next = after(now, interval * self._chance.between(0.5, 1.5))
        self._called = None
        if self._chance.below(AUDITS_FOR_CONFIGURED) == 0:
            self._configured(now)
        elif lost and self._chance.below(2):
            self._reach(self._chance.pick(list(lost)), now)
        elif len(self._members):
            node = self._members.draw(self._chance).record.node
            if node != self._node and self._directory.get_alive(node) is None:
                self._called = node
                self._reach(node, now)

    def unreachable(self, node: NodeId, now: Instant) -> None:
        """A call to a member has failed."""
        fact = self._members.get(node)
        if node == self._called and fact is not None and fact.record.dialled:
            self._accuse(node, now)

    def close_idle(self, peers: list[Peer], needed: Callable[[NodeId], bool], now: Instant) -> None:
        """End those links that serve for nothing."""
        over = len(peers) - mesh_limits.LARGE_MESH_LINKS
        if over > 0:
            spare = [peer for peer in peers if not needed(peer.node)]
            for peer in sorted(spare, key=lambda peer: peer.used)[:over]:
                self._close(peer, "too many links", now)
            return
        for peer in peers:
            idle = not peer.incoming and ms_between(peer.used, now) >= mesh_limits.LINK_IDLE_MS
            if idle and not needed(peer.node):
                self._close(peer, "not needed now", now)
