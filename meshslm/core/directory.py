"""The table of nodes: who is there, what they can do, how busy they are.

Membership writes it, routing reads it. It is plain data with the few questions that both ask.

Rules:
- Only a peer whose hello was heard on its present link counts as alive.
- What is newest by (boot, number) wins; what is older is ignored.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from enum import StrEnum

from meshslm import limits
from meshslm.core.views import PeerView
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.messages import Capability, DomainCard, EngineLoad
from meshslm.wire.versions import PROTOCOL_LOW

RTT_WEIGHT = 0.3
"""Weight of a new round trip in the running mean: follows a change within about five pings."""


class PeerState(StrEnum):
    """Where a peer stands, as seen from here."""

    CONNECTING = "connecting"
    """Known by address, or connected without a hello yet."""
    ALIVE = "alive"
    UNREACHABLE = "unreachable"
    LEFT = "left"


@dataclass(slots=True)
class Peer:
    """One other node."""

    node: NodeId
    state: PeerState = PeerState.CONNECTING
    connected: bool = False
    incoming: bool = False
    """It dialled us: it is the one that looks for others."""
    name: str = ""
    agent: str = ""
    version: int = PROTOCOL_LOW
    """Of the protocol, that both speak."""
    address: str = ""
    came_from: str = ""
    """Where it dialled us from."""
    addresses: tuple[str, ...] = ()
    boot: int = 0
    seq: int = -1
    next_ms: int = limits.PRESENCE_MS
    heard: Instant = Instant(0)
    hello_sent: Instant = Instant(0)
    greeting_since: Instant = Instant(0)
    rtt_ms: float | None = None
    ping_nonce: int = 0
    ping_sent: Instant | None = None
    loads: tuple[EngineLoad, ...] = ()
    capability: Capability | None = None
    capability_wanted: int = 0
    used: Instant = Instant(0)
    """In a large mesh: when the link last served for a task or a question."""
    told: Instant = Instant(0)
    """When its loads came."""

    def answered(self, nonce: int, now: Instant) -> None:
        """A ping was answered: if it is the one that is timed, that shows how far away it is."""
        if self.ping_sent is not None and nonce == self.ping_nonce:
            sample, old = ms_between(self.ping_sent, now), self.rtt_ms
            self.ping_sent = None
            self.rtt_ms = sample if old is None else old + RTT_WEIGHT * (sample - old)

    def view(self, now: Instant) -> PeerView:
        """What may be seen of it."""
        capability = self.capability or Capability(boot=0, revision=0)
        return PeerView(
            self.node,
            self.name,
            str(self.state),
            self.agent,
            self.address or (self.addresses[0] if self.addresses else ""),
            self.rtt_ms,
            ms_between(self.heard, now) if self.heard else None,
            capability.specialists,
            capability.hardware,
            self.loads,
            self.addresses,
        )


@dataclass(slots=True)
class Directory:
    """Every node known here, except this one."""

    peers: dict[NodeId, Peer] = field(default_factory=dict)
    cards_version: int = 0
    """Changes whenever the domain cards of the mesh may have."""
    reported: dict[NodeId, Peer] = field(default_factory=dict)
    """Members of a large mesh of whom a coordinator has told: they can be asked, linked or not."""
    learned_cards: dict[str, DomainCard] = field(default_factory=dict)
    """Of domains that none of the linked has told of, by domain."""

    def alive(self) -> list[Peer]:
        """Peers that said hello and are heard."""
        return [peer for peer in self.peers.values() if peer.state is PeerState.ALIVE]

    def forget_stranger(self, peer: Peer) -> None:
        """Forget who dialled us, never was let in and is gone: identities are free."""
        if peer.incoming and not peer.boot:
            self.peers.pop(peer.node, None)

    def forget_unlinked(self, kept: Container[NodeId]) -> None:
        """Keep of those without a link only who is waited for."""
        peers = self.peers
        for node in [n for n, peer in peers.items() if not (peer.connected or n in kept)]:
            del peers[node]

    def askable(self) -> list[Peer]:
        """Who can be sent a task: everybody alive here, and those who would be linked for it."""
        alive = self.alive()
        if not self.reported:
            return alive
        # A linked peer tells its load to its coordinators: one of them may know it better.
        known = [
            peer
            for peer in alive
            if peer.capability is not None
            and (peer.node not in self.reported or peer.told >= self.reported[peer.node].told)
        ]
        there = {peer.node for peer in known}
        return [*known, *(p for node, p in self.reported.items() if node not in there)]

    def waits(self, node: NodeId, model: str, wait_ms: float, now: Instant) -> None:
        """A node says how long a run would wait there: that is newer than its load."""
        for peer in (self.peers.get(node), self.reported.get(node)):
            if peer is not None:
                peer.told = now
                peer.loads = tuple(
                    replace(load, free_slots=0, wait_ms=wait_ms) if load.model == model else load
                    for load in peer.loads
                )

    def get_alive(self, node: NodeId) -> Peer | None:
        """The peer, if it is alive."""
        peer = self.peers.get(node)
        return peer if peer is not None and peer.state is PeerState.ALIVE else None

    def cards(self) -> list[DomainCard]:
        """Domain cards of all alive peers."""
        return [
            card
            for peer in self.alive()
            if peer.capability is not None
            for specialist in peer.capability.specialists
            for card in specialist.domains
        ] + list(self.learned_cards.values())
