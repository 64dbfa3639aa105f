"""One authenticated connection: its wire, its streams, and the two tasks that move bytes.

The reader takes large pieces from the wire, decrypts and demultiplexes them; the writer gathers
whatever waits into one packet per system call. It asks the frame writer only for what can go out
at once, so that an urgent frame never queues behind what was taken too early.

Rules:
- Nothing that a peer does raises out of a connection: it ends, with a reason.
- A write that makes no progress ends the connection; nobody ever waits on a hung peer.
- `abort` needs no await and always works: it closes the wire itself.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from meshslm import limits
from meshslm.adapters import libp2p_yamux as yamux
from meshslm.adapters.libp2p_noise import NoiseChannel
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.wires import Wire
from meshslm.core.ways import through_relay
from meshslm.errors import PeerFault
from meshslm.ids import NodeId
from meshslm.wire import framing

log = logging.getLogger("meshslm.link")

WRITE_BYTES = limits.FRAME_BYTES
"""Gathered into one write: a full frame, and about a millisecond of the link."""


@dataclass(frozen=True, slots=True)
class LinkTimings:
    """How long to wait for what, in seconds. Tests shorten them."""

    dial: float = 5.0
    """From dialling to an agreed stream."""
    handshake: float = 5.0
    """From an accepted socket to an authenticated peer."""
    stream: float = 10.0
    """From there to an agreed stream."""
    first_frame: float = 10.0
    """From there to the first frame."""
    frame: float = 10.0
    """From the first byte of a frame to its last."""
    write: float = 10.0
    """Without progress while something waits to be written."""
    close: float = 2.0
    """For what is still queued when a link is closed."""
    addresses: float = 5.0
    """Between two looks at the addresses of this machine."""
    bulk: float = 10.0
    """Without anything coming over a connection for bulk, which is then ended."""
    proof: float = 1.0
    """For a link to show that it lives when its peer dials again."""


class Connection:
    """A connection to one peer. `run` serves it; the rest returns at once."""

    def __init__(
        self,
        wire: Wire,
        channel: NoiseChannel,
        *,
        address: str,
        came_from: str = "",
        timings: LinkTimings,
        on_stream: Callable[[Connection, MuxedStream], Awaitable[None]],
    ) -> None:
        self.peer: NodeId = channel.peer
        self.address = address
        """Where the peer was dialled; empty where it dialled us."""
        self.came_from = came_from
        """Where it dialled us from."""
        self.reason = ""
        """Why the connection ended; empty while it has not."""
        self.fault = False
        """The peer, and nobody on the way, broke the protocol."""
        self.ended = trio.Event()
        self.wire = wire
        self._channel = channel
        self._timings = timings
        self._on_stream = on_stream
        self._session = yamux.YamuxSession(
            dialled=bool(address), most_streams=limits.STREAMS_PER_CONNECTION
        )
        self._streams: dict[int, MuxedStream] = {}
        self._opened_at: deque[float] = deque(maxlen=limits.STREAM_OPENINGS)
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._frames: framing.FrameWriter | None = None
        self._kept_stream = 0
        self._popped = b""
        """Frames taken from the writer that the window had no room for."""
        self._blocked_until = math.inf
        self._resting = False
        """The writer waits for work."""
        self._left = b""
        """Of a packet that was begun, what there was no room for."""
        self._draining = False
        self._flushed = trio.Event()
        """Set, and made anew by who waits, when the writer has sent what there was."""
        self._pings: dict[int, trio.Event] = {}
        self._next_nonce = 0

    # --- calls that return at once ---------------------------------------------------------------
    def open_stream(self) -> MuxedStream:
        """A new stream, on which no protocol is agreed yet."""
        number = self._session.open()
        stream = self._streams[number] = MuxedStream(self, number)
        self.wake()
        return stream

    def keep(self, stream: MuxedStream, frames: framing.FrameWriter) -> None:
        """From now on send on `stream` what `frames` gives."""
        stream.negotiated()
        self._frames, self._kept_stream = frames, stream.number
        self.wake()

    def wake(self) -> None:
        """There is something to write."""
        self._wake.set()

    def write_now(self) -> None:
        """Write what waits, if that can be done at once; the writer sees to the rest.

        So that a token need not wait for the writer's turn, nor pay for it.
        """
        if not self._resting or self._left or self._draining:
            self.wake()
            return
        data = self._next_bytes()
        if data:
            self._left = self.wire.write_now(self._channel.encrypt(data))
            self._flushed.set()
        if self._left or self._blocked_until < math.inf or self._waiting():
            self.wake()

    def send(self, number: int, data: bytes) -> None:
        """Queue bytes on a stream; without effect where it is over."""
        if self._session.window(number) >= len(data):
            self._session.send(number, data)
            self.wake()

    def window(self, number: int) -> int:
        """Bytes that a stream may send now."""
        return self._session.window(number)

    async def flushed(self) -> None:
        """Wait until what was queued is on its way, or the connection is over."""
        if not self.ended.is_set():
            if self._flushed.is_set():
                self._flushed = trio.Event()
            await self._flushed.wait()

    def consumed(self, number: int, count: int) -> None:
        """Give the peer new window for what was read."""
        if self._session.consume(number, count):
            self.wake()

    def end(self, number: int) -> None:
        """Send no more on a stream."""
        self._session.end(number)
        self.wake()

    def reset(self, number: int) -> None:
        """Forget a stream."""
        self._streams.pop(number, None)
        self._session.reset(number)
        self.wake()

    def drain(self, reason: str) -> None:
        """Hang up once the control lane is empty; the peer still gets all of that."""
        self.reason = self.reason or reason
        self._draining = True
        self.wake()

    def accuse(self, reason: str) -> None:
        """End the connection now: the peer broke the protocol."""
        self.fault = self.fault or not self.reason
        self.abort(f"dropped: {reason}")

    @property
    def kept(self) -> bool:
        """Whether it has a stream for messages."""
        return self._frames is not None

    @property
    def relayed(self) -> bool:
        """Whether it goes through a third node."""
        return through_relay(self.address or self.came_from)

    def abort(self, reason: str) -> None:
        """End the connection now, whatever the peer does."""
        self.reason = self.reason or reason
        self.wire.reset()
        self._scope.cancel()

    # --- tasks -----------------------------------------------------------------------------------
    async def run(self) -> None:
        """Serve until the connection ends; `reason` then says why."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            self.reason = self.reason or "this node stopped"
            self.wire.close()
            self.ended.set()
            for stream in self._streams.values():
                stream.feed_end(broken=True)
            self._flushed.set()
            for answered in self._pings.values():
                answered.set()

    async def alive(self) -> bool:
        """Whether the peer answers on this connection within the time for a proof."""
        nonce = self._next_nonce = (self._next_nonce + 1) % 2**32
        answered = self._pings[nonce] = trio.Event()
        try:
            self._session.ping(nonce)
            self.wake()
            with trio.move_on_after(self._timings.proof):
                await answered.wait()
        except PeerFault:
            return False
        finally:
            del self._pings[nonce]
        return answered.is_set() and not self.ended.is_set()

    async def _read(self, nursery: trio.Nursery) -> None:
        data = b""
        try:
            while True:
                self._take_in(self._channel.decrypt(data), nursery)
                if self._session.unsent:
                    self.wake()
                data = await self.wire.read()
                if not data:
                    self.reason = self.reason or "closed by the peer"
                    return
        except PeerFault as fault:
            log.warning("peer=%s dropped: %s", self.peer, fault)
            self.reason = self.reason or f"dropped: {fault}"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.reason = self.reason or "connection lost"

    def _take_in(self, plaintext: bytes, nursery: trio.Nursery) -> None:
        try:
            for event in self._session.receive(plaintext):
                self._dispatch(event, nursery)
        except PeerFault:
            self.fault = True
            raise

    def _dispatch(self, event: yamux.YamuxEvent, nursery: trio.Nursery) -> None:
        match event:
            case yamux.StreamData(number, data):
                if number in self._streams:
                    self._streams[number].feed(data)
            case yamux.StreamOpened(number):
                self._count_opening()
                stream = self._streams[number] = MuxedStream(self, number)
                nursery.start_soon(self._guard_stream, stream)
            case yamux.StreamEnded(number):
                if event.reset:
                    stream_gone = self._streams.pop(number, None)
                else:
                    stream_gone = self._streams.get(number)
                if stream_gone is not None:
                    stream_gone.feed_end(broken=event.reset)
            case yamux.PongReceived(nonce):
                if nonce in self._pings:
                    self._pings[nonce].set()
            case yamux.WindowOpened(number):
                self.wake()
                if number in self._streams:
                    self._streams[number].may_write()
            case yamux.GoneAway():
                pass  # the end of the wire follows

    def _count_opening(self) -> None:
        now = trio.current_time()
        opened = self._opened_at
        if len(opened) == opened.maxlen and now - opened[0] < limits.STREAM_OPENINGS_S:
            raise PeerFault(
                f"it opened {limits.STREAM_OPENINGS} streams in {now - opened[0]:.1f} s"
            )
        opened.append(now)

    async def _guard_stream(self, stream: MuxedStream) -> None:
        """Whatever a stream brings, it ends at most its connection and never the process."""
        try:
            await self._on_stream(self, stream)
        except Exception as error:  # noqa: BLE001 - the library raises anything on hostile bytes
            log.debug("peer=%s stream refused: %s", self.peer, str(error) or type(error).__name__)
            stream.reset()

    async def _write(self) -> None:
        try:
            while True:
                if self._draining and self._control_sent():
                    await self._hang_up()
                    return
                packet, self._left = self._left, b""
                if not packet:
                    data = self._next_bytes()
                    if not data:
                        await self._wait_for_work()
                        continue
                    packet = self._channel.encrypt(data)
                if not await self.wire.write(packet, self._timings.write):
                    self.abort(f"it took no data for {self._timings.write:g} s")
                self._flushed.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.reason = self.reason or "connection lost"
            self._scope.cancel()
        except PeerFault as fault:
            self.accuse(str(fault))

    def _next_bytes(self) -> bytes:
        """Control frames first, then as many frames as the window and one write take."""
        if self._frames is not None:
            window = self._session.window(self._kept_stream)
            if not window and self._waiting():
                now = trio.current_time()
                self._blocked_until = min(self._blocked_until, now + self._timings.write)
            else:
                self._blocked_until = math.inf
                self._popped = self._popped or self._frames.pop(min(window, WRITE_BYTES))
                if self._popped:
                    self._session.send(self._kept_stream, self._popped[:window])
                    self._popped = self._popped[window:]
        return self._session.take()

    def _waiting(self) -> bool:
        assert self._frames is not None
        queued = self._frames.queued_bytes
        return bool(self._popped) or any(queued(lane) for lane in range(framing.LANES))

    def _control_sent(self) -> bool:
        return not (self._left or self._popped) and (
            self._frames is None or not self._frames.queued_bytes(0)
        )

    async def _wait_for_work(self) -> None:
        self._wake = trio.Event()
        self._resting = True
        if self._blocked_until is math.inf:
            await self._wake.wait()
            self._resting = False
            return
        with trio.CancelScope(deadline=self._blocked_until) as scope:
            await self._wake.wait()
        self._resting = False
        if scope.cancelled_caught:
            self.abort(f"it read no data for {self._timings.write:g} s")

    async def _hang_up(self) -> None:
        """Say so, and send no more; the reader goes on until the peer has hung up too."""
        self._session.go_away()
        await self.wire.send_all(self._channel.encrypt(self._session.take()))
        await self.wire.send_eof()
