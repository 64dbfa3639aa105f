"""Peers whose link broke a moment ago: they are waited for before their tasks go elsewhere.

Streams number their items and ask again, so an answer need not end with the connection that
carried it: a cable that changes, a router that restarts, a better way to the same peer.

Events: a link breaks, the same life of its peer is linked again, a dial is refused, the timer.
Effects: timers, `Tell`, and `gone`, which ends what hung on the peer.

Rules:
- A peer is away for `LINK_GRACE_MS` at most, and then it is gone.
- Where the system of a peer's own machine refuses the very next dial, nothing listens there any
  more: the process has died, and nobody waits for it.
- While a peer is away, nothing of a task is sent to it; what it missed it asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm import limits
from meshslm.core.directory import Peer
from meshslm.core.outbox import Outbox
from meshslm.core.ways import host_of
from meshslm.ids import Instant, NodeId

TIMER = "away"


def own_machine(peer: Peer) -> tuple[str, ...]:
    """Addresses at which nobody but the peer's own machine answers, as far as its link showed.

    Where it was dialled that is the address; where it dialled us, what it announces on the host
    that it came from: behind a NAT the two differ.
    """
    if not peer.incoming:
        return (peer.address,)
    host = host_of(peer.came_from)
    return tuple(a for a in peer.addresses if peer.came_from and host_of(a) == host)


@dataclass(slots=True)
class _Away:
    reason: str
    """Why its link broke."""
    proof: tuple[str, ...]
    """A dial to one of these that is refused shows that it has died."""


class Absence:
    """Everybody who is being waited for."""

    def __init__(
        self,
        out: Outbox,
        gone: Callable[[NodeId, str, Instant], None],
        back: Callable[[NodeId, Instant], None],
    ) -> None:
        self._out = out
        self._gone = gone
        self._back = back
        self._away: dict[NodeId, _Away] = {}

    def begin(self, peer: Peer, reason: str) -> None:
        """The link of a peer broke, and nobody meant it to."""
        self._away[peer.node] = _Away(reason, own_machine(peer))
        self._out.hold_back.add(peer.node)
        self._out.tell("peer.away", reason, peer=peer.node)
        self._out.start_timer(TIMER, peer.node, limits.LINK_GRACE_MS)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._away

    def back(self, node: NodeId, now: Instant) -> None:
        """The same life of a peer is linked again."""
        if self._forget(node) is not None:
            self._back(node, now)

    def over(self, node: NodeId, reason: str, now: Instant) -> None:
        """A peer is gone, whether it was waited for or not."""
        self._forget(node)
        self._out.tell("peer.gone", reason, peer=node)
        self._gone(node, reason, now)

    def refused(self, address: str, now: Instant) -> None:
        """Nothing listens at an address."""
        for node, away in list(self._away.items()):
            if address in away.proof:
                self.over(node, f"{away.reason}, and nothing listens there any more", now)

    def timer(self, node: NodeId, now: Instant) -> None:
        """A peer has not come back in time."""
        away = self._away.get(node)
        if away is not None:
            self.over(node, away.reason, now)

    def _forget(self, node: NodeId) -> _Away | None:
        self._out.hold_back.discard(node)
        self._out.stop_timer(TIMER, node)
        return self._away.pop(node, None)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert self._out.hold_back == self._away.keys()
        for node in self._away:
            assert self._out.timer_runs(TIMER, node), f"{node} may be away for ever"
