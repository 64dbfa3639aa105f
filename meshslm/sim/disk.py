"""A simulated disk under a simulated journal: what was not synced when the machine died is gone.

It keeps what `adapters.sqlite_journal` keeps, and promises the same: what one `Persist` holds is
durable together or not at all, in order, and is answered once it is.

Rules:
- A crash keeps all that was answered, and of the rest any beginning that the chance draws.
- A reader sees what was given before it, synced or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from meshslm import state_limits
from meshslm.chance import Chance
from meshslm.core.state_events import (
    DeltasRead,
    PartReloaded,
    Persist,
    ReadDeltas,
    ReloadPart,
    StatePersisted,
    StoredDelta,
    StoredPart,
    StoredSnapshot,
)
from meshslm.state.part import PartKey


class Disk:
    """One machine's journal."""

    def __init__(self) -> None:
        self._deltas: dict[PartKey, dict[int, StoredDelta]] = {}
        self._snapshots: dict[PartKey, StoredSnapshot] = {}
        self._unsynced: deque[Persist] = deque()
        self._forgotten: dict[tuple[str, str], PartKey] = {}

    def write(self, effect: Persist) -> None:
        """Take what is to be durable; it is not yet."""
        self._unsynced.append(effect)

    def sync(self, number: int) -> StatePersisted:
        """Everything up to a number is durable now."""
        while self._unsynced and self._unsynced[0].number <= number:
            self._take(self._unsynced.popleft())
        return StatePersisted(number)

    def crash(self, chance: Chance) -> None:
        """The machine is dead."""
        for _ in range(chance.below(len(self._unsynced) + 1)):
            self._take(self._unsynced.popleft())
        self._unsynced.clear()

    def wipe(self) -> None:
        """A new disk."""
        self.restore(())

    def restore(self, parts: tuple[StoredPart, ...]) -> None:
        """An old backup is put in place of what was there."""
        self._unsynced.clear()
        self._forgotten = {}
        self._deltas = {part.part: {d.before: d for d in part.deltas} for part in parts}
        self._snapshots = {p.part: p.snapshot for p in parts if p.snapshot is not None}

    def parts(self) -> tuple[StoredPart, ...]:
        """What a start finds."""
        assert not self._unsynced, "a start comes after a stop or a crash"
        return tuple(self.stored(key) for key in sorted({**self._deltas, **self._snapshots}))

    def forgotten(self) -> tuple[PartKey, ...]:
        """What is remembered as given up."""
        return tuple(self._forgotten[name] for name in sorted(self._forgotten))

    def read(self, effect: ReadDeltas) -> DeltasRead:
        """Answer a reader."""
        kept = self._whole().kept(effect.part)
        found: list[StoredDelta] = []
        size = 0
        for _, delta in sorted(kept.items()):
            if delta.after <= effect.clock:
                continue
            full = len(found) >= state_limits.STATE_SYNC_DELTAS
            if found and (full or size + len(delta.signed.payload) > effect.most_bytes):
                return DeltasRead(effect.request, tuple(found), more=True)
            found.append(delta)
            size += len(delta.signed.payload)
        return DeltasRead(effect.request, tuple(found))

    def reload(self, effect: ReloadPart) -> PartReloaded:
        """Read all of a part again."""
        return PartReloaded(self._whole().stored(effect.part))

    def clocks(self) -> dict[PartKey, int]:
        """How much of each part is durable."""
        return {part.part: _end(part) for part in self._durable_parts()}

    def _durable_parts(self) -> Iterable[StoredPart]:
        return (self.stored(key) for key in sorted(self._deltas))

    def _whole(self) -> Disk:
        """With what is not synced yet."""
        if not self._unsynced:
            return self
        whole = Disk()
        whole._deltas = {key: dict(deltas) for key, deltas in self._deltas.items()}
        whole._snapshots = dict(self._snapshots)
        for effect in self._unsynced:
            whole._take(effect)
        return whole

    def _take(self, effect: Persist) -> None:
        for delta in effect.deltas:
            self._deltas.setdefault(delta.part, {})[delta.before] = delta
        for snapshot in effect.snapshots:
            self._snapshots[snapshot.part] = snapshot
        for key in effect.dropped:
            self._deltas.pop(key, None)
            self._snapshots.pop(key, None)
        for key in effect.forgotten:
            self._forgotten[key.document, key.author] = key

    def kept(self, key: PartKey) -> dict[int, StoredDelta]:
        """Deltas of a part that are durable, by where they begin."""
        return self._deltas.get(key, {})

    def stored(self, key: PartKey) -> StoredPart:
        """A part as far as it is durable."""
        snapshot = self._snapshots.get(key)
        begin = snapshot.clock if snapshot is not None else 0
        deltas = (d for _, d in sorted(self._deltas.get(key, {}).items()))
        return StoredPart(key, snapshot, tuple(d for d in deltas if d.before >= begin))


def _end(part: StoredPart) -> int:
    if part.deltas:
        return part.deltas[-1].after
    return part.snapshot.clock if part.snapshot is not None else 0
