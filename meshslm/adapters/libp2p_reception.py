"""Takes callers in: from an accepted socket to an authenticated peer, within the bounds.

Rules:
- Every wait has a deadline, from the moment a socket was accepted.
- Who calls too often waits; who finds no room is hung up on. Nobody is told why: nothing was
  proven yet.
- Whatever a caller does, it ends at most its own connection.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from meshslm import limits
from meshslm.adapters.libp2p_limits import Callers, source_of
from meshslm.adapters.libp2p_noise import HandshakeError, Handshaker, NoiseChannel
from meshslm.adapters.wires import TcpWire, Wire

log = logging.getLogger("meshslm.link")

Serve = Callable[[Wire, NoiseChannel], Awaitable[None]]


class Reception:
    """The door of a node. `connections` counts all, dialled ones included."""

    def __init__(self, handshaker: Handshaker, deadline: float, serve: Serve) -> None:
        self.connections = 0
        self._handshaker = handshaker
        self._deadline = deadline
        self._serve = serve
        self._callers = Callers()

    @property
    def full(self) -> bool:
        """There is room for no connection more."""
        return self.connections >= limits.CONNECTIONS

    async def accept_from(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        """Accept for ever; each caller is served in `nursery`."""
        while True:
            try:
                socket, (host, *_) = await listener.accept()
            except OSError as error:
                log.warning("accepting a connection failed: %s", error)
                await trio.sleep(0.1)  # out of file descriptors or memory: let some be freed
                continue
            source = source_of(host)
            if self.full or not self._callers.admit(source):
                socket.close()
                continue
            self.connections += 1
            nursery.start_soon(self._receive, TcpWire(trio.SocketStream(socket)), source)

    async def _receive(self, wire: Wire, source: str) -> None:
        try:
            channel = await self._authenticate(wire, source)
            if channel is not None and self._callers.claim(channel.peer):
                try:
                    await self._serve(wire, channel)
                finally:
                    self._callers.release(channel.peer)
        except Exception:
            log.exception("an inbound connection was dropped: a bug in serving it")
        finally:
            self.connections -= 1
            self._callers.leave(source)
            wire.close()

    async def _authenticate(self, wire: Wire, source: str) -> NoiseChannel | None:
        now = trio.current_time()
        scope = trio.CancelScope(deadline=now + self._deadline)
        wait = self._callers.begin(source, scope, now, self._deadline / 2)
        if wait is None:
            return None
        try:
            with scope:
                await trio.sleep(wait)
                return await self._handshaker.accept(wire)
        except HandshakeError as error:
            log.debug("an inbound connection was refused: %s", error)
        finally:
            self._callers.end(source, scope)
        return None
