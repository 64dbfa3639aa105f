"""Memory over HTTP: `/mesh/memory`, its namespaces, values, lists and counters.

Rules:
- A write is answered once it is durable on this node; that others have it too is not waited for.
- What is read is what this node has. Reading makes it keep a replica of the namespace from then on.
- A page of a listing ends where it would be larger than `MEMORY_PAGE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm import limits, state_limits
from meshslm.api.decode import bad_request, decode_body
from meshslm.api.memory import (
    PAGE,
    PATH,
    AddRequest,
    AppendRequest,
    Count,
    Deleted,
    Items,
    Listing,
    MemoryEntry,
    Namespaces,
    PutRequest,
    Written,
)
from meshslm.core.memory import Found, Memory, item_change, item_name, namespaces, value_change
from meshslm.core.readable import Readable
from meshslm.core.state_events import Change, HistoryFound, StateChanged
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.body import read_body
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService
from meshslm.ids import NodeId
from meshslm.state.entry import Entry

NAMESPACE = PATH + "/{namespace}"
_BODY_BYTES = state_limits.STATE_VALUE_BYTES + limits.KIB

_puts = msgspec.json.Decoder(PutRequest)
_appends = msgspec.json.Decoder(AppendRequest)
_adds = msgspec.json.Decoder(AddRequest)


class SharedState(Protocol):
    """The documents of a node, as its faces use them."""

    @property
    def documents(self) -> Kept:
        """For reading."""
        ...

    def now_ms(self) -> int:
        """The wall clock."""
        ...

    def compare(self) -> None:
        """Compare all documents with all members; the status tells what comes of it."""
        ...

    async def past(self, task: str = "", limit: int = 1, state: str = "") -> HistoryFound:
        """What became of tasks that entered at other members."""
        ...

    async def write(self, document: str, changes: tuple[Change, ...]) -> tuple[int, ...]:
        """Change a document and wait until that is durable; revisions. Raises `RequestFault`."""
        ...

    def follow(
        self, pattern: str
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[StateChanged]]:
        """Changes from now on."""
        ...


class Kept(Readable, Protocol):
    """Documents of which replicas are kept."""

    @property
    def node(self) -> NodeId:
        """Who writes here."""
        ...

    def themselves(self, document: str) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own newest entry under its own id."""
        ...

    def authors(self, document: str) -> dict[NodeId, int]:
        """Who has parts in a document, with the last generation of each."""
        ...

    def want(self, pattern: str) -> None:
        """Keep a replica of these from now on."""
        ...

    def wanted(self, document: str) -> bool:
        """Whether one is kept."""
        ...


class MemoryPages:
    """The routes of memory; all but watching."""

    def __init__(self, service: NodeService, state: SharedState | None) -> None:
        self._service = service
        self._state = state
        self._items = 0

    def routes(self) -> list[Route]:
        """For the application's list."""
        value, items, count = (f"{NAMESPACE}/{k}/{{key:path}}" for k in KINDS)
        return [
            Route(PATH, self.namespaces, methods=["GET"]),
            Route(NAMESPACE, self.listing, methods=["GET"]),
            Route(NAMESPACE, self.clear, methods=["DELETE"]),
            Route(value, self.get, methods=["GET"]),
            Route(value, self.put, methods=["PUT"]),
            Route(value, self.delete, methods=["DELETE"]),
            Route(items, self.items, methods=["GET"]),
            Route(items, self.append, methods=["POST"]),
            Route(count, self.count, methods=["GET"]),
            Route(count, self.add, methods=["POST"]),
        ]

    def opened(self, request: Request) -> tuple[SharedState, Memory]:
        """The namespace that a request is about. Raises `RequestFault`."""
        state = shared(self._state)
        memory = Memory(state.documents, request.path_params["namespace"])
        if not state.documents.wanted(memory.document):
            state.documents.want(memory.document)
        return state, memory

    # --- values ---------------------------------------------------------------------------------
    async def get(self, request: Request) -> Response:
        """The value under a key."""
        state, memory = self.opened(request)
        found = memory.value(request.path_params["key"], state.now_ms())
        if found is None:
            raise HTTPException(404, "There is no value under this key.")
        return json_reply(shown(found))

    async def put(self, request: Request) -> Response:
        """Write a value."""
        state, memory = self.opened(request)
        asked = decode_body(await self._body(request), _puts)
        key = request.path_params["key"]
        change = value_change(
            key,
            bytes(asked.value),
            revision=asked.revision,
            expires_ms=_expiry(state, asked.ttl_s),
        )
        (revision,) = await state.write(memory.document, (change,))
        return json_reply(Written(key=key, revision=revision))

    async def delete(self, request: Request) -> Response:
        """Delete a value; 404 where there is none."""
        state, memory = self.opened(request)
        key = request.path_params["key"]
        if memory.value(key, state.now_ms()) is None:
            raise HTTPException(404, "There is no value under this key.")
        revision = number_of(request, "revision")
        await state.write(memory.document, (value_change(key, None, revision=revision),))
        return json_reply(Deleted(deleted=1))

    # --- lists ----------------------------------------------------------------------------------
    async def items(self, request: Request) -> Response:
        """Items of a list."""
        state, memory = self.opened(request)
        key, after = request.path_params["key"], request.query_params.get("after", "")
        entries, more = _page(memory.items(key, state.now_ms(), after), _limit(request))
        return json_reply(Items(key=key, items=entries, after=entries[-1].key if more else ""))

    async def append(self, request: Request) -> Response:
        """Add an item."""
        state, memory = self.opened(request)
        asked = decode_body(await self._body(request), _appends)
        key, now = request.path_params["key"], state.now_ms()
        self._items += 1
        item = item_name(now, self._items, state.documents.node)
        change = item_change(key, item, bytes(asked.value), expires_ms=_expiry(state, asked.ttl_s))
        (revision,) = await state.write(memory.document, (change,))
        return json_reply(Written(key=item, revision=revision), status=201)

    # --- counters -------------------------------------------------------------------------------
    async def count(self, request: Request) -> Response:
        """What all have counted."""
        _, memory = self.opened(request)
        key = request.path_params["key"]
        return json_reply(Count(key=key, count=memory.count(key)))

    async def add(self, request: Request) -> Response:
        """Count further."""
        body = await self._body(request)
        asked = decode_body(body, _adds) if body else AddRequest()
        state, memory = self.opened(request)
        key, boot = request.path_params["key"], self._service.status().boot
        # Between reading and writing nothing may wait, or two would count from the same number.
        change = memory.counted(key, asked.add, state.documents.node, boot)
        await state.write(memory.document, (change,))
        return json_reply(Count(key=key, count=memory.count(key)))

    # --- namespaces -----------------------------------------------------------------------------
    async def namespaces(self, _request: Request) -> Response:
        """Those of which this node has something."""
        return json_reply(Namespaces(namespaces=list(namespaces(shared(self._state).documents))))

    async def listing(self, request: Request) -> Response:
        """Values of a namespace, and with the first page the names of its lists and counters."""
        state, memory = self.opened(request)
        asked = request.query_params
        prefix, after = asked.get("prefix", ""), asked.get("after", "")
        found = memory.values(state.now_ms(), prefix, after)
        with_values = asked.get("values", "true") != "false"
        entries, more = _page(found, _limit(request), with_values=with_values)
        return json_reply(
            Listing(
                namespace=request.path_params["namespace"],
                values=entries,
                after=entries[-1].key if more else "",
                lists=[] if after else [n for n in memory.lists() if n.startswith(prefix)],
                counters=[] if after else [n for n in memory.counters() if n.startswith(prefix)],
            )
        )

    async def clear(self, request: Request) -> Response:
        """Delete all that begins with `prefix`, without one everything; counters go to zero."""
        state, memory = self.opened(request)
        prefix = request.query_params.get("prefix", "")
        deleted = 0
        while keys := memory.beginning_with(prefix):
            await state.write(memory.document, tuple(Change(key, None) for key in keys))
            deleted += len(keys)
        node, boot = state.documents.node, self._service.status().boot
        for key in memory.counters():
            if key.startswith(prefix) and (count := memory.count(key)):
                await state.write(memory.document, (memory.counted(key, -count, node, boot),))
                deleted += 1
        return json_reply(Deleted(deleted=deleted))

    async def _body(self, request: Request) -> bytes:
        return await read_body(request.scope, request.receive, _BODY_BYTES)


KINDS = ("values", "lists", "counters")


def shared(state: SharedState | None) -> SharedState:
    """The node's documents. Raises `RequestFault` where it keeps none."""
    if state is None:
        why = "this node keeps no shared documents; [state] enabled = true in its settings"
        raise RequestFault(FaultCode.NOT_READY, why)
    return state


def shown(found: Found, *, with_value: bool = True) -> MemoryEntry:
    """What is told of a value or an item."""
    value: Any = msgspec.Raw(found.json) if with_value else msgspec.UNSET
    return MemoryEntry(
        key=found.key,
        revision=found.revision,
        written_ms=found.written_ms,
        author=found.author,
        expires_ms=found.expires_ms,
        value=value,
    )


def _page(
    found: Iterable[Found], most: int, *, with_values: bool = True
) -> tuple[list[MemoryEntry], bool]:
    """So many of them, or fewer where they are large; whether there are more."""
    entries: list[MemoryEntry] = []
    size = 0
    for one in found:
        size += len(one.json) if with_values else 0
        if len(entries) >= most or (entries and size > state_limits.MEMORY_PAGE_BYTES):
            return entries, True
        entries.append(shown(one, with_value=with_values))
    return entries, False


def _expiry(state: SharedState, ttl_s: float | None) -> int:
    return 0 if ttl_s is None else state.now_ms() + max(1, int(ttl_s * 1000))


def _limit(request: Request) -> int:
    number = number_of(request, "limit")
    if number is not None and not 1 <= number <= PAGE:
        raise bad_request(f"A page has 1 to {PAGE} entries.", "limit")
    return number or PAGE


def number_of(request: Request, name: str) -> int | None:
    """A number of the query; None where it is not given. Raises `RequestFault`."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise bad_request(f"{name!r} is a number, not {text[:32]!r}.", name)
    return int(text)
