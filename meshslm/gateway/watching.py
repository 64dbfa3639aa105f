"""`GET /mesh/memory/{namespace}/watch`: what changes in a namespace, as server-sent events.

The first event is `ready`: what is written behind it will be told. Then `put`, `delete` and `count`
as they become durable on this node, its own and others'. A reader that does not keep up is told
`lagged`, which is the last event: it reads anew and watches again.

Rules:
- An idle watch says a word every `WATCH_IDLE_S`, so that whoever stands between does not close it.
- There are at most `MEMORY_WATCHES` at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meshslm import state_limits
from meshslm.api.memory import Happened
from meshslm.api.sse import event
from meshslm.core.memory import Memory, kind_of
from meshslm.core.state_events import StateChanged
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.memory import NAMESPACE, MemoryPages, SharedState

WATCH_IDLE_S = 15.0
_IDLE = b": still here\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class Watching:
    """The route."""

    def __init__(self, pages: MemoryPages) -> None:
        self._pages = pages
        self._watches = 0

    def routes(self) -> list[Route]:
        """For the application's list."""
        return [Route(f"{NAMESPACE}/watch", self.watch, methods=["GET"])]

    async def watch(self, request: Request) -> Response:
        """Begin one."""
        state, memory = self._pages.opened(request)
        if self._watches >= state_limits.MEMORY_WATCHES:
            why = f"{state_limits.MEMORY_WATCHES} watches are open on this node, which is the most"
            raise RequestFault(FaultCode.OVERLOADED, why, retry_after_ms=10_000)
        return _Watch(self, state, memory, request.query_params.get("prefix", ""))

    def counted(self, by: int) -> None:
        """One more is open, or one less."""
        self._watches += by


class _Watch(Response):
    """One watch, from its first event to the end of its reader."""

    def __init__(self, counter: Watching, state: SharedState, memory: Memory, prefix: str) -> None:
        super().__init__()
        self._counter = counter
        self._state = state
        self._memory = memory
        self._prefix = prefix

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what happens, until the reader is gone or does not keep up."""
        self._counter.counted(1)
        try:
            async with (
                self._state.follow(self._memory.document) as changes,
                trio.open_nursery() as nursery,
            ):
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await self._say(send, event(Happened(kind="ready")))
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._tell(changes, send)
                nursery.cancel_scope.cancel()
        finally:
            self._counter.counted(-1)

    async def _tell(self, changes: trio.MemoryReceiveChannel[StateChanged], send: Send) -> None:
        while True:
            changed = None
            with trio.move_on_after(WATCH_IDLE_S):
                try:
                    changed = await changes.receive()
                except trio.EndOfChannel:
                    await self._say(send, event(Happened(kind="lagged")), last=True)
                    return
            data = _IDLE if changed is None else b"".join(map(event, self._happened(changed)))
            if data:
                await self._say(send, data)

    def _happened(self, changed: StateChanged) -> Iterator[Happened]:
        now = self._state.now_ms()
        for key, entry in zip(changed.keys, changed.entries, strict=True):
            kind, subject, item = kind_of(key)
            if not subject.startswith(self._prefix):
                continue
            if kind == "counter":
                yield Happened(kind="count", key=subject, count=self._memory.count(subject))
            elif entry is None or not entry.alive(now):
                yield Happened(kind="delete", key=subject, item=item)
            else:
                value = msgspec.Raw(entry.value)
                yield Happened(
                    kind="put", key=subject, item=item, revision=entry.revision, value=value
                )

    async def _say(self, send: Send, data: bytes, *, last: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": not last})


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
