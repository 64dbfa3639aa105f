"""What memory is asked, as HTTP requests; both clients send what is made here. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from meshslm.api.memory import PATH, Happened, Items, Listing, MemoryEntry
from meshslm.api.sse import EventDecoder
from meshslm.client.answer import read
from meshslm.client.asking import Asking

WATCH_SILENCE_S = 60.0
"""A watch says a word four times as often."""


@dataclass(frozen=True, slots=True)
class MemoryCall(Asking):
    """A request that may be of any method."""

    verb: str = "GET"

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.verb


class Calls:
    """Requests about one namespace."""

    def __init__(self, namespace: str) -> None:
        self.base = f"{PATH}/{quote(namespace, safe='')}"

    def _call(
        self,
        verb: str,
        path: str = "",
        body: Mapping[str, object] | None = None,
        **asked: object,
    ) -> MemoryCall:
        said = {name: value for name, value in asked.items() if value not in (None, "")}
        query = f"?{urlencode(said)}" if said else ""
        sent = {name: v for name, v in (body or {}).items() if v is not None or name == "value"}
        data = msgspec.json.encode(sent) if body is not None else None
        return MemoryCall(self.base + path + query, data, verb=verb)

    def put(self, key: str, value: object, revision: int | None, ttl_s: float | None) -> MemoryCall:
        """Write a value."""
        body = {"value": value, "revision": revision, "ttl_s": ttl_s}
        return self._call("PUT", _at("values", key), body)

    def get(self, key: str) -> MemoryCall:
        """Read a value."""
        return self._call("GET", _at("values", key))

    def delete(self, key: str, revision: int | None) -> MemoryCall:
        """Delete a value."""
        return self._call("DELETE", _at("values", key), revision=revision)

    def listing(self, prefix: str, after: str) -> MemoryCall:
        """A page of values."""
        return self._call("GET", prefix=prefix, after=after)

    def clear(self, prefix: str) -> MemoryCall:
        """Delete all that begins with `prefix`."""
        return self._call("DELETE", prefix=prefix)

    def append(self, key: str, value: object, ttl_s: float | None) -> MemoryCall:
        """Add an item to a list."""
        return self._call("POST", _at("lists", key), {"value": value, "ttl_s": ttl_s})

    def items(self, key: str, after: str) -> MemoryCall:
        """A page of a list."""
        return self._call("GET", _at("lists", key), after=after)

    def add(self, key: str, by: int) -> MemoryCall:
        """Count further."""
        return self._call("POST", _at("counters", key), {"add": by})

    def count(self, key: str) -> MemoryCall:
        """Read a counter."""
        return self._call("GET", _at("counters", key))

    def watch(self, prefix: str) -> MemoryCall:
        """Follow what changes."""
        asked = self._call("GET", "/watch", prefix=prefix)
        return MemoryCall(asked.path, None, WATCH_SILENCE_S, "GET")


def _at(kind: str, key: str) -> str:
    return f"/{kind}/{quote(key, safe='/')}"


class Pages:
    """Asks on, page by page, until there are no more."""

    def __init__(self, ask: Callable[[str], MemoryCall], shape: type[Listing | Items]) -> None:
        self._ask = ask
        self._shape = shape
        self._after = ""
        self.entries: list[MemoryEntry] = []
        self.done = False

    def next(self) -> MemoryCall:
        """The request for the next page."""
        return self._ask(self._after)

    def take(self, body: bytes) -> None:
        """What came back."""
        page = read(body, self._shape)
        self.entries += page.values if isinstance(page, Listing) else page.items
        self._after = page.after
        self.done = not page.after


class Changes:
    """Events of a watch, out of the bytes of its stream."""

    def __init__(self) -> None:
        self._decoder = EventDecoder()
        self._events: list[Happened] = []

    def feed(self, received: bytes) -> None:
        """Take more bytes. Raises `OurFault` where they are no events."""
        self._events += [read(data, Happened) for data in self._decoder.feed(received)]

    def next(self) -> Happened | None:
        """The next event, but for the first one, which only says that the watch began."""
        while self._events:
            event = self._events.pop(0)
            if event.kind != "ready":
                return event
        return None


Value = Any
"""Any JSON."""
