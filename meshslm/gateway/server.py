"""Serving an application over HTTP: Hypercorn's connections on sockets that are ours.

Hypercorn has one call that does it all. Its connection handler is used here without that call,
because the call leaves things open that a daemon needs closed:
- a bound on open connections;
- an end to a client that takes nothing of its answer. Hypercorn shields its writes from
  cancellation, so such a client could even hold up the daemon's shutdown for ever;
- the port that was chosen where port 0 was asked for, and a clear error where one is taken;
- no lifespan protocol, signal handlers or loggers of its own.

A stream is written a token at a time, so what the system takes at once goes to it without the lock,
the cancel scopes and the state machine that a longer write needs.

Of its protocols only HTTP/1.1 is kept: on its way to HTTP/2 a connection could end up in a place
where neither its client's end nor the daemon's reaches it (a test shows the request that did it).
"""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from typing import Any, Protocol, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.gateway.replies import refusal

_log = logging.getLogger("meshslm.gateway")


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What a client on this machine puts before a path."""
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"http://[{shown}]:{self.port}" if ":" in shown else f"http://{shown}:{self.port}"


class Listening(Protocol):
    """What `nursery.start` hands in, to be told the address."""

    def started(self, value: HttpAddress, /) -> None:
        """The server listens."""
        ...


async def serve(
    app: object,
    *,
    host: str = "127.0.0.1",
    port: int = limits.HTTP_PORT,
    task_status: Listening = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the ASGI application `app` until cancelled; tells where it listens once it does.

    Port 0 takes a free one. Raises `OurFault` where it cannot listen. When cancelled, idle
    connections close at once and answers under way have `limits.HTTP_GRACE_MS` to end.
    """
    listeners = await _listen(host, port)
    name = listeners[0].socket.getsockname()
    connections = _Connections(cast(ASGIFramework, app))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.hold)
        await connections.held.wait()
        task_status.started(HttpAddress(name[0], name[1]))
        try:
            await trio.serve_listeners(
                connections.handle, listeners, handler_nursery=connections.nursery
            )
        finally:
            connections.ending.set()


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        # Several addresses (localhost) would get different free ports, so port 0 takes the first.
        listeners = list(await trio.open_tcp_listeners(port, host=host))
    except OSError as error:
        raise OurFault(_why_not(host, port, error)) from error
    if port == 0:
        for surplus in listeners[1:]:
            await surplus.aclose()
        return listeners[:1]
    return listeners


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"http://{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot serve {where}: port {port} is in use; stop the program that holds it, "
            "or choose another port (0 takes a free one)"
        )
    if error.errno == errno.EACCES:
        return f"cannot serve {where}: ports below 1024 need a privilege; choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot serve {where}: this machine has no address {host}"
    return f"cannot serve {where}: {error.strerror or error}"


class _Connections:
    """The open connections of a server."""

    nursery: trio.Nursery

    def __init__(self, app: ASGIFramework) -> None:
        self.held = trio.Event()
        self.ending = trio.Event()
        self._app = ASGIWrapper(app)
        self._config = _config()
        self._context = WorkerContext(None)
        self._streams: set[_Stream] = set()
        self._one_closed = trio.Event()

    async def hold(self) -> None:
        """Keep the connections' tasks until `ending`, and then for a grace at most.

        Shielded, because being cancelled is how the end begins.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self.nursery:
                self.held.set()
                await self.ending.wait()
                await self._context.terminated.set()  # idle connections close
                with trio.move_on_after(limits.HTTP_GRACE_MS / 1000):
                    while self._streams:
                        self._one_closed = trio.Event()
                        await self._one_closed.wait()
                for stream in self._streams:
                    stream.cut()
                self.nursery.cancel_scope.cancel()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        ours = _Stream(stream)
        if len(self._streams) >= limits.HTTP_CONNECTIONS:
            await ours.refuse()
            return
        self._streams.add(ours)
        try:
            state = ConnectionState(LifespanState())
            # It is typed for TLS streams, and uses of them what a plain one has too.
            await _Connection(self._app, self._config, self._context, state, cast(Any, ours))
        except Exception:  # noqa: BLE001 - one connection's bug must not end the others
            _log.exception("a connection failed on a bug")
        finally:
            self._streams.discard(ours)
            self._one_closed.set()


class _Connection(TCPServer):
    """One connection, which speaks HTTP/1.1 and nothing else."""

    async def run(self) -> None:
        """Serve requests until one side closes."""
        address = self.stream.socket
        try:
            client = parse_socket_addr(address.family, address.getpeername())
            server = parse_socket_addr(address.family, address.getsockname())
            async with TaskGroup() as self._task_group:
                self.protocol = cast(
                    ProtocolWrapper,
                    _Http1(
                        self.app,
                        self.config,
                        self.context,
                        self._task_group,
                        cast(ConnectionState, self.state),
                        False,  # noqa: FBT003 - no TLS; the parameter has no name to use
                        client,
                        server,
                        self.protocol_send,
                    ),
                )
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                await self.idle_task.stop()  # it would keep a closed connection for its whole time
        except OSError:
            pass  # the client is gone
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Send bytes, or end the connection."""
        if type(event) is RawData and not self.send_lock.locked():
            left = cast(_Stream, self.stream).send_now(event.data)
            if not left:
                if len(event.data) > _YIELD_BYTES:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return
            event = RawData(data=left)
        await super().protocol_send(event)


_YIELD_BYTES = 8 * limits.KIB
"""After a write of more, others get their turn."""


class _Http1(H11Protocol):
    """Does not turn into HTTP/2 when a client asks for it."""

    _chunked = False
    """The body goes out in chunks of HTTP, each by itself."""

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer."""
        if type(event) is Body and self._chunked and event.data:
            await self.send(RawData(data=b"%x\r\n%b\r\n" % (len(event.data), event.data)))
            return
        if type(event) is Response:
            sized = any(name.lower() == b"content-length" for name, _ in event.headers)
            spoken = getattr(self.connection, "their_http_version", b"")  # none of a web socket
            self._chunked = not sized and spoken == b"1.1"
        await super().stream_send(event)

    async def _check_protocol(self, event: object) -> None:
        pass


class _Stream:
    """A connection whose long writes end: by progress, by a time without any, or by `cut`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose

    def send_now(self, data: bytes) -> bytes:
        """Send what the system takes at once; the rest."""
        try:
            sent = os.write(self.socket.fileno(), data)
        except OSError:
            return data  # no room, or no connection: who waits for it will know
        return data[sent:]

    async def send_all(self, data: bytes) -> None:
        """Send `data`; raises `trio.BrokenResourceError` where the client takes nothing of it."""
        view = memoryview(data)
        for start in range(0, len(view), _PART_BYTES):
            with trio.move_on_after(limits.HTTP_STALL_MS / 1000) as waiting:
                await self._stream.send_all(view[start : start + _PART_BYTES])
            if waiting.cancelled_caught:
                self.cut()
                raise trio.BrokenResourceError("the client takes nothing of its answer")

    def cut(self) -> None:
        """Close at once, whoever is waiting for it."""
        self.socket.close()

    async def refuse(self) -> None:
        """Tell a client that there is no room, and close."""
        with trio.move_on_after(1):
            try:
                await self._stream.send_all(_NO_ROOM)
            except trio.BrokenResourceError:
                pass  # it left first
        await self._stream.aclose()


_PART_BYTES = 64 * limits.KIB

_NO_ROOM_BODY = bytes(refusal(503, "Too many open connections; try again later.").body)
_NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"retry-after: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
) % (len(_NO_ROOM_BODY), _NO_ROOM_BODY)


def _config() -> Config:
    config = Config()
    config.errorlog = _log
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.HTTP_HEAD_BYTES
    config.keep_alive_timeout = limits.HTTP_IDLE_MS / 1000
    return config
