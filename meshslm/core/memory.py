"""Memory for programs: values, lists and counters of a namespace, as entries of one document.

A value is any JSON, under the key that a program chose. An item of a list, and what one node has
counted, are entries of their own, so that two nodes that write at the same time never write over
each other: a list is all its items in the order of their names, a counter is a sum.

| kind | key of the entry | value |
|---|---|---|
| value | `v:KEY` | JSON |
| item of a list | `l:KEY␟ITEM` | JSON; items begin with the time they were written |
| part of a counter | `c:KEY␟BOOT` | what its author counted in that life, in decimal |

Rules:
- Reading is at once and never waits: whoever calls hands in the wall clock, by which entries end.
- Nobody can take away what another counted: a counter is set to zero by counting back.
- A counter's part has the number of its author's boot in its key: a node that comes back with an
  old store goes on beside what it counted before, and no total moves back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from meshslm import state_limits
from meshslm.core.readable import Readable
from meshslm.core.state_events import Change
from meshslm.errors import FaultCode, RequestFault
from meshslm.ids import NodeId
from meshslm.state.entry import Entry
from meshslm.state.names import DocumentClass, named, subject_of

VALUE = "v:"
ITEM = "l:"
COUNTER = "c:"
BEHIND = "\u241f"
"""Between a list or a counter and what belongs to it; no key has it."""
_LAST = "~"
"""Behind every character that a number, a time or a node's id has."""
COUNT_MOST = 2**63


@dataclass(frozen=True, slots=True)
class Found:
    """A value or an item that is there."""

    key: str
    """As programs say it; of an item its name within the list."""
    json: bytes
    revision: int
    written_ms: int
    expires_ms: int
    author: NodeId


def document_of(namespace: str) -> str:
    """The document of a namespace. Raises `RequestFault` where that is no name."""
    return named(DocumentClass.MEMORY, namespace)


class Memory:
    """One namespace, for reading and for the changes that write to it."""

    def __init__(self, documents: Readable, namespace: str) -> None:
        """Raises `RequestFault` where the name cannot be one."""
        self.document = document_of(namespace)
        self._documents = documents

    # --- values ---------------------------------------------------------------------------------
    def value(self, key: str, unix_ms: int) -> Found | None:
        """The value under a key; None where there is none."""
        return self._found(VALUE + _checked(key), key, unix_ms)

    def values(self, unix_ms: int, prefix: str = "", after: str = "") -> Iterator[Found]:
        """Values whose keys begin with `prefix` and come behind `after`, in their order."""
        behind = VALUE + after if after else ""
        for key in self._documents.keys(self.document, VALUE + prefix, behind):
            found = self._found(key, key.removeprefix(VALUE), unix_ms)
            if found is not None:
                yield found

    # --- lists ----------------------------------------------------------------------------------
    def items(self, key: str, unix_ms: int, after: str = "") -> Iterator[Found]:
        """Items of a list behind the one called `after`, in the order they were written."""
        prefix = f"{ITEM}{_checked(key)}{BEHIND}"
        for name in self._documents.keys(self.document, prefix, prefix + after if after else ""):
            found = self._found(name, name.removeprefix(prefix), unix_ms)
            if found is not None:
                yield found

    def lists(self) -> tuple[str, ...]:
        """Names of the lists that have or had items."""
        return self._subjects(ITEM)

    # --- counters -------------------------------------------------------------------------------
    def count(self, key: str) -> int:
        """What all have counted; 0 for a counter that nobody used."""
        prefix = f"{COUNTER}{_checked(key)}{BEHIND}"
        return sum(
            _number(entry)
            for name in self._documents.keys(self.document, prefix)
            for _, entry in self._documents.each(self.document, name)
        )

    def counters(self) -> tuple[str, ...]:
        """Names of the counters."""
        return self._subjects(COUNTER)

    def counted(self, key: str, by: int, node: NodeId, boot: int) -> Change:
        """The change with which this node counts further.

        Raises `RequestFault` where that is more than a counter can hold.
        """
        name = f"{COUNTER}{_checked(key)}{BEHIND}{boot}"
        own = (e for author, e in self._documents.each(self.document, name) if author == node)
        total = sum(map(_number, own)) + by
        if abs(total) >= COUNT_MOST:
            why = f"a counter holds less than {COUNT_MOST} either way"
            raise RequestFault(FaultCode.BAD_REQUEST, why, param="add")
        return Change(name, str(total).encode())

    # --- all of them ----------------------------------------------------------------------------
    def beginning_with(self, prefix: str) -> list[str]:
        """Keys of values and items whose subject begins so; those that can go at once."""
        found = (
            key
            for kind in (VALUE, ITEM)
            for key in self._documents.keys(self.document, kind + prefix)
            if self._documents.read(self.document, key) is not None
        )
        return list(islice(found, state_limits.UPDATE_CHANGES))

    def _subjects(self, kind: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        after = ""
        while (key := next(self._documents.keys(self.document, kind, after), None)) is not None:
            name = key.removeprefix(kind).rpartition(BEHIND)[0]
            found[name] = None
            after = f"{kind}{name}{BEHIND}{_LAST}"
        return tuple(sorted(found))

    def _found(self, key: str, name: str, unix_ms: int) -> Found | None:
        entry = self._documents.read(self.document, key)
        if entry is None or not entry.alive(unix_ms):
            return None
        author = self._documents.author(self.document, key)
        assert author is not None, "an entry that holds has an author"
        return Found(name, entry.value, entry.revision, entry.written_ms, entry.expires_ms, author)


def namespaces(documents: Readable) -> tuple[str, ...]:
    """Namespaces of which something is here."""
    return tuple(map(subject_of, documents.names(f"{DocumentClass.MEMORY}/")))


def value_change(
    key: str, json: bytes | None, *, revision: int | None = None, expires_ms: int = 0
) -> Change:
    """The change that writes a value, or with None deletes it."""
    return Change(VALUE + _checked(key), json, revision, expires_ms)


def item_change(key: str, item: str, json: bytes, *, expires_ms: int = 0) -> Change:
    """The change that adds an item to a list."""
    return Change(f"{ITEM}{_checked(key)}{BEHIND}{item}", json, 0, expires_ms)


def item_name(unix_ms: int, number: int, node: NodeId) -> str:
    """A name for a new item: later ones come behind earlier ones, and no two nodes share one.

    `number` counts what a node names, so that items of one millisecond keep their order.
    """
    return f"{unix_ms:012x}{number % 16**6:06x}{node[-8:]}"


def kind_of(key: str) -> tuple[str, str, str]:
    """What an entry's key means: `value`, `list` or `counter`, its subject, and the item's name."""
    kind, subject = key[:2], key[2:]
    if kind == VALUE:
        return "value", subject, ""
    name, _, rest = subject.rpartition(BEHIND)
    return ("list" if kind == ITEM else "counter"), name, rest


def _checked(key: str) -> str:
    if not key or BEHIND in key or not key.isprintable():
        why = f"a key has at least one character, all printable, no {BEHIND}: not {key[:64]!r}"
        raise RequestFault(FaultCode.BAD_REQUEST, why, param="key")
    return key


def _number(entry: Entry) -> int:
    text = entry.value
    sound = len(text) <= 20 and text.removeprefix(b"-").isdigit()
    return int(text) if sound and not entry.deleted else 0
