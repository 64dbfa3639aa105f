"""Bytes in and out of a connected socket, in as few steps as there can be.

A daemon at rest does little else than take in and send out packets of a hundred bytes, each as the
event loop comes round. trio's own calls try, enter scopes and yield for each of them; here a read
waits first, as there is nearly always nothing to read, and a write that the kernel takes at once
does not yield.

Rules:
- What yields less often than trio's calls do yields before it has written or read much.
- The socket stays trio's: it is closed there, which ends whoever waits here.
"""

from __future__ import annotations

import os

import trio

from meshslm import limits
from meshslm.adapters.libp2p_noise import READ_BYTES

YIELD_BYTES = 8 * limits.KIB
"""After a write of more, others get their turn: more may wait to be written. After less, none does,
as writes gather all that waits."""


class QuickSocket:
    """One connected socket. `read` and `write` raise trio's errors once it is broken or closed."""

    __slots__ = ("_full", "_socket", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._full = False
        """The last read took all that fitted: there is more."""

    async def read(self) -> bytes:
        """What has come, waiting for something; empty at the end."""
        while True:
            if self._full:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._open())
            try:
                data = os.read(self._open(), READ_BYTES)
            except BlockingIOError:
                self._full = False  # somebody else's news: wait again
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
            else:
                self._full = len(data) == READ_BYTES
                return data

    async def write(self, data: bytes, within_s: float) -> bool:
        """Write all of `data`; False where the kernel had no room for some of it for so long."""
        try:
            sent = os.write(self._open(), data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        if sent < len(data):
            with trio.move_on_after(within_s) as scope:
                await self._stream.send_all(data[sent:])
            return not scope.cancelled_caught
        if sent > YIELD_BYTES:
            await trio.lowlevel.checkpoint()
        return True

    def write_now(self, data: bytes) -> bytes:
        """Write what the kernel has room for; the rest, which is all of it on a broken socket."""
        try:
            return data[os.write(self._socket.fileno(), data) :]
        except OSError:
            return data

    def _open(self) -> int:
        number: int = self._socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("the socket is closed")
        return number
