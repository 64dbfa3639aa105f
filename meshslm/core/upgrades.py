"""From a relayed link to a direct one: both sides dial each other at the same time.

Each side's first packet opens its own NAT for the other's. The side that was called begins, as it
is the one that cannot be dialled: `offer` and `answer` bring addresses and measure the round trip,
`now` starts both dials as nearly at the same time as can be. Where only one side is behind a NAT,
its dial is the one that gets through.

Source: libp2p's specification of DCUtR.

Rules:
- Tried a few times with growing waits, and then again now and then: networks change.
- What comes of it is a link like any other, which takes the relayed one's place. Tasks go on, as
  they do over any changed link.
- A peer is dialled at addresses that it gives itself, a bounded number of them, where a single
  machine can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshslm import limits
from meshslm.core.dialling import peer_of
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.reach_events import PunchTo
from meshslm.core.ways import leads_somewhere, relayed, through_relay
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.reach import Punch

TIMER: Final = "punch"
OFFER, ANSWER, NOW = "offer", "answer", "now"


@dataclass(slots=True)
class _Upgrade:
    next_at: Instant
    tries: int = 0
    sent: Instant = Instant(0)
    number: int = 0
    """Of the exchange under way; 0: none."""
    addresses: tuple[str, ...] = ()
    """Where the peer may be reached."""
    heard: int = 0
    """Exchanges that the peer began, of late."""


class Upgrades:
    """Every relayed link."""

    def __init__(
        self, directory: Directory, out: Outbox, addresses: Callable[[], tuple[str, ...]]
    ) -> None:
        self._directory = directory
        self._out = out
        self._addresses = addresses
        self._links: dict[NodeId, _Upgrade] = {}
        self._number = 0

    def joined(self, peer: Peer, now: Instant) -> None:
        """A peer is linked."""
        if relayed(peer):
            self._links[peer.node] = _Upgrade(after(now, limits.REACH_MS))

    def parted(self, node: NodeId) -> None:
        """A peer's link is gone."""
        self._links.pop(node, None)
        self._out.stop_timer(TIMER, node)

    def tick(self, now: Instant) -> None:
        """Begin where it is time."""
        for node, link in self._links.items():
            peer = self._directory.peers[node]
            if peer.incoming and ms_between(link.next_at, now) >= 0:
                waits = limits.UPGRADE_WAITS_MS
                link.next_at = after(now, waits[min(link.tries, len(waits) - 1)])
                link.tries += 1
                self._number += 1
                link.number, link.sent = self._number, now
                self._send(node, OFFER, link.number)

    def on_punch(self, peer: Peer, punch: Punch, now: Instant) -> None:
        """The peer at the other end of a relayed link takes part."""
        link = self._links.get(peer.node)
        if link is None:
            return  # a direct link has just taken its place
        theirs = tuple(
            a
            for a in punch.addresses
            if peer_of(a) == peer.node and not through_relay(a) and leads_somewhere(a)
        )
        if punch.step == OFFER and not peer.incoming:
            if ms_between(link.sent, now) < limits.UPGRADE_LEAST_MS and link.number:
                return
            link.number, link.sent, link.addresses = punch.number, now, theirs
            self._send(peer.node, ANSWER, punch.number)
        elif punch.step == ANSWER and punch.number == link.number and peer.incoming:
            link.number, link.addresses = 0, theirs
            self._send(peer.node, NOW, punch.number)
            self._out.start_timer(TIMER, peer.node, ms_between(link.sent, now) / 2)
        elif punch.step == NOW and punch.number == link.number and not peer.incoming:
            self._dial(link)

    def timer(self, node: NodeId) -> None:
        """The peer has our word by now, and dials."""
        link = self._links.get(node)
        if link is not None:
            self._dial(link)

    def _dial(self, link: _Upgrade) -> None:
        for address in link.addresses:
            self._out.put(PunchTo(address))
        link.addresses = ()

    def _send(self, node: NodeId, step: str, number: int) -> None:
        addresses = self._addresses() if step != NOW else ()
        self._out.send(node, Lane.CONTROL, Punch(step, number, addresses))

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for node in self._links:
            peer = self._directory.get_alive(node)
            assert peer is not None, f"{node} is relayed without a link"
            assert relayed(peer)
