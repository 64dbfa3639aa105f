"""Memory over HTTP: what is sent to `/mesh/memory` and what comes back.

Times are milliseconds since 1970. A value is any JSON.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from meshslm import state_limits

PATH = "/mesh/memory"

Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86_400)]
Revision = Annotated[int, msgspec.Meta(ge=0, le=2**48)]


class PutRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Writes a value."""

    value: msgspec.Raw
    revision: Revision | None = None
    """Only if this is the present one; 0: only if there is none."""
    ttl_s: Seconds | None = None
    """It is gone after so long."""


class AppendRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Adds an item to a list."""

    value: msgspec.Raw
    ttl_s: Seconds | None = None


class AddRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Counts further."""

    add: Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] = 1


class MemoryEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A value, or an item of a list."""

    key: str
    revision: int
    written_ms: int
    author: str
    """The node that wrote it."""
    expires_ms: int = 0
    value: Any = msgspec.UNSET


class Written(msgspec.Struct, kw_only=True):
    """A write that is durable on the node that was asked."""

    key: str
    revision: int


class Deleted(msgspec.Struct, kw_only=True):
    """How many entries went."""

    deleted: int


class Count(msgspec.Struct, kw_only=True):
    """A counter."""

    key: str
    count: int


class Listing(msgspec.Struct, kw_only=True):
    """A part of a namespace, in the order of keys."""

    namespace: str
    values: list[MemoryEntry]
    after: str = ""
    """Ask on behind this key; empty where there are no more."""
    lists: list[str] = []
    counters: list[str] = []


class Items(msgspec.Struct, kw_only=True):
    """Items of a list, in the order they were written."""

    key: str
    items: list[MemoryEntry]
    after: str = ""


class Namespaces(msgspec.Struct, kw_only=True):
    """Namespaces of which this node has something."""

    namespaces: list[str]


class Happened(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a watch, `kind` first: `ready`, `put`, `delete`, `count` or `lagged`."""

    kind: str
    key: str = ""
    """Of the value, list or counter."""
    item: str = ""
    """The name of a list's item."""
    revision: int = 0
    value: Any = msgspec.UNSET
    count: int = 0


PAGE = state_limits.MEMORY_PAGE
"""Entries in one answer, at most and by default."""
