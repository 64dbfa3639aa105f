"""The link to one peer: messages in and out of its kept stream.

Rules:
- Messages wait here while the core is busy, and while the peer sends faster than one may: then the
  stream's window closes, and the peer waits.
- A frame that is begun must go on: a peer that stalls in it is dropped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from meshslm import limits
from meshslm.adapters.libp2p_background import BackgroundLane
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_limits import Intake
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.core.events import BytesReceived, Lane
from meshslm.errors import PeerFault
from meshslm.ports import Handle, Post
from meshslm.wire.framing import BACKGROUND, FrameReader, FrameWriter, LaneOverflow

log = logging.getLogger("meshslm.link")


class PeerLink:
    """A link that both sides agreed on. `serve` serves it; the rest returns at once."""

    def __init__(
        self,
        connection: Connection,
        stream: MuxedStream,
        timings: LinkTimings,
        much_waits: Callable[[BackgroundLane], None],
    ) -> None:
        self.connection = connection
        self.ended = trio.Event()
        """Set when the link is over and everybody was told."""
        self._stream = stream
        self._timings = timings
        self._writer = FrameWriter()
        self._reader = FrameReader()
        self._intake = Intake()
        self._listening = trio.CancelScope()
        self._closing = False
        self.background = BackgroundLane(connection, self._writer, timings, much_waits)
        self._handle: Handle | None = None
        connection.keep(stream, self._writer)

    def queue(self, lane: Lane, message: bytes) -> bool:
        """Queue a message; whether it is now to be written. A lane that overflows ends the link."""
        if self._closing:
            return False
        try:
            if lane == BACKGROUND:
                self.background.send(message)
                return False
            self._writer.push(lane, message)
        except LaneOverflow as overflow:
            self.connection.abort(f"it reads too slowly: {overflow}")
            return False
        return True

    def close(self, reason: str) -> None:
        """End the link once its control lane has gone out. Nothing is received any more."""
        self.connection.drain(reason)
        self._closing = True
        self._stream.hand_to(None)
        self._listening.cancel()

    @property
    def closing(self) -> bool:
        """Whether this side is ending the link."""
        return self._closing

    async def serve(self, post: Post, handle: Handle | None = None) -> None:
        """Post the peer's messages; returns when the link has ended."""
        self.background.serve(post)
        self._handle = handle
        try:
            with self._listening:
                await self._listen(post)
            if self._closing:
                with trio.move_on_after(self._timings.close):
                    await self.connection.ended.wait()
        except PeerFault as fault:
            log.warning("peer=%s dropped: %s", self.connection.peer, fault)
            self.connection.accuse(str(fault))
        except Exception as bug:  # noqa: BLE001 - serving one peer must not end the others
            self._drop(bug)
        self.connection.abort("closed by the peer")
        await self.background.close()
        await self.connection.ended.wait()

    def _drop(self, bug: Exception) -> None:
        log.error("peer=%s dropped: a bug in serving it", self.connection.peer, exc_info=bug)
        self.connection.abort("dropped: a bug; the log has the trace")

    def _take(self, data: bytes) -> bool:
        """Handle what has come where it is urgent, whole, little, and within what one may send."""
        now = trio.current_time()
        assert self._handle is not None
        messages = self._reader.feed_whole(data, limits.EVENTS_PER_TURN)
        if messages is None or not self._intake.admits(len(messages), len(data), now):
            return False
        peer = self.connection.peer
        try:
            self._handle(*(BytesReceived(peer, message) for message in messages))
        except Exception as bug:  # noqa: BLE001 - serving one peer must not end the others
            self._drop(bug)
        return True

    async def _listen(self, post: Post) -> None:
        """Post messages until the stream ends."""
        deadline = trio.current_time() + self._timings.first_frame
        complaint = f"it sent no frame within {self._timings.first_frame:g} s"
        progress = 0
        while True:
            if deadline is math.inf:
                self._stream.hand_to(self._take if self._handle is not None else None)
                data = await self._stream.read(limits.FRAME_BYTES)
                self._stream.hand_to(None)
            else:
                with trio.CancelScope(deadline=deadline) as scope:
                    data = await self._stream.read(limits.FRAME_BYTES)
                if scope.cancelled_caught:
                    self.connection.abort(complaint)
                    return
            if not data:
                return
            messages = self._reader.feed(data)
            for lane, message in messages:
                await post(BytesReceived(self.connection.peer, message))
                if lane == BACKGROUND:
                    self.background.came()
            wait = self._intake.take(len(messages), len(data), trio.current_time())
            if wait:
                await trio.sleep(wait)
            progress += len(data)
            if not self._reader.partial_bytes:
                deadline, progress = math.inf, 0
            elif messages or progress >= limits.FRAME_BYTES or deadline is math.inf:
                deadline, progress = trio.current_time() + self._timings.frame, 0
                complaint = f"it stalled in a frame for {self._timings.frame:g} s"
