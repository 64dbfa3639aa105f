"""A `Link` within one process, for tests of whatever stands on links.

A `MemoryNetwork` joins any number of links; they find each other by address. Messages go through
bounded queues, lane by lane, and behave as they do on the real network: in order within a lane,
lower lanes first with a share for the background, lost where a link breaks.

Rules:
- The same contract suite runs over this link and the real one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from meshslm import limits
from meshslm.core.events import (
    BytesReceived,
    DialFailed,
    Lane,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.ids import NodeId
from meshslm.ports import Post
from meshslm.wire.framing import BACKGROUND_SHARE

REFUSED = "connection refused"

CLOSE_S = 2.0
"""Time for the control lane when a link is closed, as the port says."""


class MemoryNetwork:
    """Who listens, by address."""

    def __init__(self) -> None:
        self._nodes: dict[str, MemoryLink] = {}

    def address_of(self, node: NodeId) -> str:
        """Where `node` listens."""
        return f"/memory/{node}/p2p/{node}"

    def join(self, link: MemoryLink) -> None:
        """From now on `link` can be dialled."""
        self._nodes[self.address_of(link.node_id)] = link

    def leave(self, link: MemoryLink) -> None:
        """From now on nobody answers there."""
        self._nodes.pop(self.address_of(link.node_id), None)

    def find(self, address: str) -> MemoryLink | str:
        """The link that listens at `address`, or why there is none."""
        place, _, wanted = address.partition("/p2p/")
        for known, link in self._nodes.items():
            if known.partition("/p2p/")[0] == place:
                return (
                    link if wanted in ("", link.node_id) else f"another node answers, not {wanted}"
                )
        return REFUSED


class _Pipe:
    """One direction of a link: messages that wait for their receiver."""

    def __init__(self) -> None:
        self.reason = ""
        """Why it ended, for the receiver; empty while it has not."""
        self.emptied = trio.Event()
        self._lanes: tuple[deque[bytes], ...] = tuple(deque() for _ in Lane)
        self._sizes = [0 for _ in Lane]
        self._open_lanes = tuple(Lane)
        self._credit = 0
        """Bytes that went ahead of the background lane, as in the frames of a real link."""
        self._news = trio.Event()

    def put(self, lane: Lane, message: bytes) -> bool:
        """Queue a message; False where the lane is full."""
        if not 1 <= len(message) <= limits.MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes cannot be sent")
        if self._sizes[lane] + len(message) > limits.LANE_QUEUE_BYTES:
            return False
        self._sizes[lane] += len(message)
        self._lanes[lane].append(message)
        self._news.set()
        return True

    def end(self, reason: str, *, deliver: tuple[Lane, ...] = ()) -> None:
        """Deliver what waits in the lanes `deliver`, and then nothing."""
        self.reason = self.reason or reason
        self._open_lanes = deliver
        self._news.set()

    async def take(self) -> bytes | None:
        """The next message, lower lanes first; None at the end."""
        while True:
            lane = self._next_lane()
            if lane is not None:
                message = self._lanes[lane].popleft()
                self._sizes[lane] -= len(message)
                return message
            if self.reason:
                self.emptied.set()
                return None
            self._news = trio.Event()
            await self._news.wait()

    def _next_lane(self) -> Lane | None:
        """Lower lanes first, but for the share of the last one; None where nothing waits."""
        waiting = [lane for lane in self._open_lanes if self._lanes[lane]]
        if not waiting:
            return None
        if waiting == [Lane.BACKGROUND] or Lane.BACKGROUND not in waiting:
            self._credit = 0
            return waiting[0]
        due = len(self._lanes[Lane.BACKGROUND][0]) * (BACKGROUND_SHARE - 1)
        if self._credit >= due:
            self._credit -= due
            return Lane.BACKGROUND
        self._credit += len(self._lanes[waiting[0]][0])
        return waiting[0]


class _End:
    """One side's view of a link."""

    def __init__(self, peer: NodeId, address: str, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.peer = peer
        self.address = address
        self.incoming = incoming
        self.outgoing = outgoing
        self.closing = False
        self.ended = trio.Event()

    def send(self, lane: Lane, message: bytes) -> None:
        if not self.closing and not self.outgoing.put(lane, message):
            self.incoming.end("it reads too slowly")
            self.outgoing.end("closed by the peer")

    def close(self, reason: str) -> None:
        self.closing = True
        self.incoming.end(reason)
        self.outgoing.end("closed by the peer", deliver=(Lane.CONTROL,))

    async def serve(self, post: Post) -> None:
        while (message := await self.incoming.take()) is not None:
            await post(BytesReceived(self.peer, message))
        if self.closing:
            with trio.move_on_after(CLOSE_S):
                await self.outgoing.emptied.wait()
        self.outgoing.end("closed by the peer")


class MemoryLink:
    """A node's place in a `MemoryNetwork`. Implements `ports.Link`."""

    def __init__(self, network: MemoryNetwork, node_id: NodeId) -> None:
        self._network = network
        self._node_id = node_id
        self._ends: dict[NodeId, _End] = {}
        self._latest: dict[NodeId, _End] = {}
        self._nursery: trio.Nursery | None = None
        self._post: Post | None = None

    @property
    def node_id(self) -> NodeId:
        """The name it was given."""
        return self._node_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others of the same network can dial it."""
        return (self._network.address_of(self._node_id),)

    def send(self, peer: NodeId, lane: Lane, message: bytes) -> None:
        """Queue a message for a connected peer."""
        if peer in self._ends:
            self._ends[peer].send(lane, message)

    def dial(self, address: str) -> None:
        """Begin to connect. Without effect before `run` has started."""
        if self._nursery is not None:
            self._nursery.start_soon(self._dial, address)

    def disconnect(self, peer: NodeId, reason: str) -> None:
        """Close the link to a peer."""
        if peer in self._ends:
            self._ends[peer].close(reason)

    async def run(self, post: Post, *, started: Callable[[], None]) -> None:
        """Serve until cancelled."""
        self._post = post
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._network.join(self)
                started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._network.leave(self)

    async def _dial(self, address: str) -> None:
        assert self._post is not None
        await trio.lowlevel.checkpoint()  # a real dial takes time, in which the peer may dial too
        found = self._network.find(address)
        if isinstance(found, str):
            await self._post(DialFailed(address, found, refused=found == REFUSED))
        elif found is self:
            await self._post(DialFailed(address, "that is this node itself"))
        elif found.node_id in self._ends:
            await self._post(DialFailed(address, "already connected", found.node_id))
        else:
            there, back = _Pipe(), _Pipe()
            self.attach(_End(found.node_id, address, back, there))
            found.attach(_End(self.node_id, "", there, back))

    def attach(self, end: _End) -> None:
        """Serve this side of a new link."""
        assert self._nursery is not None
        earlier = self._latest.get(end.peer)
        if earlier is not None:
            earlier.close("it connected again")
        self._ends[end.peer] = self._latest[end.peer] = end
        self._nursery.start_soon(self._serve, end, earlier)

    async def _serve(self, end: _End, earlier: _End | None) -> None:
        assert self._post is not None
        try:
            if earlier is not None:
                await earlier.ended.wait()
            came_from = "" if end.address else f"/memory/{end.peer}"
            await self._post(PeerConnected(end.peer, end.address, came_from))
            await end.serve(self._post)
            # Before the event, so that whoever hears it can dial at once.
            if self._ends.get(end.peer) is end:
                del self._ends[end.peer]
            await self._post(PeerDisconnected(end.peer, end.incoming.reason))
        finally:
            end.outgoing.end("closed by the peer")
            end.ended.set()
            if self._latest.get(end.peer) is end:
                del self._latest[end.peer]
