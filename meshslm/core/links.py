"""What comes over the links to peers: that they are up or down, and every message.

Events: `PeerConnected`, `PeerDisconnected`, `DialFailed`, `AddressFound`, `BytesReceived`.
Effects: those of the machine that each concerns, and `Disconnect` of who is not to be here.

Rules:
- Whatever a peer sends, nothing is raised: its fault ends its link, and counts against it.
- Of a peer whose link is about to end nothing more is heard, and before its hello nothing but what
  a stranger may say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshslm.core.admission import Admission
from meshslm.core.conduct import TASK_MESSAGES, Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.consensus.coordination import Coordination
from meshslm.core.dialling import Dialling
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.events import (
    AddressFound,
    BytesReceived,
    DialFailed,
    Disconnect,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.core.membership import Membership
from meshslm.core.outbox import Outbox
from meshslm.errors import PeerFault
from meshslm.ids import Instant
from meshslm.wire.admission import JoinRequest
from meshslm.wire.codec import UnknownKind
from meshslm.wire.messages import Goodbye, Hello

DROPPED = (PeerState.UNREACHABLE, PeerState.LEFT)
"""States of a peer whose link is about to end."""

Hear = Callable[[Peer, Any, Instant], None]
"""Takes a message of a member, of the class under which it stands."""


class Links:
    """Every link of one node, and the way of each message to whom it concerns."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        dialling: Dialling,
        admission: Admission,
        conduct: Conduct,
        membership: Membership,
        consensus: Coordination,
        out: Outbox,
        met: Callable[[Peer], None],
        member_messages: Mapping[type, Hear],
    ) -> None:
        """`met` hears of every hello of a peer that is welcome."""
        self._node = config.node
        self._decode = config.decode
        self._directory = directory
        self._dialling = dialling
        self._admission = admission
        self._conduct = conduct
        self._membership = membership
        self._consensus = consensus
        self._out = out
        self._met = met
        self._member_messages = member_messages

    def event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """By class of event."""
        return {
            BytesReceived: self._on_bytes,
            PeerConnected: self._on_connected,
            PeerDisconnected: self._on_disconnected,
            DialFailed: self._on_dial_failed,
            AddressFound: lambda e, now: self._dialling.want(e.address, now),
        }

    def _on_connected(self, event: PeerConnected, now: Instant) -> None:
        refusal = self._conduct.refusal(event.peer, now)
        if refusal:
            self._dialling.failed(event.address, now, reason=refusal)
            self._out.put(Disconnect(event.peer, refusal))
        else:
            self._membership.connected(event.peer, event.address, event.came_from, now)

    def _on_disconnected(self, event: PeerDisconnected, now: Instant) -> None:
        if event.fault:
            self._conduct.strike(event.peer, event.reason, now)
        self._membership.disconnected(event.peer, event.reason, now, fault=event.fault)

    def _on_dial_failed(self, event: DialFailed, now: Instant) -> None:
        linked = event.peer == self._node or (
            event.peer in self._directory.peers and self._directory.peers[event.peer].connected
        )
        self._dialling.failed(event.address, now, event.peer if linked else None, event.reason)
        if event.refused:
            self._membership.absence.refused(event.address, now)

    def _on_bytes(self, event: BytesReceived, now: Instant) -> None:
        peer = self._directory.peers.get(event.peer)
        if peer is None or not peer.connected or peer.state in DROPPED:
            return
        try:
            self._hear(peer, event.message, now)
        except PeerFault as fault:
            self._out.tell("peer.fault", str(fault), peer=event.peer)
            self._conduct.strike(event.peer, str(fault), now)
            self._membership.drop(peer, f"fault: {fault}", now)

    def _hear(self, peer: Peer, encoded: bytes, now: Instant) -> None:
        message = None
        self._admission.hear(peer, len(encoded))
        try:
            message = self._decode(encoded)
        except UnknownKind as unknown:
            self._out.tell("peer.unknown-message", str(unknown), peer=peer.node)
        alive = peer.state is PeerState.ALIVE
        if not (alive and self._is_free(peer, message)):
            self._conduct.spend(peer.node, now)
        if type(message) is Hello:
            self._membership.on_hello(peer.node, message, now)
            if peer.state is PeerState.ALIVE:
                self._met(peer)
        elif message is not None and (alive or type(message) in (Goodbye, JoinRequest)):
            peer.heard = now
            if type(message) in TASK_MESSAGES:
                peer.used = now
            self._member_messages[type(message)](peer, message, now)

    def _is_free(self, peer: Peer, message: object) -> bool:
        """Whether a member may send as much of it as the link brings."""
        return type(message) in TASK_MESSAGES or self._consensus.heard_freely(peer.node, message)
