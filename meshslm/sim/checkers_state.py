"""Judges replicas of shared documents from outside, by what programs were told and can read.

Rules:
- What was acknowledged is never lost: every replica that has heard of all others holds it, or
  something with a higher revision.
- Replicas with equal vectors are equal, entry by entry; the sums that nodes compare are not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshslm.core.documents import Documents
from meshslm.wire.state import PartClock

Replica = dict[str, tuple[int, bytes, bool]]
MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that a program was told is durable."""

    revision: int
    value: bytes


class StateChecker:
    """Remembers what was acknowledged."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        """What was found while the run went on."""
        self.writes = 0
        self._highest: dict[tuple[str, str], list[Acknowledged]] = {}

    def acknowledged(self, document: str, key: str, revision: int, value: bytes) -> None:
        """A program was told that its write is durable."""
        self.writes += 1
        known = self._highest.setdefault((document, key), [])
        if known and known[0].revision < revision:
            known.clear()
        if not known or known[0].revision == revision:
            known.append(Acknowledged(revision, value))

    def excuse(self, document: str, *keys: str) -> None:
        """What was acknowledged of a document, or under these keys, was given up since."""
        for name in [n for n in self._highest if n[0] == document and n[1] in (keys or (n[1],))]:
            del self._highest[name]

    def judge(self, replicas: Sequence[tuple[str, Documents]]) -> list[str]:
        """What is wrong with replicas that have had time to agree."""
        faults = list(self.broken)
        for name, documents in replicas:
            for (document, key), highest in self._highest.items():
                entry = documents.entry(document, key)
                if entry is None or entry.revision < highest[0].revision:
                    held = "nothing" if entry is None else f"revision {entry.revision}"
                    faults.append(f"{name} lost {document} {key} {highest[0]}: it has {held}")
                elif entry.revision == highest[0].revision and all(
                    entry.value != a.value for a in highest
                ):
                    faults.append(f"{name} has another value of {document} {key} than was written")
        faults += self.differing(replicas)
        return faults[:MOST_TOLD]

    def differing(self, replicas: Sequence[tuple[str, Documents]]) -> list[str]:
        """Replicas with equal vectors whose entries differ."""
        seen: dict[tuple[str, tuple[PartClock, ...]], tuple[str, Replica]] = {}
        faults = []
        for name, documents in replicas:
            for document in documents.names():
                vector = documents.holdings.documents[document].clocks()
                entries = read(documents, document)
                other, theirs = seen.setdefault((document, vector), (name, entries))
                if theirs != entries:
                    faults.append(f"{name} and {other} differ in {document}")
        return faults

    def agree(self, replicas: Sequence[Documents]) -> bool:
        """Whether all hold the same entries of the same documents."""
        names = {documents.names() for documents in replicas}
        if len(names) > 1:
            return False
        first = replicas[0]
        return all(
            documents.holdings.documents[name].clocks() == first.holdings.documents[name].clocks()
            for documents in replicas[1:]
            for name in first.names()
        ) and not self.differing([(str(n), d) for n, d in enumerate(replicas)])


def read(documents: Documents, document: str) -> Replica:
    """All entries of a document, as a program reads them."""
    found: Replica = {}
    for key in documents.keys(document):
        entry = documents.entry(document, key)
        if entry is not None:
            found[key] = (entry.revision, entry.value, entry.deleted)
    return found
