"""What goes wrong, and when: a scenario's faults, drawn for one seed and put on the world's heap.

Rules:
- Whoever is hit is drawn when it happens, from those that live then; at least one node is spared.
- A fault undoes only what it did itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, singledispatchmethod
from math import log

from meshslm.chance import Chance
from meshslm.core.events import ShutdownRequested
from meshslm.sim.fault_kinds import (
    Busy,
    Churn,
    ClockFault,
    Clog,
    Cut,
    EngineCrash,
    Fault,
    Flap,
    Hang,
    Kill,
    Lasting,
    Leave,
    NatRestart,
    OneWay,
    Partition,
    Rough,
    SlowDisk,
)
from meshslm.sim.node import SECOND, SimNode
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
                self._kill(node, fault)

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: Churn) -> None:
        for when in self._moments(fault.from_s, fault.to_s, fault.every_s, 0.0):
            silent = self._chance.unit() < fault.silent_share
            self._plan(Kill(at_s=when, back_after_s=fault.down_s, silent=silent))

    @_plan.register
    def _(self, fault: Hang) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                self._world.hang(node)
                self._changed(f"hang of {node.name}")
                self._later(fault.for_s, partial(self._resume, node, fault), node)

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
        def unmute(node: SimNode) -> None:
            self._world.network.mute(node.index, on=False)
            self._changed(f"unmute of {node.name}")

        self._lasting(fault, lambda node: self._world.network.mute(node.index, on=True), unmute)

    @_plan.register
    def _(self, fault: Cut) -> None:
        network = self._world.network

        def switch(pairs: list[tuple[int, int]], *, on: bool) -> None:
            for source, target in pairs:
                network.cut(source, target, on=on)
                if not fault.one_way:
                    network.cut(target, source, on=on)
            if not on:
                self._changed("end of a cut")

        def strike() -> None:
            near = self._victims(fault.nodes, fault.count)
            others = [node for node in self._world.nodes if node not in near]
            far = (
                [self._world.nodes[index] for index in fault.from_nodes]
                if fault.from_nodes
                else self._chance.shuffled(others)[: fault.from_count]
            )
            pairs = [(a.index, b.index) for a in near for b in far if a is not b]
            switch(pairs, on=True)
            self._at(fault.at_s + fault.for_s, partial(switch, pairs, on=False))

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: Clog) -> None:
        def clog(node: SimNode) -> None:
            node.line.us_per_byte = 8.0 / fault.bandwidth_mbit

        def clear(node: SimNode) -> None:
            node.line.us_per_byte = self._world.network.line(node.index).us_per_byte
            node.uplink = [min(free, self._world.now) for free in node.uplink]
            self._changed(f"unclogging of {node.name}")

        self._lasting(fault, clog, clear)

    @_plan.register
    def _(self, fault: Rough) -> None:
        delay_us = int(fault.delay_ms * SECOND / 1000)

        def change(node: SimNode, sign: int) -> None:
            line = node.line
            line.loss += sign * fault.loss
            line.duplicate += sign * fault.duplicate
            line.reorder += sign * fault.reorder
            line.delay_us += sign * delay_us
            if sign < 0:
                self._changed(f"smooth line of {node.name}")

        self._lasting(fault, partial(change, sign=1), partial(change, sign=-1))

    @_plan.register
    def _(self, fault: Flap) -> None:
        def silence(node: SimNode, *, on: bool) -> None:
            self._world.network.mute(node.index, on=on)
            self._world.network.deafen(node.index, on=on)
            if not on:
                self._changed(f"end of a silence of {node.name}")

        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                for when in self._moments(fault.from_s, fault.to_s, fault.every_s, fault.down_s):
                    self._at(when, partial(silence, node, on=True))
                    self._at(when + fault.down_s, partial(silence, node, on=False))

        self._at(fault.from_s, strike)

    @_plan.register
    def _(self, fault: Busy) -> None:
        def some_ms() -> float:
            return self._chance.unit() * fault.pause_ms / 1000

        def stop(node: SimNode) -> None:
            if node.busy and node.living:
                self._world.hang(node)
                self._later(some_ms(), partial(go_on, node), node)

        def go_on(node: SimNode) -> None:
            self._world.resume(node)
            self._later(some_ms(), partial(stop, node), node)

        def begin(node: SimNode) -> None:
            node.busy = True
            self._later(some_ms(), partial(stop, node), node)

        def end(node: SimNode) -> None:
            node.busy = False
            self._changed(f"rest of {node.name}")

        self._lasting(fault, begin, end)

    @_plan.register
    def _(self, fault: ClockFault) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                node.clock.change(
                    self._world.now,
                    jump_us=int(fault.jump_s * SECOND),
                    rate=1.0 + fault.drift_ppm / 1e6,
                )
                self._changed(f"wrong clock of {node.name}")

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: SlowDisk) -> None:
        def change(node: SimNode, times: float) -> None:
            node.disk_times *= times

        self._lasting(
            fault, partial(change, times=fault.times), partial(change, times=1.0 / fault.times)
        )

    @_plan.register
    def _(self, fault: EngineCrash) -> None:
        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                self._crash_engines(node, fault.for_s)

        self._at(fault.at_s, strike)

    @_plan.register
    def _(self, fault: NatRestart) -> None:
        network = self._world.network

        def strike() -> None:
            behind = [node for node in self._world.nodes if network.behind(node)]
            drawn = self._chance.shuffled(behind)[: fault.count]
            chosen = [self._world.nodes[index] for index in fault.nodes] or drawn
            for box in chosen:
                for node in network.behind(box):
                    network.forget(node)
                self._changed(f"restart of the box of {box.name}")

        self._at(fault.at_s, strike)

    # --- steps ----------------------------------------------------------------------------------
    def _at(self, when_s: float, action: Callable[[], None]) -> None:
        self._world.call(int(when_s * SECOND), action)

    def _moments(
        self, from_s: float, to_s: float, every_s: float, apart_s: float
    ) -> Iterator[float]:
        """Instants at random, at least so far apart."""
        when = from_s
        while True:
            when += -log(1.0 - self._chance.unit()) * every_s
            if when >= to_s:
                return
            yield when
            when += apart_s

    def _lasting(
        self,
        fault: Lasting,
        begin: Callable[[SimNode], None],
        end: Callable[[SimNode], None],
    ) -> None:
        """Do something to each victim, and undo it after a while, whatever became of it."""

        def strike() -> None:
            for node in self._victims(fault.nodes, fault.count):
                begin(node)
                self._at(fault.at_s + fault.for_s, partial(end, node))

        self._at(fault.at_s, strike)

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

    def _kill(self, node: SimNode, fault: Kill) -> None:
        self._world.kill(node, silent=fault.silent)
        self._changed(f"{'power loss' if fault.silent else 'kill'} of {node.name}")
        if fault.disk_lost:
            self._world.lose_disk(node)
        if fault.back_after_s is not None:
            back_s = self._world.now / SECOND + fault.back_after_s
            self._at(back_s, partial(self._restart, node))

    def _restart(self, node: SimNode) -> None:
        self._world.boot(node)
        self._changed(f"restart of {node.name}")

    def _resume(self, node: SimNode, fault: Hang) -> None:
        if fault.clock_stops:
            node.clock.change(self._world.now, jump_us=-int(fault.for_s * SECOND))
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
