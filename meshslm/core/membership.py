"""Who is in the mesh: hello, presence, leave.

Every pair of members keeps one link. A link begins with a hello from both sides; then each says
once a second that it is there and how busy. Who falls silent is found by detection.

Events: links come and go, membership messages arrive, the tick.
Effects: `Send`, `Disconnect`, `Tell`, timers, and what dialling decides.

Rules:
- Before a peer's hello nothing else of it is heard.
- A peer is alive from its hello until its link breaks, it says goodbye, or detection gives it up.
- Messages can be lost: a hello is repeated until answered, a missing capability is asked for
  again, and peer lists are exchanged for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.absence import Absence
from meshslm.core.admission import Admission
from meshslm.core.certificates import NotAdmitted
from meshslm.core.config import CoreConfig
from meshslm.core.detection import Detection
from meshslm.core.dialling import Dialling, peer_of
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.events import Disconnect, Lane
from meshslm.core.growth import Growth
from meshslm.core.outbox import Outbox
from meshslm.core.reach import Reach
from meshslm.core.rhythm import Rhythm
from meshslm.core.ways import through_relay
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.codec import encode
from meshslm.wire.messages import (
    Capability,
    CapabilityWanted,
    EngineLoad,
    Goodbye,
    Hardware,
    Hello,
    Presence,
    Specialist,
)
from meshslm.wire.versions import OURS, UNSIGNED, negotiate

HELLO = "hello"


class Membership:
    """This node's view of the mesh."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        dialling: Dialling,
        admission: Admission,
        detection: Detection,
        out: Outbox,
        chance: Chance,
        absence: Absence,
        reach: Reach,
        *,
        loads: Callable[[], tuple[EngineLoad, ...]],
        growth: Growth,
    ) -> None:
        self._config = config
        self._directory = directory
        self._dialling = dialling
        self._admission = admission
        self._detection = detection
        self._out = out
        self._chance = chance
        self.absence = absence
        self._reach = reach
        reach.announce = self._announce_relays
        self._loads = loads
        self._growth = growth
        self._versions = OURS if config.verify_node is not None else UNSIGNED
        self._seq = 0
        self._rhythm = Rhythm(out)
        self._interval_ms = limits.PRESENCE_MS
        """Time between two presences to the same peer in a mesh of this size."""
        self._turn = 0
        self.boot = 0
        self.addresses: tuple[str, ...] = ()
        self.capability = Capability(boot=0, revision=0, roles=config.roles)
        self._encoded = encode(self.capability)
        self.leaving = False

    # --- this node ------------------------------------------------------------------------------
    def start(self, boot: int, addresses: tuple[str, ...], now: Instant) -> None:
        """Begin to look for others."""
        self.boot = boot
        self._detection.start(boot, now)
        self.addresses = addresses[: limits.ADDRESSES_PER_PEER]
        self._reach.start(self.addresses)
        self.capability = Capability(boot, 0, roles=self._config.roles)
        self._encoded = encode(self.capability)
        for address in self._config.bootstrap:
            self._dialling.want(address, now, configured=True)
        self._rhythm.plan(self._chance.between(0, limits.PRESENCE_MS), now)
        self._growth.publish(self.capability, now)

    def host(self, specialists: tuple[Specialist, ...], hardware: Hardware) -> None:
        """Announce what this node hosts from now on."""
        revision = self.capability.revision + 1
        self.capability = Capability(
            self.boot, revision, specialists[: limits.SPECIALISTS], hardware, self._config.roles
        )
        self._encoded = encode(self.capability)
        self._directory.cards_version += 1
        for peer in self._directory.alive():
            self._out.send_encoded(peer.node, Lane.CONTROL, self._encoded)

    def host_nothing(self) -> None:
        """Announce nothing from now on, so that nobody sends anything here."""
        self.host((), self.capability.hardware)

    def moved(self, addresses: tuple[str, ...], now: Instant) -> None:
        """This node listens elsewhere: say hello again to everybody that is still reached."""
        self.addresses = addresses[: limits.ADDRESSES_PER_PEER]
        self._reach.moved(self.addresses)
        self.greet_all(now)

    def _announce_relays(self, circuits: tuple[str, ...], now: Instant) -> None:
        """Others reach this node through relays, or no longer do."""
        direct = [address for address in self.addresses if not through_relay(address)]
        room = limits.ADDRESSES_PER_PEER - len(circuits)
        self.addresses = (*direct[:room], *circuits)
        self.greet_all(now)

    def leave(self) -> None:
        """Say goodbye to everybody."""
        self.leaving = True
        self._dialling.stop()
        self._detection.stop()
        self._reach.stop()
        self._rhythm.stop()
        for peer in self._directory.peers.values():
            if peer.connected:
                self._out.send(peer.node, Lane.CONTROL, Goodbye("leaving", leaving=True))
                self._out.put(Disconnect(peer.node, "leaving"))

    def tick(self, now: Instant) -> None:
        """Once a presence interval: tell the others that we are here, listen for them."""
        self._rhythm.plan(limits.PRESENCE_MS, now)
        self._growth.publish(self.capability, now)
        if self._growth.tick(now):
            return
        alive = self._directory.alive()
        rounds = -(-len(alive) // limits.PRESENCE_PER_SECOND)
        self._interval_ms = max(1, rounds) * limits.PRESENCE_MS
        # A mesh that has just grown slows its presences down: an old promise does not hold.
        self._detection.expect(self._interval_ms)
        for peer in alive:
            if peer.capability is None:
                self._out.send(peer.node, Lane.CONTROL, CapabilityWanted())
        if alive:
            self._tell_presence(alive)
        self._growth.exchange.tick(alive)

    # --- links ----------------------------------------------------------------------------------
    def connected(self, node: NodeId, address: str, came_from: str, now: Instant) -> None:
        """A link is up: say hello."""
        self._dialling.linked(node, address, now)
        peer = self._directory.peers.get(node)
        if peer is None:
            if len(self._directory.peers) >= limits.PEERS and not self._make_room():
                self._out.put(Disconnect(node, "the peer table is full"))
                return
            peer = self._directory.peers[node] = Peer(node)
        peer.connected = True
        peer.incoming, peer.came_from = not address, came_from
        peer.state = PeerState.CONNECTING
        peer.address = address or peer.address
        peer.heard = now
        peer.greeting_since = now
        self._say_hello(peer, now)

    def disconnected(self, node: NodeId, reason: str, now: Instant, *, fault: bool = False) -> None:
        """A link is gone. Unless that was meant, or the peer's fault, it may soon be back."""
        peer = self._directory.peers.get(node)
        if peer is None or not peer.connected:
            return
        peer.connected = False
        lost = not (fault or self.leaving)
        self._end_session(peer, PeerState.UNREACHABLE, reason, now, lost=lost)
        gone = self.leaving or peer.state is PeerState.LEFT or self._admission.is_revoked(node)
        missed = not gone and node in self.absence
        self._dialling.lost(node, peer.addresses, now, again=not gone, missed=missed)
        self._directory.forget_stranger(peer)

    def hello_timer(self, node: NodeId, now: Instant) -> None:
        """A hello was not answered yet."""
        peer = self._directory.peers.get(node)
        if peer is None or not peer.connected or peer.state is PeerState.ALIVE:
            return
        if ms_between(peer.greeting_since, now) >= limits.HELLO_MS:
            self.drop(peer, "no hello", now)
        else:
            self._say_hello(peer, now)

    # --- messages -------------------------------------------------------------------------------
    def on_hello(self, node: NodeId, hello: Hello, now: Instant) -> None:
        """The peer introduces itself."""
        peer = self._directory.peers.get(node)
        if peer is None or not peer.connected:
            return
        theirs = (hello.version_low, hello.version_high)
        version = negotiate(self._versions, theirs)
        if version is None:
            self._refuse(peer, f"protocol {theirs} here {self._versions}", now)
            return
        try:
            self._admission.greeted(node, hello.credential, now)
        except NotAdmitted as refusal:
            self._refuse(peer, str(refusal), now, refusal.code)
            return
        if hello.mesh != self._config.mesh and not self._admission.private:
            self._refuse(peer, "another mesh", now)
            return
        known = peer.state is PeerState.ALIVE
        if known and hello.boot == peer.boot:
            self._learn_addresses(peer, hello, now)
            peer.heard = now
            if ms_between(peer.hello_sent, now) >= limits.HELLO_RESEND_MS / 2:
                self._say_hello(peer, now)
            return
        if hello.boot != peer.boot:
            if known or node in self.absence:
                self._end_session(peer, PeerState.CONNECTING, "it restarted", now)
            peer.boot, peer.seq, peer.capability, peer.loads = hello.boot, -1, None, ()
            peer.rtt_ms = None
        peer.state = PeerState.ALIVE
        peer.version = version
        peer.heard = now
        peer.next_ms = limits.PRESENCE_MS
        peer.name, peer.agent = hello.name, hello.agent
        self._learn_addresses(peer, hello, now)
        self._dialling.linked(node, peer.address, now)
        self._dialling.accepted(node)
        self._out.stop_timer(HELLO, node)
        self._directory.cards_version += 1
        self._growth.exchange.came()
        self._out.tell("peer.alive", hello.name, peer=node)
        if self._admission.private and peer.incoming:
            self._say_hello(peer, now)
        self._introduce(peer, now)
        self._reach.joined(peer, now)
        self._admission.met(node)
        self.absence.back(node, now)

    def on_goodbye(self, node: NodeId, goodbye: Goodbye, now: Instant) -> None:
        """The peer leaves, or will not have us."""
        peer = self._directory.peers[node]
        state = PeerState.LEFT if goodbye.leaving else PeerState.UNREACHABLE
        self._out.tell("peer.goodbye", goodbye.reason, peer=node)
        self._end_session(peer, state, goodbye.reason or "goodbye", now)
        self._out.put(Disconnect(node, "goodbye"))

    def on_presence(self, peer: Peer, presence: Presence, now: Instant) -> None:
        """The peer is there, and this busy."""
        if not self._growth.large:
            self._rhythm.fall_in(peer.rtt_ms, now)
        if presence.boot != peer.boot or presence.seq <= peer.seq:
            return
        peer.seq = presence.seq
        peer.loads, peer.told = presence.loads, peer.heard
        peer.next_ms = max(limits.PRESENCE_MS, presence.next_ms)
        if peer.capability is None or peer.capability.revision < presence.capability:
            self._out.send(peer.node, Lane.CONTROL, CapabilityWanted())

    def on_capability(self, peer: Peer, capability: Capability) -> None:
        """The peer tells what it can do."""
        if capability.boot != peer.boot:
            return
        if peer.capability is None or capability.revision > peer.capability.revision:
            peer.capability = self._admission.certified_part(peer.node, capability)
            self._directory.cards_version += 1

    def on_capability_wanted(self, peer: Peer) -> None:
        """The peer has missed what we can do."""
        self._out.send_encoded(peer.node, Lane.CONTROL, self._encoded)

    # --- steps ----------------------------------------------------------------------------------
    def _tell_presence(self, alive: list[Peer]) -> None:
        """Tell as many as may be told in one go, beginning with whose turn it is."""
        presence = self._presence()
        share = min(len(alive), limits.PRESENCE_PER_SECOND)
        for place in range(self._turn, self._turn + share):
            self._out.send_encoded(alive[place % len(alive)].node, Lane.CONTROL, presence)
        self._turn = (self._turn + share) % len(alive)

    def greet_all(self, now: Instant) -> None:
        """Say hello again to everybody: our certificate, or where we are, is another."""
        self._growth.publish(self.capability, now)
        for peer in self._directory.alive():
            self._say_hello(peer, now)

    def _say_hello(self, peer: Peer, now: Instant) -> None:
        alive = peer.state is PeerState.ALIVE
        if not alive:
            self._out.start_timer(HELLO, peer.node, limits.HELLO_RESEND_MS)
        if self._admission.private and peer.incoming and not alive:
            return  # who dialled us introduces itself first: strangers hear nothing
        peer.hello_sent = now
        config = self._config
        self._out.send(
            peer.node,
            Lane.CONTROL,
            Hello(
                *self._versions,
                config.mesh,
                self.boot,
                config.name,
                config.agent,
                self.addresses,
                self._admission.credential,
            ),
        )

    def _learn_addresses(self, peer: Peer, hello: Hello, now: Instant) -> None:
        peer.addresses = tuple(a for a in hello.addresses if peer_of(a) == peer.node)
        self._dialling.moved(peer.node, peer.addresses, now)

    def _introduce(self, peer: Peer, now: Instant) -> None:
        if not self._growth.introduced(peer, now):
            self.welcome(peer, now)

    def welcome(self, peer: Peer, now: Instant) -> None:
        """Tell a peer what everybody tells everybody in a small mesh."""
        self._out.send_encoded(peer.node, Lane.CONTROL, self._encoded)
        self._out.send_encoded(peer.node, Lane.CONTROL, self._presence())
        self._growth.exchange.welcome(peer)
        self._detection.join(peer, now)

    def _presence(self) -> bytes:
        return encode(self.presence())

    def presence(self) -> Presence:
        """How busy this node is now."""
        self._seq += 1
        revision = self.capability.revision
        return Presence(self.boot, self._seq, self._loads(), self._interval_ms, revision)

    def _refuse(self, peer: Peer, reason: str, now: Instant, code: str = "") -> None:
        self._out.send(peer.node, Lane.CONTROL, Goodbye(reason[:200], code=str(code)))
        self.drop(peer, reason, now)

    def drop(self, peer: Peer, reason: str, now: Instant) -> None:
        """Give up a peer's link; the disconnect follows as an event."""
        self._end_session(peer, PeerState.UNREACHABLE, reason, now)
        self._out.put(Disconnect(peer.node, reason))

    def close(self, peer: Peer, reason: str, now: Instant) -> None:
        """End a link that serves for nothing, and say that this is all."""
        self._out.send(peer.node, Lane.CONTROL, Goodbye(reason))
        self.drop(peer, reason, now)

    def _end_session(
        self, peer: Peer, state: PeerState, reason: str, now: Instant, *, lost: bool = False
    ) -> None:
        """The peer is no longer alive: whoever counted on it hears of it, once.

        Where only its link was `lost`, that is not before it was waited for.
        """
        self._out.stop_timer(HELLO, peer.node)
        if peer.state is PeerState.LEFT:
            return
        was_alive = peer.state is PeerState.ALIVE
        peer.state = state
        if state is not PeerState.CONNECTING:  # else its new life has just shown who it is
            self._admission.forget(peer.node)
        self._detection.part(peer.node)
        self._growth.ended(peer.node, now, broken=lost, left=state is PeerState.LEFT)
        self._reach.parted(peer.node, now)
        peer.loads = ()
        peer.ping_sent = None
        if was_alive:
            self._directory.cards_version += 1
        if was_alive and lost:
            self.absence.begin(peer, reason)
        elif not lost and (was_alive or peer.node in self.absence):
            self.absence.over(peer.node, reason, now)

    def _make_room(self) -> bool:
        """Forget the peer that has been gone for longest; false where all are connected."""
        gone = [peer for peer in self._directory.peers.values() if not peer.connected]
        if not gone:
            return False
        del self._directory.peers[min(gone, key=lambda peer: peer.heard).node]
        return True

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._directory.peers) <= limits.PEERS
        self.absence.check()
        for peer in self._directory.peers.values():
            if peer.state is PeerState.ALIVE:
                assert peer.connected, f"{peer.node} is alive without a link"
            elif peer.connected and peer.state is PeerState.CONNECTING:
                assert self._out.timer_runs(HELLO, peer.node), f"{peer.node} may greet for ever"
