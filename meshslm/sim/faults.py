"""What goes wrong, and when: a scenario's faults, drawn for one seed and put on the world's heap.

Rules:
- Whoever is hit is drawn when it happens, from those that live then; at least one node is spared.
- A fault undoes only what it did itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatchmethod
from math import log

from meshslm.chance import Chance
from meshslm.core.events import ShutdownRequested
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.scenario import (
    Churn,
    EngineCrash,
    Fault,
    Hang,
    Kill,
    Leave,
    OneWay,
    Partition,
)
from meshslm.sim.world import World

GOODBYE_MS = 2_000
"""Time between the wish that a node shuts down and the end of its process, as a service manager
would grant it at least."""

Changed = Callable[[str], None]
"""Told in words what has just changed in the mesh."""

CrashEngines = Callable[[SimNode, float], None]
"""Lets the engine processes of a node die for so many seconds."""


class Faults:
    """Hits a world with the faults of a scenario."""

    def __init__(
        self, world: World, chance: Chance, changed: Changed, crash_engines: CrashEngines
    ) -> None:
        self._world = world
        self._chance = chance
        self._changed = changed
        self._crash_engines = crash_engines

    def schedule(self, faults: tuple[Fault, ...]) -> None:
        """Put all faults on the heap."""
        for fault in faults:
            self._plan(fault)

    @singledispatchmethod
    def _plan(self, fault: object) -> None:
        raise AssertionError(f"a fault without a plan: {fault}")

    @_plan.register
    def _(self, fault: Kill) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                self._kill(node, silent=fault.silent, back_after_s=fault.back_after_s)

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: Churn) -> None:
        when = fault.from_s
        while True:
            when += -log(1.0 - self._chance.unit()) * fault.every_s
            if when >= fault.to_s:
                return
            silent = self._chance.unit() < fault.silent_share
            self._plan(Kill(at_s=when, back_after_s=fault.down_s, silent=silent))

    @_plan.register
    def _(self, fault: Hang) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                self._world.hang(node)
                self._changed(f"hang of {node.name}")
                self._later(fault.for_s, partial(self._resume, node), node)

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: Leave) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                node.leaving = True
                self._world.tell(node, ShutdownRequested())
                self._changed(f"leave of {node.name}")
                self._later(GOODBYE_MS / 1000, partial(self._left, node, fault), node)

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: Partition) -> None:
        def strike() -> None:
            groups = self._groups(fault.shares)
            self._world.network.split(groups)
            self._at(fault.at_s + fault.for_s, heal)

        def heal() -> None:
            self._world.network.heal()
            self._changed("heal")

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: OneWay) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                self._world.network.mute(node.index, on=True)
                self._at(fault.at_s + fault.for_s, partial(unmute, node))

        def unmute(node: SimNode) -> None:
            self._world.network.mute(node.index, on=False)
            self._changed(f"unmute of {node.name}")

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: EngineCrash) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                self._crash_engines(node, fault.for_s)

        self._at(fault.at_s, strike)

    # --- steps ----------------------------------------------------------------------------------
    def _at(self, when_s: float, action: Callable[[], None]) -> None:
        self._world.call(int(when_s * SECOND), action)

    def _later(self, wait_s: float, action: Callable[[], None], node: SimNode) -> None:
        """Do it unless the node's process has died meanwhile."""
        self._world.call(self._world.now + int(wait_s * SECOND), action, node.life)

    def _victims(self, named: tuple[int, ...], count: int) -> list[SimNode]:
        nodes = self._world.nodes
        living = [node for node in nodes if node.living and not node.leaving]
        if named:
            chosen = [nodes[index] for index in named if nodes[index] in living]
        else:
            chosen = self._chance.shuffled(living)[:count]
        return chosen[: len(living) - 1]

    def _kill(self, node: SimNode, *, silent: bool, back_after_s: float | None) -> None:
        self._world.kill(node, silent=silent)
        self._changed(f"{'power loss' if silent else 'kill'} of {node.name}")
        if back_after_s is not None:
            self._at(self._world.now / SECOND + back_after_s, partial(self._restart, node))

    def _restart(self, node: SimNode) -> None:
        self._world.boot(node)
        self._changed(f"restart of {node.name}")

    def _resume(self, node: SimNode) -> None:
        self._world.resume(node)
        self._changed(f"resume of {node.name}")

    def _left(self, node: SimNode, fault: Leave) -> None:
        self._world.kill(node)
        if fault.back_after_s is not None:
            self._at(self._world.now / SECOND + fault.back_after_s, partial(self._restart, node))

    def _groups(self, shares: tuple[float, ...]) -> list[list[int]]:
        drawn = self._chance.shuffled(range(len(self._world.nodes)))
        groups, total, begin, seen = [], sum(shares), 0, 0.0
        for share in shares:
            seen += share
            end = round(len(drawn) * seen / total)
            groups.append(sorted(drawn[begin:end]))
            begin = end
        return groups
