"""One stream of a connection: bytes in both directions, within a window.

Rules:
- What is received is bounded by the window that was given; what is sent waits for the other side's.
- Before a protocol is agreed on, a stream brings few bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from meshslm import limits
from meshslm.errors import PeerFault

NEGOTIATION_BYTES = 4 * limits.KIB
"""Most that a stream may bring before its protocol is agreed; an honest one takes 60."""


class Carrier(Protocol):
    """What a stream needs of its connection."""

    def window(self, number: int) -> int:
        """Bytes that a stream may send now."""
        ...

    def send(self, number: int, data: bytes) -> None:
        """Queue bytes on a stream; without effect where it is over."""
        ...

    async def flushed(self) -> None:
        """Wait until what was queued is on its way, or the connection is over."""
        ...

    def consumed(self, number: int, count: int) -> None:
        """Give the peer new window for what was read."""
        ...

    def end(self, number: int) -> None:
        """Send no more on a stream."""
        ...

    def reset(self, number: int) -> None:
        """Forget a stream."""
        ...


class MuxedStream:
    """One stream of a connection."""

    def __init__(self, carrier: Carrier, number: int) -> None:
        self.number = number
        self._carrier = carrier
        self._received = bytearray()  # one piece: a peer may send its window byte by byte
        self._news = trio.Event()
        self._room = trio.Event()
        self._ended = False
        self.broken = False
        """Reset, or its connection is over."""
        self._negotiation_left: int | None = NEGOTIATION_BYTES
        self._eager: Callable[[bytes], bool] | None = None

    def negotiated(self) -> None:
        """From here on the stream may bring any number of bytes."""
        self._negotiation_left = None

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes; empty at the end of the stream, clean or not."""
        while not self._received:
            if self._ended:
                return b""
            self._news = trio.Event()
            await self._news.wait()
        data = bytes(self._received[:n])
        del self._received[:n]
        if self._negotiation_left is not None:
            self._negotiation_left -= len(data)
            if self._negotiation_left < 0:
                raise PeerFault(f"over {NEGOTIATION_BYTES} bytes without agreeing on a protocol")
        self._carrier.consumed(self.number, len(data))
        return data

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes. Raises `PeerFault` where the stream ends before."""
        data = b""
        while len(data) < count:
            piece = await self.read(count - len(data))
            if not piece:
                raise PeerFault(f"a stream ended after {len(data)} bytes of {count}")
            data += piece
        return data

    def hand_to(self, eager: Callable[[bytes], bool] | None) -> None:
        """Offer what comes to `eager` while nothing else waits here; it says whether it took it.

        That saves the waking of whoever reads, which is most of what a small message costs.
        """
        self._eager = eager

    async def write(self, data: bytes) -> None:
        """Queue a few bytes of negotiation; they never exceed the window."""
        self._carrier.send(self.number, data)

    async def close(self) -> None:
        """Send no more."""
        self._carrier.end(self.number)

    def reset(self) -> None:
        """Drop the stream in both directions."""
        self.feed_end(broken=True)
        self._carrier.reset(self.number)

    def feed(self, data: bytes) -> None:
        """Take in what the peer sent."""
        if self._eager is not None and not self._received and self._eager(data):
            self._carrier.consumed(self.number, len(data))
            return
        self._received += data
        self._news.set()

    def feed_end(self, *, broken: bool = False) -> None:
        """The peer sends no more; where the stream is `broken` it takes nothing either."""
        self._ended = True
        self.broken = self.broken or broken
        self._news.set()
        self._room.set()

    def may_write(self) -> None:
        """The peer gives more window."""
        self._room.set()

    async def write_all(self, data: bytes) -> None:
        """Send any amount, piece by piece, each when the one before it is on its way.

        Raises `trio.BrokenResourceError` where the stream is over.
        """
        at = 0
        while at < len(data):
            self._room = trio.Event()
            window = self._carrier.window(self.number)
            if self.broken:
                raise trio.BrokenResourceError
            if not window:
                await self._room.wait()
                continue
            piece = data[at : at + min(window, limits.RELAY_PIECE)]
            at += len(piece)
            self._carrier.send(self.number, piece)
            await self._carrier.flushed()
