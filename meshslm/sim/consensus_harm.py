"""What befalls coordinators: kills, cuts, slow disks, wrong clocks, and orders at bad moments.

Aimed where consensus is known to be delicate: at leaders as soon as they lead or while they think
that they do, in the middle of writes, and while who decides changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshslm.chance import Chance
from meshslm.core.consensus.events import SeatOrdered
from meshslm.ids import NodeId
from meshslm.sim.consensus_machine import MS, Disk, Harm, Machine

if TYPE_CHECKING:
    from meshslm.sim.consensus_world import ConsensusWorld

NOBODY = NodeId("")


class Trouble:
    """One thing after the other happens to a world."""

    def __init__(self, world: ConsensusWorld, harm: Harm, chance: Chance) -> None:
        self._world = world
        self._harm = harm
        self._chance = chance

    def again(self) -> None:
        """Let something happen, and the next thing a while later."""
        if self._world.healed:
            return
        chance = self._chance
        harms: list[Callable[[], None]] = [self.kill, self._part, self._mute, self._clock]
        harms += [self._slow_disk, self._transfer]
        harms += [lambda: self._cut_off(self._machine())] * 3
        if self._harm.seats:
            harms += [self._reseat] * 4 + [self._lose_disk]
        chance.pick(harms)()
        self._world.at(chance.between(0.2, 1.8) * self._harm.every_ms * MS, self.again)

    def _machine(self) -> Machine:
        """Often the leader: what happens to it is what matters."""
        leaders = self._leaders()
        if leaders and self._chance.unit() < 0.5:
            return self._chance.pick(leaders)
        return self._chance.pick(list(self._world.machines.values()))

    def _leaders(self) -> list[Machine]:
        return [
            m
            for m in self._world.machines.values()
            if m.core is not None and m.core.raft is not None and m.core.raft.leading is not None
        ]

    def kill(self, machine: Machine | None = None, life: int | None = None) -> None:
        """End a process, of this life if one is named, and start it again soon."""
        machine = machine or self._machine()
        if machine.up and not self._world.healed and life in (None, machine.life):
            self._world.crash(machine)
            self._restart_later(machine)

    def leads(self, leader: Machine) -> None:
        """A new leader is cut off, or killed, while its first entries are on their way."""
        self._world.at(
            self._chance.between(0, 25) * MS,
            lambda: self._chance.pick((self.kill, self._cut_off))(leader),
        )

    def _cut_off(self, machine: Machine) -> None:
        """One, perhaps with one other, hears nobody else for a while."""
        others = [node for node in self._world.machines if node != machine.node]
        friend = self._chance.pick([*others, machine.node])
        until = self._world.now + int(self._chance.between(300, 2000) * MS)
        self._look_often(machine)
        for a in (machine.node, friend):
            for b in others:
                if b != friend and not self._world.healed:
                    self._world.cut[a, b] = self._world.cut[b, a] = until

    def _restart_later(self, machine: Machine) -> None:
        life = machine.life

        def again() -> None:
            if machine.life == life and not machine.up:
                self._world.start(machine)

        self._world.at(self._chance.pick((1, 50, 300, 900)) * MS, again)

    def _part(self) -> None:
        """Two sides do not hear each other for a while."""
        there = self._chance.shuffled(list(self._world.machines))
        side = there[: 1 + self._chance.below(len(there) - 1)]
        until = self._world.now + int(self._chance.between(100, 1800) * MS)
        for a in there:
            for b in there:
                if (a in side) != (b in side):
                    self._world.cut[a, b] = until

    def _mute(self) -> None:
        """One is not heard, or hears nobody, for a while."""
        machine, heard = self._machine(), self._chance.unit() < 0.5
        until = self._world.now + int(self._chance.between(100, 1500) * MS)
        for other in self._world.machines:
            self._world.cut[(machine.node, other) if heard else (other, machine.node)] = until

    def _clock(self) -> None:
        self.change_clock(self._machine())

    def change_clock(self, machine: Machine) -> None:
        """Have a clock run faster or slower than before."""
        drift = self._harm.drift
        machine.clock.change(self._world.now, rate=self._chance.between(1 - drift, 1 + drift))

    def _slow_disk(self) -> None:
        self._machine().disk_ms = self._chance.pick((0.1, 2.0, 20.0, 150.0))

    def _order(self, order: str, node: NodeId = NOBODY) -> None:
        leaders = self._leaders()
        if leaders:
            machine = self._chance.pick(leaders)
            self._world.handle(machine, SeatOrdered(0, order, node))

    def _transfer(self) -> None:
        self._order("transfer")

    def _reseat(self) -> None:
        order = self._chance.pick(("add", "add", "remove"))
        self._order(order, self._chance.pick(list(self._world.machines)))

    def _lose_disk(self) -> None:
        """A machine comes back with an empty disk: too many of them at once, and nothing helps."""
        lost = [m for m in self._world.machines.values() if m.disk.store >= 1000]
        machine = self._machine()
        if machine.up and not lost:
            self._world.crash(machine)
            machine.disk = Disk(1000 + self._world.count)
            self._restart_later(machine)

    def _look_often(self, machine: Machine) -> None:
        """Somebody at this machine asks again and again what is decided."""
        for turn in range(16):
            subject = machine.chance.pick(("a", "b"))

            def look(subject: str = subject) -> None:
                if machine.up and not self._world.healed:
                    self._world.ask(machine, None, "generation", subject)

            self._world.at((500 + 50 * turn) * MS, look)
