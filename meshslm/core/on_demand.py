"""Links made when they are needed: what is sent to who is not linked waits for a dial.

Rules:
- One dial per node at a time, and what waits for it is bounded.
- A dial that fails is told to whoever sent, so that a task goes elsewhere at once.
- Messages that only make sense on a link that is there are dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import mesh_limits
from meshslm.core.directory import Directory, PeerState
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId
from meshslm.wire.messages import Message

MOST = 512
"""Nodes to which links are being made for somebody's message."""


class OnDemand:
    """Messages that wait for links."""

    def __init__(
        self,
        directory: Directory,
        out: Outbox,
        dial: Callable[[NodeId], bool],
        failed: Callable[[NodeId, str, Instant], None],
    ) -> None:
        self._directory = directory
        self._out = out
        self._dial = dial
        self._failed = failed
        self._waiting: dict[NodeId, list[tuple[Lane, Message]]] = {}

    def divert(self, node: NodeId, lane: Lane, message: Message) -> bool:
        """Whether a message cannot go out now: then it waits, or is dropped."""
        peer = self._directory.peers.get(node)
        if peer is not None and peer.connected:
            if peer.state is PeerState.ALIVE or lane is Lane.CONTROL:
                return False
        elif lane is not Lane.INTERACTIVE:
            return True
        waiting = self._waiting.get(node)
        if waiting is None:
            connected = peer is not None and peer.connected
            if len(self._waiting) >= MOST or not (connected or self._dial(node)):
                return True
            waiting = self._waiting[node] = []
        if len(waiting) < mesh_limits.QUEUED_FOR_LINK and (lane, message) not in waiting:
            waiting.append((lane, message))
        return True

    def __contains__(self, node: NodeId) -> bool:
        return node in self._waiting

    def linked(self, node: NodeId) -> None:
        """The node is there: send what waited."""
        for lane, message in self._waiting.pop(node, ()):
            self._out.send(node, lane, message)

    def unreachable(self, node: NodeId, now: Instant) -> None:
        """The node could not be dialled."""
        if self._waiting.pop(node, None) is not None:
            self._failed(node, "it could not be reached", now)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._waiting) <= MOST
