"""Dials made on others' behalf, so that they learn whether they can be reached.

As libp2p's AutoNAT has it, and stricter: nobody can be made to knock at a third one's door.

Rules:
- A peer is dialled only on the host that its link comes from, under its own id.
- A few dials a minute for each peer, and a bounded number for all.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from meshslm import limits
from meshslm.core.dialling import peer_of
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.reach_events import DialTried, TryDial
from meshslm.core.ways import host_of, relayed, through_relay
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.reach import DialBack, DialedBack

REACHED: Final = "reached"
FAILED: Final = "failed"
REFUSED: Final = "refused"


class DialBacks:
    """All trial dials of one node."""

    def __init__(self, directory: Directory, out: Outbox, *, on: bool) -> None:
        self._directory = directory
        self._out = out
        self._on = on
        self._number = 0
        self._tries: dict[int, tuple[NodeId, int, str]] = {}
        """Under way: who asked, its number, and where."""
        self._made: dict[NodeId, deque[Instant]] = {}
        """When dials were made for whom, of late."""
        self._made_for_all: deque[Instant] = deque()

    def asked(self, peer: Peer, ask: DialBack, now: Instant) -> None:
        """A peer wants to be dialled."""
        fit = [address for address in ask.addresses if _is_its_own(peer, address)]
        refusal = ""
        if not self._on:
            refusal = "this node dials nobody back"
        elif not fit:
            refusal = "no address is where this node sees the asker come from"
            self._out.tell("reach.foreign-address", refusal, peer=peer.node)
        elif not self._has_time_for(peer.node, now):
            refusal = "it was asked too often"
        if refusal:
            answer = DialedBack(ask.number, REFUSED, detail=refusal)
            self._out.send(peer.node, Lane.CONTROL, answer)
            return
        self._number += 1
        self._tries[self._number] = (peer.node, ask.number, fit[0])
        self._out.put(TryDial(self._number, fit[0]))

    def tried(self, event: DialTried) -> None:
        """A trial dial is over."""
        node, number, address = self._tries.pop(event.number)
        if self._directory.get_alive(node) is not None:
            outcome = REACHED if event.reached else FAILED
            answer = DialedBack(number, outcome, address, event.reason[:200])
            self._out.send(node, Lane.CONTROL, answer)

    def _has_time_for(self, node: NodeId, now: Instant) -> bool:
        """Whether a dial may be made for a peer; if so it is counted."""
        mine = self._made.setdefault(node, deque())
        for made in (*self._made.values(), self._made_for_all):
            while made and ms_between(made[0], now) >= limits.DIAL_BACKS_MS:
                made.popleft()
        self._made = {n: made for n, made in self._made.items() if made or n == node}
        busy = len(self._made_for_all) >= limits.DIAL_BACKS or len(self._tries) >= limits.DIAL_BACKS
        if busy or len(mine) >= limits.DIAL_BACKS_PER_PEER:
            return False
        mine.append(now)
        self._made_for_all.append(now)
        return True

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._tries) <= limits.DIAL_BACKS
        assert len(self._made_for_all) <= limits.DIAL_BACKS
        assert len(self._made) <= limits.DIAL_BACKS + 1


def _is_its_own(peer: Peer, address: str) -> bool:
    host = host_of(peer.came_from)
    direct = peer.incoming and not relayed(peer) and not through_relay(address)
    return direct and bool(host) and host_of(address) == host and peer_of(address) == peer.node
