"""What the failure detector keeps of each linked peer, of its rounds, and of probes for others.

Rules:
- Silence counts from the last message, or from when this node began to listen again.
- The word of somebody who reached the peer holds for a moment only.
- In a round each peer has its turn once, in an order that is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.directory import Peer
from meshslm.core.suspicion import Suspicion
from meshslm.ids import Instant, NodeId, ms_between

QUIET_PRESENCES = 1.15
"""A peer is looked at when its next presence is late by so much of the time between two."""
VOUCHED_MS = 1_500
"""How long the word of somebody who reached a peer holds; they are asked again sooner."""
BEAT_LATE_MS = 1.1 * mesh_limits.BEAT_MS
"""So long after a beat the next one is late, by a tenth of the time between two: a neighbour in a
large mesh is looked at then, whatever it promised or said meanwhile, as that costs a ping."""


def spacing_ms(doubted: int) -> float:
    """Milliseconds between two pings to one of so many that are being looked at.

    Where half of a mesh is cut off many are, and pings to all of them would be a flood.
    """
    crowd = -(-doubted // mesh_limits.PINGS_AT_ONCE)
    return min(mesh_limits.PROBE_AGAIN_MS * crowd, mesh_limits.PROBE_WAIT_MS)


@dataclass(slots=True)
class Watch:
    """What this node knows of the life of one linked peer."""

    peer: Peer
    excused: Instant
    """Silence before that does not count: this node did not listen."""
    counter: int = 0
    since: Instant | None = None
    """When it began to be looked at; None while it is not."""
    pinged: Instant = Instant(0)
    unanswered: int = 0
    asked: Instant | None = None
    """When others were asked to probe it."""
    helpers: int = 0
    replies: int = 0
    vouched: Instant | None = None
    """When somebody else reached it."""
    suspicion: Suspicion | None = None

    def silence_ms(self, now: Instant) -> float:
        """For how long the peer was not heard while this node listened."""
        return ms_between(max(self.peer.heard, self.excused), now)

    def is_late(self, interval_ms: int, now: Instant) -> bool:
        """Whether it is time to look at it: a presence comes each `interval_ms` at least."""
        promised = max(self.peer.next_ms, interval_ms)
        return self.since is None and self.silence_ms(now) > QUIET_PRESENCES * promised

    def vouched_for(self, now: Instant) -> bool:
        """Whether somebody else has reached the peer of late."""
        return self.vouched is not None and ms_between(self.vouched, now) < VOUCHED_MS


@dataclass(slots=True)
class Errand:
    """A probe on somebody else's behalf."""

    asker: NodeId
    nonce: int
    since: Instant


class Errands:
    """Probes on others' behalf that are under way."""

    def __init__(self) -> None:
        self._by_node: dict[NodeId, list[Errand]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_node.values()))

    def __iter__(self) -> Iterator[NodeId]:
        """Who is probed."""
        return iter(self._by_node)

    def begin(self, node: NodeId, errand: Errand) -> None:
        """Somebody wants to know whether a peer is there."""
        self._by_node.setdefault(node, []).append(errand)

    def end(self, node: NodeId) -> list[Errand]:
        """It is known now: those who wanted to know."""
        return self._by_node.pop(node, [])

    def overdue(self, now: Instant) -> list[tuple[NodeId, Errand]]:
        """Those whose peers have not answered in time; they are over."""
        found = []
        for node, errands in list(self._by_node.items()):
            old = [e for e in errands if ms_between(e.since, now) >= mesh_limits.PROBE_WAIT_MS]
            found += [(node, errand) for errand in old]
            self._by_node[node] = errands[len(old) :]
            if len(old) == len(errands):
                del self._by_node[node]
        return found


class Turns:
    """Whose turn it is to be probed."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._round: list[NodeId] = []
        self._turn = 0

    def next(self, watches: Mapping[NodeId, Watch], *, spare: bool) -> Watch | None:
        """The next one; None where nobody is watched, or where turns are spared and this is one."""
        self._turn += 1
        if spare and self._turn % mesh_limits.PROBES_SPARED:
            return None
        while self._round or watches:
            if not self._round:
                self._round = self._chance.shuffled(list(watches))
            watch = watches.get(self._round.pop())
            if watch is not None:
                return watch
        return None
