"""What carries the bytes of one connection: a TCP socket here, a circuit through a relay elsewhere.

Rules:
- `close` and `reset` return at once and always work; a wire may be closed more than once.
- What is broken raises trio's errors of broken or closed resources, and nothing else.
"""

from __future__ import annotations

import socket as stdlib_socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import trio

from meshslm import limits
from meshslm.adapters.multiaddrs import seen_at
from meshslm.adapters.quick_socket import QuickSocket

LOOK_AGAIN_S = 0.02
"""Between two looks at what has come and is not to be taken yet."""

UNSENT_BYTES = 32 * limits.KIB
"""Taken by the kernel and not on its way yet: that much stands before what is urgent, at most."""
BULK_FLIGHT_BYTES = 128 * limits.KIB
"""Of bulk on its way at a time: what a wire of 10 Mbit/s holds at a round trip of 100 ms. Each byte
more waits at the wire's near end, before what is urgent, and makes it lose packets."""
BULK_READ_BYTES = 64 * limits.KIB
"""One read of bulk: a quarter of a usual one, as what is urgent waits for its decryption."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Wire(Protocol):
    """Bytes in both directions, in order, or the end of them."""

    @property
    def own_host(self) -> str:
        """The address of this machine that it goes by; empty where it is over, or has none."""
        ...

    @property
    def came_from(self) -> str:
        """Where its other end is, as a multiaddress."""
        ...

    async def receive_some(self, most: int) -> bytes:
        """What has come, at most so much; empty at the end."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Returns when everything is on its way."""
        ...

    async def read(self) -> bytes:
        """As `receive_some`, of as much as is worth a step."""
        ...

    async def write(self, data: bytes, within_s: float) -> bool:
        """As `send_all`; False where there was no room for some of it for so long."""
        ...

    def write_now(self, data: bytes) -> bytes:
        """Write what there is room for at once; the rest. Raises nothing: `write` will."""
        ...

    async def send_eof(self) -> None:
        """Send no more."""
        ...

    def close(self) -> None:
        """Drop it, in both directions."""
        ...

    def reset(self) -> None:
        """Drop it, and let the other side know at once."""
        ...


class TcpWire:
    """A connected socket."""

    def __init__(self, socket: trio.SocketStream) -> None:
        self._stream = socket
        self._said = 0
        """Bytes that were sent before their time."""
        quick = QuickSocket(socket)
        self.read = quick.read
        self.write = quick.write
        self.write_now = quick.write_now
        option = getattr(stdlib_socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            self._set(stdlib_socket.IPPROTO_TCP, option, UNSENT_BYTES)

    def give_way(self, before: Callable[[], Awaitable[None]]) -> None:
        """Read and write in small pieces from now on; `before` is awaited before each write."""
        write_at_once = self.write

        async def read() -> bytes:
            return await self.receive_some(BULK_READ_BYTES)

        async def write(data: bytes, within_s: float) -> bool:
            await before()
            return await write_at_once(data, within_s)

        self.read, self.write = read, write
        self._set(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, BULK_FLIGHT_BYTES)

    def _set(self, level: int, option: int, value: int) -> None:
        with suppress(OSError):  # it is over already: whoever reads or writes next is told so
            self._stream.setsockopt(level, option, value)

    @property
    def own_host(self) -> str:
        """The address of this machine that it goes by; empty where it is over."""
        try:
            return str(self._stream.socket.getsockname()[0]).partition("%")[0]
        except OSError:
            return ""

    @property
    def came_from(self) -> str:
        """Where its other end is; empty where it is over."""
        try:
            return seen_at(*self._stream.socket.getpeername()[:2])
        except OSError:
            return ""

    async def receive_some(self, most: int) -> bytes:
        """What has come, at most so much; empty at the end."""
        return bytes(await self._stream.receive_some(most))

    async def begins(self, greeting: bytes, seconds: float) -> bool:
        """Whether the other end says more than the greeting, which is ours too, within so long.

        Ours is sent here, and not again by what writes it first; theirs stays to be received.
        """
        await self._stream.send_all(greeting)
        self._said = len(greeting)
        with trio.move_on_after(seconds):
            while True:
                await trio.lowlevel.wait_readable(self._stream.socket)
                said = await self._stream.socket.recv(2 * len(greeting), stdlib_socket.MSG_PEEK)
                if len(said) > len(greeting) or not said:
                    return True
                await trio.sleep(LOOK_AGAIN_S)
        return False

    async def send_all(self, data: bytes) -> None:
        """Returns when the system has taken everything."""
        said, self._said = self._said, max(0, self._said - len(data))
        await self._stream.send_all(data[said:])

    async def send_eof(self) -> None:
        """Send no more."""
        await self._stream.send_eof()

    def close(self) -> None:
        """Drop it, in both directions."""
        self._stream.socket.close()

    def reset(self) -> None:
        """Drop it, and let the other side know at once."""
        try:
            self._stream.setsockopt(
                stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, _RESET_ON_CLOSE
            )
        except OSError:
            pass  # already closed, or the peer was quicker
        self._stream.socket.close()
