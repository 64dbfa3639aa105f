"""What one author wrote to one document in one generation: a CRDT document with a single writer.

The only module that knows the CRDT library. Beside the library's document it keeps the live
entries as plain values, from the library's own events, and a sum over them: what two replicas
that hold equally much must agree on.

Why a generation is part of the name: an author that lost its store, or stopped uncleanly, must
never use a client id again under which others may hold what it does not know. It begins a new
generation, and the client id is made of it. So is a rebuild: the same entries without the traces
of what was overwritten, in a new generation that takes the place of the earlier ones.

Rules:
- Nothing reaches `apply` that `check_update` has not accepted, with the clocks it was told.
- Panics of the library are no `Exception`; whatever it raises makes the part `Poisoned`: it is
  thrown away and loaded again from what was stored.
- A transaction never waits, and one owner calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pycrdt import Doc, Map

from meshslm.errors import MeshslmError
from meshslm.ids import NodeId

ROOT = "m"
_SUM = 2**128
_CLIENT_BITS = 53
"""What a client id may have: JavaScript's whole numbers."""
_ENDS = (KeyboardInterrupt, SystemExit, MemoryError)


class Poisoned(MeshslmError):
    """The library failed in the middle of a change; the part in memory is of no use any more."""


@dataclass(frozen=True, slots=True, order=True)
class PartKey:
    """Names a part."""

    document: str
    author: NodeId
    generation: int


def client_id(key: PartKey) -> int:
    """The client id of a part: whoever knows the part's name knows whose it must be."""
    text = f"{key.author}\0{key.document}\0{key.generation}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> (64 - _CLIENT_BITS)


class Part:
    """One part, in memory."""

    __slots__ = (
        "_changed",
        "_client",
        "_doc",
        "_keep",
        "_map",
        "_salt",
        "_updates",
        "base",
        "clock",
        "content",
        "full_bytes",
        "key",
        "live",
        "live_bytes",
        "sealed",
    )

    def __init__(self, key: PartKey) -> None:
        self.key = key
        self.clock = 0
        self.base = False
        """It has all that its author's earlier generations have."""
        self.sealed = False
        """Nothing may follow."""
        self.live: dict[str, bytes] = {}
        """Entries by key, packed."""
        self.live_bytes = 0
        self.full_bytes = 0
        """What all its updates take together, as they are stored and handed on."""
        self.content = 0
        self._client = client_id(key)
        self._salt = blake2b(f"{key.author}\0{key.generation}".encode(), digest_size=16).digest()
        self._updates: list[bytes] = []
        self._changed: dict[str, bytes] = {}
        self._watch(Doc(client_id=self._client))

    def _watch(self, doc: Doc[Any]) -> None:
        self._doc = doc
        self._map: Map[bytes] = doc.get(ROOT, type=Map)
        self._keep = (self._map.observe(self._observe), self._doc.observe(self._note))

    @property
    def client(self) -> int:
        """The id under which its author writes."""
        return self._client

    def _observe(self, event: Any) -> None:
        for key, change in event.keys.items():
            self._changed[key] = bytes(change["newValue"])

    def _note(self, event: Any) -> None:
        self._updates.append(event.update)

    # --- changing -------------------------------------------------------------------------------
    def write(self, changes: Mapping[str, bytes]) -> bytes:
        """Set packed entries, at least one; the update for others. Raises `Poisoned`."""
        with self._guarded(), self._doc.transaction():
            for key, packed in changes.items():
                self._map[key] = packed
        self.clock += len(changes)
        self._take_changes()
        (update,) = self._updates
        self._updates.clear()
        self.full_bytes += len(update)
        return update

    def apply(self, update: bytes, after: int) -> tuple[str, ...]:
        """Take an accepted update up to clock `after`; the keys that changed, sorted.

        Raises `Poisoned`, also where a change had no effect: its author wrote over what it had
        written over before.
        """
        with self._guarded():
            self._doc.apply_update(update)
        if len(self._changed) != after - self.clock:
            raise Poisoned(f"{self.key}: {after - self.clock} changes changed {len(self._changed)}")
        self.clock = after
        self.full_bytes += len(update)
        self._updates.clear()
        return self._take_changes()

    def _take_changes(self) -> tuple[str, ...]:
        changed, self._changed = self._changed, {}
        for key, packed in changed.items():
            old = self.live.get(key)
            if old is not None:
                self.content -= self._weight(key, old)
                self.live_bytes -= len(key) + len(old)
            self.live[key] = packed
            self.content += self._weight(key, packed)
            self.live_bytes += len(key) + len(packed)
        self.content %= _SUM
        return tuple(sorted(changed))

    def _weight(self, key: str, packed: bytes) -> int:
        text = key.encode()
        digest = blake2b(len(text).to_bytes(2, "big"), key=self._salt, digest_size=16)
        digest.update(text)
        digest.update(packed)
        return int.from_bytes(digest.digest(), "big")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except _ENDS:
            raise
        except BaseException as error:
            raise Poisoned(f"{self.key}: {type(error).__name__}: {error}") from error

    # --- storing --------------------------------------------------------------------------------
    def snapshot(self) -> bytes:
        """The library's whole state, for this node's own store. Raises `Poisoned`."""
        with self._guarded():
            return self._doc.get_update()

    def load(self, snapshot: bytes, clock: int, content: int) -> None:
        """Begin from a snapshot of this node's own store, and the sum that it had.

        Raises `Poisoned`.
        """
        with self._guarded():
            fresh: Doc[Any] = Doc(client_id=self._client)
            fresh.apply_update(snapshot)
            entries: dict[str, Any] = fresh.get(ROOT, type=Map).to_py() or {}
            self._watch(fresh)
        self.clock = clock
        self.content = content
        self.live = {key: bytes(value) for key, value in entries.items()}
        self.live_bytes = sum(map(len, self.live)) + sum(map(len, self.live.values()))

    def recomputed(self) -> int:
        """The sum over what the library holds, from scratch. Raises `Poisoned`."""
        with self._guarded():
            entries: dict[str, Any] = self._map.to_py() or {}
        return sum(self._weight(key, bytes(value)) for key, value in entries.items()) % _SUM
