"""What every request passes, whatever its route.

- A page in a browser must not reach the node of its reader: on loopback only requests that name a
  loopback host (or a configured one) are heard, which defeats DNS rebinding, and only pages from
  such hosts may send them, which defeats forged cross-site posts.
- Every answer has an `x-request-id`, is counted, and leaves a line in the log.
- A bug becomes a 500 in the usual shape; its trace goes to the log, not to the client.
- A request's body is read to its end, or to a bound, before its connection is given up. The server
  below waits for its application to take the body in small parts, even after the answer, so an
  unread body would leave the connection hanging; and closing early would reset the connection
  before the client has read why.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import trio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshslm import limits
from meshslm.gateway.body import declared_length
from meshslm.gateway.replies import refusal
from meshslm.observe.meters import Meters

_log = logging.getLogger("meshslm.gateway")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class HostPolicy:
    """Which `Host` and `Origin` headers are heard."""

    def __init__(self, bound_to: str, allowed: tuple[str, ...]) -> None:
        """`bound_to` is the address the server listens on, `allowed` adds host names to it."""
        self._everybody = not is_loopback(bound_to)
        self._allowed = frozenset(name.lower().rstrip(".") for name in allowed)

    def check(self, scope: Scope) -> None:
        """Raises `HTTPException` 403 where the request's host or origin is not heard."""
        if self._everybody:
            return
        for name, value in scope["headers"]:
            if name == b"host" and not self._heard(_host_of(b"//" + value)):
                raise HTTPException(
                    403,
                    "This node listens on loopback and does not answer for the host named in "
                    "'Host'. Use 127.0.0.1 or localhost, or add the name to its allowed hosts.",
                )
            if name == b"origin" and not self._heard(_host_of(value)):
                raise HTTPException(403, "This node does not answer to pages of that origin.")

    def _heard(self, host: str) -> bool:
        return host in self._allowed or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: bytes) -> str:
    """Host of a URL in lower case; empty where there is none."""
    try:
        return (urlsplit(url.decode("ascii")).hostname or "").rstrip(".")
    except ValueError:
        return ""


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostPolicy,
        meters: Meters,
        route_of: Callable[[str], str],
    ) -> None:
        """`route_of` gives the template of a path, which is what is counted."""
        self._app = app
        self._hosts = hosts
        self._meters = meters
        self._route_of = route_of
        self._ids = (f"req-{int(time.time()):x}-{n:x}" for n in itertools.count(1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see that it ends well."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = request_id(scope) or next(self._ids)
        exchange = _Exchange(scope, receive, send, name, self._note)
        try:
            await self._pass_on(exchange)
        finally:
            exchange.note()

    async def _pass_on(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        try:
            self._hosts.check(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except HTTPException as refused:
            reply = refusal(
                refused.status_code, refused.detail, refused.headers, path=scope["path"]
            )
            await reply(scope, exchange.receive, exchange.send)
        except Exception:  # noqa: BLE001 - whatever it is, the node lives on
            _log.exception("a request failed on a bug", extra={"facts": {"id": exchange.id}})
            if not exchange.status:
                told = f"A bug in the node; its log has the trace ({exchange.id})."
                reply = refusal(500, told, path=scope["path"])
                await reply(scope, exchange.receive, exchange.send)

    def _note(self, exchange: _Exchange) -> None:
        route = self._route_of(exchange.scope["path"])
        # 499 is what nginx logs for a client that left before its answer began.
        status = exchange.status or 499
        self._meters.request_answered(route, status)
        level = logging.INFO if exchange.scope["method"] == "POST" else logging.DEBUG
        if _log.isEnabledFor(level):
            took_ms = round((time.perf_counter() - exchange.began) * 1000, 1)
            facts = {"route": route, "status": status, "ms": took_ms, "id": exchange.id}
            _log.log(level, "answered", extra={"facts": facts})


def request_id(scope: Scope) -> str | None:
    """The client's own id for its request, where it sent a usable one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            text: str = value.decode("ascii")
            return text
    return None


class _Exchange:
    """One request and its answer, with the body seen to its end."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        name: str,
        note: Callable[[_Exchange], None],
    ) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.id = name
        self.status = 0
        self._noted = False
        self._note = note
        self._receive = receive
        self._send = send
        self._body_read = False

    def note(self) -> None:
        """Count and log it, once."""
        if not self._noted:
            self._noted = True
            self._note(self)

    async def receive(self) -> Message:
        """The next message from the client."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_read = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on. Not interrupted: the server below would lose its place."""
        starts = message["type"] == "http.response.start"
        if starts:
            self.status = message["status"]
            self._add_headers(message)
        last = not starts and not message.get("more_body", False)
        if last:
            self.note()  # before the client can ask how often it asked
        with trio.CancelScope(shield=True):
            if last and not self._body_read:
                await self._send_last(message)
            else:
                await self._send(message)

    def _add_headers(self, message: Message) -> None:
        headers = [*message["headers"], (b"x-request-id", self.id.encode())]
        if not self._body_read and _has_body(self.scope):
            headers.append((b"connection", b"close"))
        message["headers"] = headers

    async def _send_last(self, message: Message) -> None:
        """Send the end of the answer while the client may still be sending its body."""
        await self._send({**message, "more_body": True})
        with trio.move_on_after(limits.HTTP_LINGER_MS / 1000):
            await self._discard(limits.HTTP_LINGER_BYTES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._discard_all)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async def _discard(self, most: int) -> None:
        while not self._body_read and most > 0:
            most -= len((await self.receive()).get("body", b""))

    async def _discard_all(self) -> None:
        while not self._body_read:
            await self.receive()


def _has_body(scope: Scope) -> bool:
    if not scope["http_version"].startswith("1"):
        return False
    chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    return chunked or declared_length(scope) > 0
