"""Memory that every node of the mesh has: `client.memory("project-x")`.

    notes = mesh.memory("project-x")
    notes.put("plan", {"step": 1})
    entry = notes.get("plan")                    # entry.value, entry.revision; None: not there
    notes.put("plan", {"step": 2}, revision=entry.revision)   # `CONFLICT` if somebody was faster
    notes.append("log", "begun"); notes.items("log")
    notes.add("runs"); notes.count("runs")
    with notes.watch("plan") as changes:
        for change in changes: ...

A write returns when it is durable on the node that was asked; the others get it from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from meshslm.api.memory import Count, Deleted, Happened, Items, Listing, MemoryEntry, Written
from meshslm.client.answer import read
from meshslm.client.memory_calls import Calls, Changes, MemoryCall, Pages, Value
from meshslm.client.transport import body_of, refusal, run_out, sending, told_plainly

if TYPE_CHECKING:
    import httpx

NOT_THERE = 404


class Memory:
    """One namespace, through a client that blocks."""

    def __init__(self, http: httpx.Client, namespace: str) -> None:
        self._http = http
        self._calls = Calls(namespace)

    def get(self, key: str) -> MemoryEntry | None:
        """The value under a key; None where there is none."""
        found = self._maybe(self._calls.get(key))
        return None if found is None else read(found, MemoryEntry)

    def put(
        self, key: str, value: Value, *, revision: int | None = None, ttl_s: float | None = None
    ) -> int:
        """Write a value, any JSON; its revision.

        `revision`: only if that is the present one (0: there is none), else `RequestFault` with
        `CONFLICT`. It is gone after `ttl_s` seconds.
        """
        call = self._calls.put(key, value, revision, ttl_s)
        return read(self._fetch(call), Written).revision

    def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Delete a value; whether there was one."""
        return self._maybe(self._calls.delete(key, revision)) is not None

    def values(self, prefix: str = "") -> list[MemoryEntry]:
        """All values whose keys begin with `prefix`, in the order of keys."""
        return self._all(Pages(lambda after: self._calls.listing(prefix, after), Listing))

    def append(self, key: str, value: Value, *, ttl_s: float | None = None) -> str:
        """Add an item to the end of a list; the item's name."""
        return read(self._fetch(self._calls.append(key, value, ttl_s)), Written).key

    def items(self, key: str) -> list[MemoryEntry]:
        """All items of a list, in the order they were written."""
        return self._all(Pages(lambda after: self._calls.items(key, after), Items))

    def add(self, key: str, by: int = 1) -> int:
        """Count further; the sum of what all nodes counted, as far as it is known here."""
        return read(self._fetch(self._calls.add(key, by)), Count).count

    def count(self, key: str) -> int:
        """That sum."""
        return read(self._fetch(self._calls.count(key)), Count).count

    def clear(self, prefix: str = "") -> int:
        """Delete everything whose name begins with `prefix`; how many entries that were."""
        return read(self._fetch(self._calls.clear(prefix)), Deleted).deleted

    @contextmanager
    def watch(self, prefix: str = "") -> Iterator[Iterator[Happened]]:
        """What changes from now on, in a `with` block. The last event may be `lagged`."""
        call = self._calls.watch(prefix)
        with told_plainly(self._http.base_url), self._http.stream(**sending(call)) as response:
            if not response.is_success:
                response.read()
                raise refusal(response)
            yield _changes(response.iter_raw())

    def _all(self, pages: Pages) -> list[MemoryEntry]:
        while not pages.done:
            pages.take(self._fetch(pages.next()))
        return pages.entries

    def _fetch(self, call: MemoryCall) -> bytes:
        with told_plainly(self._http.base_url):
            response = self._http.request(**sending(call))
        return body_of(response)

    def _maybe(self, call: MemoryCall) -> bytes | None:
        with told_plainly(self._http.base_url):
            response = self._http.request(**sending(call))
        return None if response.status_code == NOT_THERE else body_of(response)


class AsyncMemory:
    """The same, to be awaited."""

    def __init__(self, http: httpx.AsyncClient, namespace: str) -> None:
        self._http = http
        self._calls = Calls(namespace)

    async def get(self, key: str) -> MemoryEntry | None:
        """The value under a key; None where there is none."""
        found = await self._maybe(self._calls.get(key))
        return None if found is None else read(found, MemoryEntry)

    async def put(
        self, key: str, value: Value, *, revision: int | None = None, ttl_s: float | None = None
    ) -> int:
        """Write a value, any JSON; its revision. See `Memory.put`."""
        call = self._calls.put(key, value, revision, ttl_s)
        return read(await self._fetch(call), Written).revision

    async def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Delete a value; whether there was one."""
        return await self._maybe(self._calls.delete(key, revision)) is not None

    async def values(self, prefix: str = "") -> list[MemoryEntry]:
        """All values whose keys begin with `prefix`, in the order of keys."""
        return await self._all(Pages(lambda after: self._calls.listing(prefix, after), Listing))

    async def append(self, key: str, value: Value, *, ttl_s: float | None = None) -> str:
        """Add an item to the end of a list; the item's name."""
        return read(await self._fetch(self._calls.append(key, value, ttl_s)), Written).key

    async def items(self, key: str) -> list[MemoryEntry]:
        """All items of a list, in the order they were written."""
        return await self._all(Pages(lambda after: self._calls.items(key, after), Items))

    async def add(self, key: str, by: int = 1) -> int:
        """Count further; the sum of what all nodes counted, as far as it is known here."""
        return read(await self._fetch(self._calls.add(key, by)), Count).count

    async def count(self, key: str) -> int:
        """That sum."""
        return read(await self._fetch(self._calls.count(key)), Count).count

    async def clear(self, prefix: str = "") -> int:
        """Delete everything whose name begins with `prefix`; how many entries that were."""
        return read(await self._fetch(self._calls.clear(prefix)), Deleted).deleted

    @asynccontextmanager
    async def watch(self, prefix: str = "") -> AsyncIterator[AsyncIterator[Happened]]:
        """What changes from now on, in an `async with` block. See `Memory.watch`."""
        call = self._calls.watch(prefix)
        with told_plainly(self._http.base_url):
            async with self._http.stream(**sending(call)) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal(response)
                received = response.aiter_raw()
                changes = AsyncChanges(received)
                yield changes
            await run_out(received)

    async def _all(self, pages: Pages) -> list[MemoryEntry]:
        while not pages.done:
            pages.take(await self._fetch(pages.next()))
        return pages.entries

    async def _fetch(self, call: MemoryCall) -> bytes:
        with told_plainly(self._http.base_url):
            response = await self._http.request(**sending(call))
        return body_of(response)

    async def _maybe(self, call: MemoryCall) -> bytes | None:
        with told_plainly(self._http.base_url):
            response = await self._http.request(**sending(call))
        return None if response.status_code == NOT_THERE else body_of(response)


def _changes(received: Iterator[bytes]) -> Iterator[Happened]:
    changes = Changes()
    for data in received:
        changes.feed(data)
        while (event := changes.next()) is not None:
            yield event


class AsyncChanges:
    """Events of a watch. A class, as a generator that is left in the middle is complained of."""

    def __init__(self, received: AsyncIterator[bytes]) -> None:
        self._received = received
        self._changes = Changes()

    def __aiter__(self) -> AsyncChanges:
        return self

    async def __anext__(self) -> Happened:
        while (event := self._changes.next()) is None:
            received = await anext(self._received, None)
            if received is None:
                raise StopAsyncIteration
            self._changes.feed(received)
        return event
