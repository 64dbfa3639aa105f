"""Shared documents as they are read: by machines of the core, by programs, by people. Pure.

Rules:
- What is read is what this node has at the moment; nothing is asked for.
- Entries that ran out are still there; who reads compares `Entry.alive` with the wall clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshslm.core.state_holdings import StateHoldings
from meshslm.ids import NodeId
from meshslm.state.document import Statistics
from meshslm.state.entry import Entry


class DocumentReading:
    """The reading half of `core.documents.Documents`."""

    def __init__(self, holdings: StateHoldings) -> None:
        self.holdings = holdings

    def read(self, document: str, key: str) -> Entry | None:
        """The entry that holds under a key; None where there is none, or it was deleted."""
        entry = self.entry(document, key)
        return None if entry is None or entry.deleted else entry

    def entry(self, document: str, key: str) -> Entry | None:
        """The same, deleted ones included."""
        found = self.holdings.find(document)
        return found.get(key) if found is not None else None

    def keys(self, document: str, prefix: str = "", after: str = "") -> Iterator[str]:
        """Keys that begin with `prefix` and come behind `after`, in order; deleted ones too.

        Not to be gone on with after the document has changed.
        """
        found = self.holdings.find(document)
        return found.keys(prefix, after) if found is not None else iter(())

    def each(self, document: str, key: str) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own newest entry under a key."""
        found = self.holdings.find(document)
        return found.each(key) if found is not None else iter(())

    def themselves(self, document: str) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own newest entry under its own id."""
        found = self.holdings.find(document)
        return found.themselves() if found is not None else iter(())

    def author(self, document: str, key: str) -> NodeId | None:
        """Who wrote the entry that holds."""
        found = self.holdings.find(document)
        return found.author_of(key) if found is not None else None

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Documents of which something is here, in order."""
        return tuple(sorted(n for n in self.holdings.documents if n.startswith(prefix)))

    def authors(self, document: str) -> dict[NodeId, int]:
        """Who has parts in a document, with the last generation of each, in order."""
        found = self.holdings.find(document)
        return dict(sorted(found.parts)) if found is not None else {}

    def statistics(self) -> tuple[Statistics, ...]:
        """How large each document is, in order of their names."""
        documents = self.holdings.documents
        return tuple(documents[name].statistics() for name in sorted(documents))
