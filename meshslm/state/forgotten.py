"""Authors whose parts of a document were given up for ever, and up to which generation.

Every other change of a document is some author's own. That an author is gone, and that what it
wrote is to make room, only agreement can say: the coordinators decide it, as the document's next
generation, whose value lists all authors that were given up so far.

Rules:
- It only grows: what was given up stays so, whatever order the decisions are heard in.
- An author that comes back writes in a generation above the one that was given up.
- Text that is no such list gives nothing up, and raises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshslm.ids import NodeId
from meshslm.state.part import PartKey

GENERATIONS = 2**63
"""Above every generation that may be given up: so there is always a further one to write in."""

_ID_BYTES = 128


def listed(text: str) -> dict[NodeId, int]:
    """Authors and the last generation of each, out of a decision; empty where it is no list."""
    found: dict[NodeId, int] = {}
    for item in text.split():
        author, colon, digits = item.rpartition(":")
        sound = colon and 0 < len(author.encode()) <= _ID_BYTES and author.isprintable()
        if not (sound and digits.isascii() and digits.isdecimal() and len(digits) <= 19):
            return {}
        generation = int(digits)
        if generation >= GENERATIONS or author in found:
            return {}
        found[NodeId(author)] = generation
    return found


def as_text(authors: Mapping[NodeId, int]) -> str:
    """The list as it stands in a decision: `AUTHOR:GENERATION`, with blanks between."""
    return " ".join(f"{author}:{authors[author]}" for author in sorted(authors))


def gives_back(before: str, after: str) -> str:
    """An author that a decision would take back in, against the one before; empty: none."""
    kept = listed(after)
    for author, generation in sorted(listed(before).items()):
        if kept.get(author, -1) < generation:
            return author
    return ""


class Forgotten:
    """What one node knows to be given up, of all documents."""

    def __init__(self) -> None:
        self._until: dict[str, dict[NodeId, int]] = {}

    def add(self, key: PartKey) -> bool:
        """Parts of this author up to this generation are given up; whether that is news."""
        authors = self._until.setdefault(key.document, {})
        if authors.get(key.author, -1) >= key.generation:
            return False
        authors[key.author] = key.generation
        return True

    def until(self, document: str, author: NodeId) -> int:
        """The last generation that is given up; -1: none is."""
        return self._until.get(document, {}).get(author, -1)

    def covers(self, document: str, author: NodeId, generation: int) -> bool:
        """Whether a part is given up."""
        return generation <= self.until(document, author)

    def of(self, document: str) -> tuple[tuple[NodeId, int], ...]:
        """Authors of a document with the last generation of each, in order."""
        return tuple(sorted(self._until.get(document, {}).items()))

    def documents(self) -> tuple[str, ...]:
        """Documents of which anything is given up, in order."""
        return tuple(sorted(self._until))
