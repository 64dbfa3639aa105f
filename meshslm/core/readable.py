"""What the readers of shared documents need of them, so that they can be tried without a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from meshslm.ids import NodeId
from meshslm.state.entry import Entry


class Readable(Protocol):
    """What is read of `core.documents`."""

    def read(self, document: str, key: str) -> Entry | None:
        """The entry that holds."""
        ...

    def keys(self, document: str, prefix: str = "", after: str = "") -> Iterator[str]:
        """Keys in order."""
        ...

    def each(self, document: str, key: str) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own entry."""
        ...

    def author(self, document: str, key: str) -> NodeId | None:
        """Who wrote the entry that holds."""
        ...

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Documents of which something is here."""
        ...
