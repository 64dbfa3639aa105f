"""The background lane of one link: in the kept stream, or over a connection of its own.

In the kept stream, bulk that has left for the kernel, or for a slow wire, stands before the tokens
that come after it, and a lost packet of it holds them up. Over its own connection it does neither.

A stream of the kept connection (the control stream) says what the further connection is for. On it
each side first tells how many messages went by the lane, and the other posts what comes over the
connection when it has those. When the connection ends, for whatever reason, each tells there how
many messages it has, and what is missing goes by the lane again. So nothing is lost, doubled or out
of order, and the kept link is not harmed.

Rules:
- Bulk gives way: nothing of it is written while something urgent waits for the same peer.
- A connection over which nothing comes for a while is ended: idle, hung and slow are the same here.
- Who breaks the protocol is dropped, as on the kept stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from meshslm import limits
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_limits import Intake
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.wires import TcpWire
from meshslm.core.events import BytesReceived, Lane
from meshslm.errors import PeerFault
from meshslm.ports import Post
from meshslm.wire.bulk import COUNT_BYTES, Outgoing, decode_count, encode_count
from meshslm.wire.framing import FrameReader, FrameWriter

log = logging.getLogger("meshslm.link")

TELL_S = 1.0
"""Between two counts to the sender while a long message comes in."""
GIVE_WAY_S = 0.25
"""Longest that a write of bulk waits for urgent ones: it must not starve."""


class BackgroundLane:
    """Background messages of one link, in both directions."""

    def __init__(
        self,
        kept: Connection,
        writer: FrameWriter,
        timings: LinkTimings,
        much_waits: Callable[[BackgroundLane], None],
    ) -> None:
        self.kept = kept
        self.looked_at = False
        """Somebody sees to it that it gets a connection of its own."""
        self._much_waits = much_waits
        self.received = 0
        """Messages that came, either way."""
        self._post: Post | None = None
        self._writer = writer
        self._timings = timings
        self._queued = 0
        """Messages that were given to the kept stream, or went before those that are."""
        self._out: Outgoing | None = None
        self._frames = FrameWriter()
        """What goes over the further connection, while there is one."""
        self._over: Connection | None = None
        self._start: int | None = None
        """Messages that come by the lane before those that come over the connection."""
        self._news = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    # --- calls that return at once ---------------------------------------------------------------
    def send(self, message: bytes) -> None:
        """Queue a message. Raises `LaneOverflow`."""
        if self._out is not None:
            self._out.push(message)
            self._feed(self._out)
        else:
            self._writer.push(Lane.BACKGROUND, message)
            self._queued += 1
            self.kept.wake()
            if self._writer.queued_bytes(Lane.BACKGROUND) > limits.BULK_WORTH_BYTES:
                self._much_waits(self)

    def came(self) -> None:
        """A background message came by the kept stream."""
        self.received += 1
        self._news.set()

    @property
    def talks(self) -> bool:
        """Whether this node has background messages for the peer: it has none for strangers."""
        return self._queued > 0 or self._out is not None

    @property
    def carried(self) -> bool:
        """Whether a further connection is in use, or its end is not settled."""
        return not self._idle.is_set()

    @property
    def waits(self) -> bool:
        """Whether so much waits in the lane that a connection of its own is worth it."""
        return self._writer.queued_bytes(Lane.BACKGROUND) > limits.BULK_WORTH_BYTES

    # --- tasks -----------------------------------------------------------------------------------
    def serve(self, post: Post) -> None:
        """From now on messages may be posted."""
        self._post = post
        self._news.set()

    async def close(self) -> None:
        """Post nothing more."""
        self._post = None
        if self._over is not None:
            self._over.abort("its link is over")
        self._news.set()
        await self._idle.wait()

    async def carry(
        self, control: MuxedStream, over: Connection, stream: MuxedStream, start: int | None = None
    ) -> None:
        """Send and receive over a further connection until it ends, and then by the lane again.

        `start` where the peer's first count on the control stream is known already.
        """
        withdrawn = self._writer.withdraw(Lane.BACKGROUND)
        self._queued -= len(withdrawn)
        out = self._out = Outgoing(self._queued, withdrawn)
        self._over, self._start, self._idle = over, start, trio.Event()
        self._frames = FrameWriter()
        try:
            if isinstance(over.wire, TcpWire):
                over.wire.give_way(self._give_way)
            over.keep(stream, self._frames)
            await control.write(encode_count(out.first))
            self._feed(out)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._settle, control, over, out)
                await self._listen(stream, over, out)
                over.abort("nothing more goes over it")
                await control.write(encode_count(self.received))
                nursery.cancel_scope.deadline = trio.current_time() + self._timings.stream
        finally:
            over.abort("its link is over")
            if self._out is not None:
                self.kept.abort("its bulk connection ended, and what is missing was not told")
            self._over = None
            self._idle.set()  # before what may raise where the peer asked too much
            control.reset()

    async def _settle(self, control: MuxedStream, over: Connection, out: Outgoing) -> None:
        """Hear where the peer begins and how much it has at the end; the rest goes by the lane."""
        try:
            if self._start is None:
                self._start = decode_count(await control.read_exactly(COUNT_BYTES))
                self._news.set()
            last = decode_count(await control.read_exactly(COUNT_BYTES))
        except PeerFault:
            return  # the control stream is over, and so is the link then
        finally:
            over.abort("the peer has ended it")
        try:
            out.told(last)
        except PeerFault as fault:
            self._accuse(fault)
            return
        rest = out.rest()
        self._out, self._queued = None, out.first + len(rest)
        self._writer.restore(Lane.BACKGROUND, rest)
        self.kept.wake()

    async def _listen(self, stream: MuxedStream, over: Connection, out: Outgoing) -> None:
        """Post what comes over the connection, until that ends or nothing comes."""
        reader, intake = FrameReader(), Intake()
        told, told_at = self.received, trio.current_time()
        while True:
            data = b""
            with trio.move_on_after(self._timings.bulk):
                data = await stream.read(limits.FRAME_BYTES)
            if not data:
                return
            try:
                messages = reader.feed(data)
                for lane, message in messages:
                    if not await self._take(lane, message, over, out):
                        return
            except PeerFault as fault:
                self._accuse(fault)
                return
            now = trio.current_time()
            if self.received > told or (reader.partial_bytes and now >= told_at + TELL_S):
                told, told_at = self.received, now
                self._frames.push(Lane.CONTROL, encode_count(told))
                over.wake()
            await trio.sleep(intake.take(len(messages), len(data), now))

    async def _take(self, lane: int, message: bytes, over: Connection, out: Outgoing) -> bool:
        """Take a message in its turn; False where that does not come."""
        if lane == Lane.CONTROL:
            out.told(decode_count(message))
            self._feed(out)
            return True
        if lane != Lane.BACKGROUND:
            raise PeerFault("a message that has no place on a bulk connection")
        with trio.move_on_after(self._timings.bulk):
            while self._post is not None and not (self._in_turn() or over.ended.is_set()):
                self._news = trio.Event()
                await self._news.wait()
        if self._post is None or not self._in_turn():
            return False
        await self._post(BytesReceived(self.kept.peer, message))
        self.received += 1
        return True

    def _in_turn(self) -> bool:
        """Whether all that went before by the lane is here, and messages may be posted."""
        start = self._start
        return self._post is not None and start is not None and self.received >= start

    def _accuse(self, fault: PeerFault) -> None:
        if not self.kept.ended.is_set():
            log.warning("peer=%s dropped: %s", self.kept.peer, fault)
            self.kept.accuse(str(fault))

    def _feed(self, out: Outgoing) -> None:
        for message in out.due():
            self._frames.push(Lane.BACKGROUND, message)
        if self._over is not None:
            self._over.wake()

    async def _give_way(self) -> None:
        """Wait until nothing urgent waits for the peer, and at most so long."""
        queued = self._writer.queued_bytes
        with trio.move_on_after(GIVE_WAY_S):
            while queued(Lane.CONTROL) or queued(Lane.INTERACTIVE):
                await self.kept.flushed()
