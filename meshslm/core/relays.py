"""Relays: who takes calls for this node where it cannot be dialled, and for whom it does so.

Source: libp2p's specification of the circuit relay, version 2. The messages between a node and its
relay are that protocol's; here is decided who asks whom, and who may.

Rules:
- A node that members could not dial keeps places at `RELAYS` members that relay, the nearest first,
  and announces an address through each. It asks again long before a place runs out, and elsewhere
  where one is refused or its link is lost.
- A link to a relay serves for those that it carries, and counts as used.
- A node relays for members, and for nobody else: those whose hello it has taken.
"""

from __future__ import annotations

from meshslm import limits
from meshslm.core.config import CoreConfig
from meshslm.core.dialling import peer_of
from meshslm.core.directory import Directory
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.reach_events import NotReserved, OfferRelay, Reserve, Reserved
from meshslm.core.views import RelayView
from meshslm.core.ways import CIRCUIT, relay_of, relayed, through_relay
from meshslm.core.witnesses import PRIVATE, PUBLIC
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.reach import Seen


class Relays:
    """Both sides of relaying."""

    def __init__(self, config: CoreConfig, directory: Directory, out: Outbox) -> None:
        self._config = config
        self._directory = directory
        self._out = out
        self._reserved: dict[NodeId, Instant] = {}
        self._asked: tuple[NodeId, Instant] | None = None
        self._unwilling: dict[NodeId, tuple[Instant, str]] = {}
        self.offering = False

    # --- for others -----------------------------------------------------------------------------
    def offer(self, verdict: str) -> None:
        """Relay for others, as the settings have it, or stop doing so."""
        setting, private_mesh = self._config.relay, self._config.credentials is not None
        on = setting == "on" or (setting == "auto" and private_mesh and verdict == PUBLIC)
        if on != self.offering:
            self.offering = on
            self._out.put(OfferRelay(on))
            for peer in self._directory.alive():
                # Where it dialled us it knows where we see it; an empty address takes nothing back.
                at = peer.came_from if peer.incoming and not relayed(peer) else ""
                self._out.send(peer.node, Lane.CONTROL, Seen(at, on))

    def may_use(self, node: NodeId) -> bool:
        """Whether a peer may reserve and connect here."""
        return self.offering and self._directory.get_alive(node) is not None

    # --- for this node --------------------------------------------------------------------------
    def keep(self, verdict: str, offered: list[NodeId], now: Instant) -> bool:
        """See that there are enough, of those that offer it; whether the addresses have changed."""
        if verdict != PRIVATE:
            had = bool(self._reserved) and verdict == PUBLIC
            if had:
                self._reserved.clear()
            return had
        if self._asked is not None and ms_between(self._asked[1], now) < limits.RELAY_AGAIN_MS:
            return False
        due = [r for r, at in self._reserved.items() if ms_between(at, now) >= limits.RENEW_MS]
        relay: NodeId | None = None
        if due:
            relay = due[0]
        elif len(self._reserved) < limits.RELAYS:
            relay = self._next(offered, now)
        if relay is not None:
            self._asked = (relay, now)
            self._out.put(Reserve(relay))
        return False

    def _next(self, offered: list[NodeId], now: Instant) -> NodeId | None:
        """The nearest that was not asked in vain of late."""
        for node, (at, _) in list(self._unwilling.items()):
            if ms_between(at, now) >= limits.RELAY_AGAIN_MS:
                del self._unwilling[node]
        fit = [
            peer
            for node in offered
            if node not in self._reserved and node not in self._unwilling
            for peer in (self._directory.get_alive(node),)
            if peer is not None and not relayed(peer)
        ]
        nearest = min(fit, key=lambda p: 1e9 if p.rtt_ms is None else p.rtt_ms, default=None)
        return nearest.node if nearest is not None else None

    def use(self, now: Instant) -> None:
        """Links to relays serve for others: a large mesh is not to close them as idle."""
        carrying = [relay_of(peer) for peer in self._directory.alive() if relayed(peer)]
        for relay in (*self._reserved, *carrying):
            peer = self._directory.get_alive(relay) if relay is not None else None
            if peer is not None:
                peer.used = now

    def reserved(self, event: Reserved, now: Instant) -> bool:
        """A place was given; whether this node's addresses have changed."""
        asked, self._asked = self._asked, None
        if asked is None or asked[0] != event.relay:
            return False
        new = event.relay not in self._reserved
        self._reserved[event.relay] = now
        if new:
            self._out.tell("reach.relayed", f"for {event.seconds} s", peer=event.relay)
        return new

    def refused(self, event: NotReserved, now: Instant) -> bool:
        """No place was given; whether this node's addresses have changed."""
        self._asked = None
        if len(self._unwilling) >= limits.CONNECTIONS:
            del self._unwilling[next(iter(self._unwilling))]
        self._unwilling[event.relay] = (now, event.reason)
        return self._reserved.pop(event.relay, None) is not None

    def parted(self, node: NodeId) -> bool:
        """A peer's link is gone, and a place with it; whether the addresses have changed."""
        if self._asked is not None and self._asked[0] == node:
            self._asked = None
        return self._reserved.pop(node, None) is not None

    def addresses(self) -> tuple[str, ...]:
        """Where this node is reached through its relays."""
        found = []
        for relay in self._reserved:
            peer = self._directory.peers[relay]
            places = [a for a in (peer.address, *peer.addresses) if peer_of(a) == relay]
            place = next((a for a in places if not through_relay(a)), f"/p2p/{relay}")
            found.append(f"{place}{CIRCUIT}/p2p/{self._config.node}")
        return tuple(found)

    def views(self, now: Instant) -> tuple[RelayView, ...]:
        """What can be seen of them."""
        used = [
            RelayView(node, used=True, age_ms=ms_between(at, now))
            for node, at in self._reserved.items()
        ]
        refused = [
            RelayView(node, used=False, age_ms=ms_between(at, now), reason=reason)
            for node, (at, reason) in self._unwilling.items()
        ]
        return (*used, *refused)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._reserved) <= limits.RELAYS
        for relay in self._reserved:
            assert self._directory.get_alive(relay) is not None, f"{relay} relays without a link"
