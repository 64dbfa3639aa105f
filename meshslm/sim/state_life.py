"""What a daemon does beside its core, played for simulated nodes with documents.

The core is told what day it is, writes its entry of the registry, and counts what it was used for,
because a daemon has it do so. Here the same decisions (`core.registry.due`, `DayIs`) are taken at
the same pace, by a wall clock that the world owns; and some nodes keep the log of decisions.

Rules:
- Each node looks at its own moments, drawn by chance; so replicas never change all at once.
- Days pass by order, all clocks alike: what happens in a day is not played through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshslm.core.chronicle import DAY_MS, day_of
from meshslm.core.consensus.events import DecisionMade, DecisionWanted, LogPersisted, PersistLog
from meshslm.core.registry import REGISTRY, due, facts_of
from meshslm.core.state_events import DayIs
from meshslm.ids import MICROSECONDS_PER_MS
from meshslm.sim.consensus_machine import Disk as LogDisk
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.scenario import Network
from meshslm.sim.state_run import StateRun, core_of
from meshslm.state.names import DocumentClass, named
from meshslm.wire.consensus import Command

LOOK_S = 2.0
"""Between two looks at whether the registry wants to be told something, as in the daemon."""

DAY_S = 5.0
"""Between two words on what day it is: an hour in the daemon, and here days are short."""

BEGIN_MS = 1_800_000_000_000
"""The wall clock when a world begins: 15 January 2027."""


class LivingRun(StateRun):
    """A mesh with documents whose nodes do all that daemons do with them."""

    def __init__(
        self,
        nodes: int,
        seed: int,
        network: Network | None = None,
        check_every: int = 16,
        coordinators: int = 0,
    ) -> None:
        super().__init__(nodes, seed, network, check_every)
        self._moments = self.chance.fork("moments")
        self._passed_ms = 0
        self._asked = 0
        self._answers: dict[int, Callable[[DecisionMade], None]] = {}
        self._logs = {node.index: LogDisk(node.index + 1) for node in self.nodes[:coordinators]}
        self.world.also(PersistLog, self._persist_log)
        self.world.also(DecisionMade, self._decided)

    # --- time -----------------------------------------------------------------------------------
    @property
    def unix_ms(self) -> int:
        """What every node's wall clock says."""
        return BEGIN_MS + self.world.now // MICROSECONDS_PER_MS + self._passed_ms

    @property
    def today(self) -> str:
        """The day of it."""
        return day_of(self.unix_ms)

    def days_pass(self, days: int) -> None:
        """So many days are over; each node hears of it at its next look."""
        self._passed_ms += days * DAY_MS

    # --- what daemons do ------------------------------------------------------------------------
    def booted(self, node: SimNode) -> None:
        """A process begins, with all that runs beside its core."""
        super().booted(node)
        log = self._logs.get(node.index)
        if log is not None:
            founds = node.index == 0 and not log.group
            self.world.tell(node, replace(log.recovered(), founding=founds))
        self._again(node, LOOK_S, self._register)
        self._again(node, DAY_S, lambda of: self.world.tell(of, DayIs(self.unix_ms)))

    def _again(self, node: SimNode, every_s: float, do: Callable[[SimNode], None]) -> None:
        """Do something for a process every so often, as long as it lives."""

        def act() -> None:
            if node.living:
                do(node)
            self.world.call(self.world.now + int(every_s * SECOND), act, node.life)

        first = int(self._moments.unit() * every_s * SECOND)
        self.world.call(self.world.now + first, act, node.life)

    def _register(self, node: SimNode) -> None:
        core = core_of(node)
        if core.documents.ready:
            change = due(core.documents, node.id, facts_of(core.announced()), self.unix_ms)
            if change is not None:
                self.write(node, REGISTRY, change.key, change.value, self.unix_ms)

    def use(self, node: SimNode, count: int) -> None:
        """A node counts what it was used for today."""
        name = named(DocumentClass.LEDGER, self.today)
        self.write(node, name, f"tenant/model/{node.boot}", b'{"requests":%d}' % count)

    # --- decisions ------------------------------------------------------------------------------
    def decide(self, node: SimNode, command: Command, then: Callable[[DecisionMade], None]) -> None:
        """Somebody at a node wants something decided."""
        self._asked += 1
        self._answers[self._asked] = then
        self.world.tell(node, DecisionWanted(self._asked, command))

    def _decided(self, _node: SimNode, effect: DecisionMade) -> None:
        self._answers.pop(effect.number)(effect)

    def _persist_log(self, node: SimNode, effect: PersistLog) -> None:
        def written() -> None:
            self._logs[node.index].write(effect)
            self.world.tell(node, LogPersisted(effect.number))

        self.world.flushed(node, written)
