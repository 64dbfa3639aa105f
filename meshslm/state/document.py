"""One shared document: the parts of all its authors, and what they say together.

Rules:
- Of several authors' entries under a key the one with the highest (revision, author, generation)
  holds, whatever the order in which they came.
- Two replicas with equal vectors have equal entries, and so equal sums.
- What an author has rebuilt takes the place of its earlier generations as soon as it is whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from meshslm.ids import NodeId
from meshslm.state.entry import Entry, revision_of, unpack
from meshslm.state.part import Part
from meshslm.wire.state import CONTENT_BYTES, VECTOR_BYTES, DocumentDigest, PartClock

_SUM = 2**128


@dataclass(frozen=True, slots=True)
class Statistics:
    """How large a document is."""

    document: str
    keys: int
    """Entries under different keys, deleted ones included."""
    live_bytes: int
    full_bytes: int
    """With what was written over since each author's last rebuild."""
    authors: int
    parts: int
    quarantined: bool = False


class Document:
    """The parts of one document in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: dict[tuple[NodeId, int], Part] = {}
        self.quarantined = False
        self._holders: dict[str, Part] = {}
        """Whose entry holds, by key."""
        self._sorted: list[str] | None = None
        self._vector: bytes | None = None

    # --- parts ----------------------------------------------------------------------------------
    def part(self, author: NodeId, generation: int) -> Part | None:
        """A part, if anything of it is here."""
        return self.parts.get((author, generation))

    def own(self, author: NodeId) -> list[Part]:
        """The parts of one author, the oldest first."""
        return sorted(
            (part for (who, _), part in self.parts.items() if who == author),
            key=lambda part: part.key.generation,
        )

    def add(self, part: Part) -> list[Part]:
        """A part has come, perhaps in place of one with its name; parts to be dropped for it."""
        name = (part.key.author, part.key.generation)
        old = self.parts.get(name)
        self.parts[name] = part
        if old is not None:
            self._reassess(old.live)
        self.changed(part, part.live)
        return self.outdated(part)

    def changed(self, part: Part, keys: Iterable[str]) -> None:
        """Keys of a part have changed."""
        self._vector = None
        mine = (part.key.author, part.key.generation)
        for key in keys:
            holder = self._holders.get(key)
            if holder is None:
                self._holders[key] = part
                self._sorted = None
            elif holder is not part:
                ours = (revision_of(part.live[key]), *mine)
                theirs = holder.key.author, holder.key.generation
                if ours > (revision_of(holder.live[key]), *theirs):
                    self._holders[key] = part
            elif len(self.parts) > 1:
                self._assess(key)

    def outdated(self, part: Part) -> list[Part]:
        """Parts whose place `part` takes, once it is whole."""
        if not part.base:
            return []
        author, generation = part.key.author, part.key.generation
        return [old for old in self.own(author) if old.key.generation < generation]

    def is_outdated(self, author: NodeId, generation: int) -> bool:
        """Whether a later generation has taken the place of this one."""
        return any(part.key.generation > generation and part.base for part in self.own(author))

    def drop(self, part: Part) -> None:
        """A part is no more."""
        del self.parts[part.key.author, part.key.generation]
        self._vector = None
        self._reassess(part.live)

    def _reassess(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._assess(key)

    def _assess(self, key: str) -> None:
        best: tuple[int, NodeId, int] | None = None
        for (author, generation), part in self.parts.items():
            packed = part.live.get(key)
            if packed is None:
                continue
            rank = (revision_of(packed), author, generation)
            if best is None or rank > best:
                best = rank
                self._holders[key] = part
        if best is None:
            self._holders.pop(key, None)
            self._sorted = None

    # --- reading --------------------------------------------------------------------------------
    def get(self, key: str) -> Entry | None:
        """The entry that holds, deleted ones included."""
        holder = self._holders.get(key)
        return unpack(holder.live[key]) if holder is not None else None

    def author_of(self, key: str) -> NodeId | None:
        """Who wrote the entry that holds."""
        holder = self._holders.get(key)
        return holder.key.author if holder is not None else None

    def keys(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Keys that begin with `prefix` and come behind `after`, in order."""
        if self._sorted is None:
            self._sorted = sorted(self._holders)
        names = self._sorted
        for place in range(bisect_left(names, max(prefix, after)), len(names)):
            key = names[place]
            if not key.startswith(prefix):
                return
            if key > after or not after:
                yield key

    def each(self, key: str) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own newest entry under a key, by author: what counters add up."""
        newest: dict[NodeId, Entry] = {}
        for (author, _), part in sorted(self.parts.items()):
            packed = part.live.get(key)
            if packed is not None:
                entry = unpack(packed)
                if author not in newest or entry.revision >= newest[author].revision:
                    newest[author] = entry
        yield from newest.items()

    def themselves(self) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own newest entry under its own id, by author."""
        newest: dict[NodeId, bytes] = {}
        for (author, _), part in sorted(self.parts.items()):
            packed = part.live.get(author)
            if packed is not None:
                newest[author] = max(packed, newest.get(author, packed), key=revision_of)
        yield from ((author, unpack(packed)) for author, packed in newest.items())

    def __len__(self) -> int:
        return len(self._holders)

    # --- comparing ------------------------------------------------------------------------------
    def clocks(self, *, contents: bool = False) -> tuple[PartClock, ...]:
        """What is held of each part, in order."""
        return tuple(
            PartClock(
                author,
                generation,
                part.clock,
                part.content.to_bytes(CONTENT_BYTES, "big") if contents else b"",
            )
            for (author, generation), part in sorted(self.parts.items())
        )

    def digest(self) -> DocumentDigest:
        """All of it in short."""
        if self._vector is None:
            found = blake2b(digest_size=VECTOR_BYTES)
            for (author, generation), part in sorted(self.parts.items()):
                found.update(f"{author} {generation} {part.clock}\n".encode())
            self._vector = found.digest()
        content = sum(part.content for part in self.parts.values()) % _SUM
        return DocumentDigest(self.name, self._vector, content.to_bytes(CONTENT_BYTES, "big"))

    def statistics(self) -> Statistics:
        """How large it is."""
        parts = self.parts.values()
        return Statistics(
            self.name,
            len(self._holders),
            sum(part.live_bytes for part in parts),
            sum(part.full_bytes for part in parts),
            len({author for author, _ in self.parts}),
            len(self.parts),
            self.quarantined,
        )


def total(digests: Iterable[DocumentDigest]) -> bytes:
    """One hash over several documents, which are told in any order."""
    found = blake2b(digest_size=CONTENT_BYTES)
    for digest in sorted(digests, key=lambda digest: digest.document):
        found.update(digest.document.encode() + b"\0" + digest.vector + digest.content)
    return found.digest()
