"""A coordinator's machine in the simulator: its disk and its clock outlive its process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshslm.chance import Chance
from meshslm.core.consensus.coordination import Coordination
from meshslm.core.consensus.events import DecisionMade, LogRecovered, PersistLog, Snapshot
from meshslm.core.events import TimerKey
from meshslm.core.outbox import Outbox
from meshslm.ids import NodeId
from meshslm.sim.node import Clock
from meshslm.wire.consensus import Entry

MS = 1000


@dataclass(frozen=True, slots=True)
class Harm:
    """How bad the world is."""

    seconds: float = 4.0
    """Of faults; then all is healed, and what is asked then must be answered."""
    every_ms: float = 250.0
    """Between two faults, about."""
    loss: float = 0.05
    duplicate: float = 0.05
    slow: float = 0.1
    """Share of messages that take up to 300 ms, some 1500, and are overtaken."""
    torn: float = 0.004
    """Share of writes in the middle of which the process is killed."""
    short: float = 0.25
    """Share of leaders that get into trouble as soon as they lead."""
    drift: float = 0.10
    """How much faster or slower than the world a clock runs, at most: two differ by less than the
    third that a lease allows for."""
    seats: bool = True
    """Whether who decides changes."""


@dataclass(slots=True)
class Disk:
    """What one machine has written."""

    store: int
    group: str = ""
    term: int = 0
    vote: NodeId | None = None
    snapshot: Snapshot | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    unwritten: list[PersistLog] = field(default_factory=list)

    def write(self, effect: PersistLog) -> None:
        """Have it, durably."""
        self.group, self.term, self.vote = effect.group, effect.term, effect.vote
        if effect.cut is not None:
            self.entries = {i: e for i, e in self.entries.items() if i < effect.cut}
        if effect.snapshot is not None:
            self.snapshot = effect.snapshot
            last = effect.snapshot.index
            self.entries = {i: e for i, e in self.entries.items() if i > last}
        for entry in effect.entries:
            self.entries[entry.index] = entry

    def recovered(self) -> LogRecovered:
        """What is found after a start."""
        entries = tuple(self.entries[index] for index in sorted(self.entries))
        return LogRecovered(self.store, self.group, self.term, self.vote, self.snapshot, entries)


class Machine:
    """One node: its disk and clock outlive its process."""

    def __init__(self, node: NodeId, disk: Disk, chance: Chance) -> None:
        self.node = node
        self.disk = disk
        self.chance = chance
        self.clock = Clock(chance.below(10**12))
        self.life = 0
        self.up = False
        self.disk_ms = 2.0
        self.out = Outbox()
        self.core: Coordination | None = None
        self.timers: dict[TimerKey, int] = {}
        self.wanted: dict[int, Callable[[DecisionMade | None], None]] = {}
        self.asked = 0
