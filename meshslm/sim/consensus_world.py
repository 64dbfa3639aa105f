"""A few coordinators on one heap: their network, clocks and disks fail, and clients want decisions.

Production's `Coordination` is driven, down to the codec. It has a world of its own because it wants
other faults than a mesh: disks that lose what was not synced, and elections by the thousand.

Rules:
- The same seed gives the same run.
- A disk writes in order. A crash loses what was not yet written, all of it or the end of it.
- What is judged is judged by `consensus_checks`, which knows nothing of the machine's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from types import SimpleNamespace

from meshslm.chance import Chance
from meshslm.core.consensus.coordination import Coordination
from meshslm.core.consensus.events import (
    DecisionMade,
    DecisionWanted,
    LogPersisted,
    PersistLog,
)
from meshslm.core.consensus.timing import Timing
from meshslm.core.events import Send, StartTimer, StopTimer
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId
from meshslm.sim.consensus_checks import Judge
from meshslm.sim.consensus_harm import Trouble
from meshslm.sim.consensus_history import History
from meshslm.sim.consensus_machine import MS, Disk, Harm, Machine
from meshslm.wire.codec import decode
from meshslm.wire.consensus import Command, Configuration, Entry, Seat

SECOND = 1_000_000
GROUP = "0" * 32


class ConsensusWorld:
    """A run of one seed."""

    def __init__(
        self,
        seed: int,
        harm: Harm,
        kind: type[Coordination] = Coordination,
        timing: Timing | None = None,
    ) -> None:
        self._chance = Chance.from_int(seed).fork("consensus")
        self._kind = kind
        self._harm = harm
        self.now = 0
        self.count = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self.timing = timing or Timing(
            log_entries=12, append_entries=self._chance.pick((1, 4)), part_bytes=400
        )
        self.judge = Judge()
        self.history = History()
        self.cut: dict[tuple[NodeId, NodeId], int] = {}
        self.healed = False
        size = self._chance.pick((3, 3, 5))
        spare = 2 if harm.seats else 0
        names = [NodeId(f"c{number}") for number in range(size + spare)]
        seats = tuple(Seat(name, number + 1) for number, name in enumerate(names[:size]))
        first = Entry(1, 1, None, Configuration(seats))
        self.machines: dict[NodeId, Machine] = {}
        for number, name in enumerate(names):
            disk = Disk(number + 1)
            if number < size:
                disk.group, disk.term, disk.entries = GROUP, 1, {1: first}
            self.machines[name] = Machine(name, disk, self._chance.fork(name))
        self.trouble = Trouble(self, harm, self._chance)
        self.events = 0

    # --- the heap -------------------------------------------------------------------------------
    def at(self, delay_us: float, do: Callable[[], None]) -> None:
        """Do something later."""
        self.count += 1
        heappush(self._heap, (self.now + max(0, int(delay_us)), self.count, do))

    def run(self) -> None:
        """The whole run. Raises `AssertionError` where a law is broken."""
        for machine in self.machines.values():
            self.start(machine)
            self.trouble.change_clock(machine)
            self.at(self._chance.between(0, SECOND), partial(self._act, machine))
        self.at(self._harm.every_ms * MS, self.trouble.again)
        end = int(self._harm.seconds * SECOND)
        self._until(end)
        self._heal()
        self._until(end + 3 * SECOND)
        self._finish()

    def _until(self, end: int) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, do = heappop(self._heap)
            self.events += 1
            do()
        self.now = end

    # --- a machine ------------------------------------------------------------------------------
    def start(self, machine: Machine) -> None:
        """A process begins, with what is on its disk."""
        machine.life += 1
        machine.up = True
        machine.out = Outbox()
        machine.timers = {}
        machine.core = self._kind(
            machine.node,
            machine.out,
            machine.chance.fork(f"life {machine.life}"),
            members=lambda: self.reached_from(machine.node),
            may=lambda _: True,
            voters=0,
            timing=self.timing,
        )
        self.handle(machine, machine.disk.recovered())

    def reached_from(self, node: NodeId) -> list[NodeId]:
        """Whom a node takes for alive: that a link is cut it does not know yet."""
        return [o for o, machine in self.machines.items() if o != node and machine.up]

    def _is_cut(self, a: NodeId, b: NodeId) -> bool:
        return self.cut.get((a, b), 0) > self.now

    def crash(self, machine: Machine) -> None:
        """The process ends; of what was being written an end may be lost."""
        machine.up = False
        machine.life += 1
        machine.core = None
        disk = machine.disk
        kept = self._chance.below(len(disk.unwritten) + 1)
        for effect in disk.unwritten[:kept]:
            disk.write(effect)
        disk.unwritten.clear()
        self.judge.gone(machine.node)
        for end in list(machine.wanted.values()):
            end(None)
        machine.wanted.clear()

    def _local(self, machine: Machine) -> Instant:
        return machine.clock.read(self.now)

    def handle(self, machine: Machine, event: object) -> None:
        """Hand an event to a machine and do what follows."""
        core = machine.core
        assert core is not None, "it is up"
        now = self._local(machine)
        core.event_handlers()[type(event)](event, now)
        self._perform(machine)

    def _perform(self, machine: Machine) -> None:
        core = machine.core
        assert core is not None, "it is up"
        for effect in machine.out.take():
            match effect:
                case Send():
                    self._send(machine.node, effect)
                case StartTimer():
                    self._start_timer(machine, effect)
                case StopTimer():
                    machine.timers.pop(effect.key, None)
                case PersistLog():
                    self._persist(machine, effect)
                case DecisionMade():
                    self._decided(machine, effect)
                case _:
                    pass
        if self.events % 8 == 0:
            core.check()
        if core.raft is not None:
            led = self.judge.elections
            self.judge.look(machine.node, core.raft)
            if self.judge.elections > led and self._chance.unit() < self._harm.short:
                self.trouble.leads(machine)

    def _start_timer(self, machine: Machine, effect: StartTimer) -> None:
        machine.timers[effect.key] = effect.generation
        life = machine.life

        def fire() -> None:
            if machine.life == life and machine.timers.get(effect.key) == effect.generation:
                del machine.timers[effect.key]
                if machine.out.timer_is_current(effect.key, effect.generation):
                    assert machine.core is not None, "it is up"
                    handler = machine.core.timer_handlers()[effect.key.kind]
                    handler(effect.key.subject, self._local(machine))
                    self._perform(machine)

        self.at(machine.clock.wait(effect.after_ms * MS), fire)

    def _persist(self, machine: Machine, effect: PersistLog) -> None:
        machine.disk.unwritten.append(effect)
        life = machine.life

        def written() -> None:
            disk = machine.disk
            if machine.life != life or effect not in disk.unwritten:
                return
            while disk.unwritten and disk.unwritten[0].number <= effect.number:
                disk.write(disk.unwritten.pop(0))
            self.handle(machine, LogPersisted(effect.number))

        took_us = self._chance.between(0.1, 2) * machine.disk_ms * MS
        self.at(took_us, written)
        if not self.healed and self._chance.unit() < self._harm.torn:
            self.at(
                self._chance.between(0.5, 1) * took_us, lambda: self.trouble.kill(machine, life)
            )

    # --- the network ----------------------------------------------------------------------------
    def _send(self, sender: NodeId, effect: Send) -> None:
        harm, chance = self._harm, self._chance
        lossy = not self.healed
        copies = 1 + (lossy and chance.unit() < harm.duplicate)
        for _ in range(copies):
            if lossy and chance.unit() < harm.loss:
                continue
            delay_ms = chance.between(0.2, 5)
            if lossy and chance.unit() < harm.slow:
                delay_ms = chance.between(5, 1500 if chance.unit() < 0.15 else 300)
            self.at(delay_ms * MS, lambda: self._arrive(sender, effect.peer, effect.message))

    def _arrive(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        machine = self.machines[to]
        if not machine.up or machine.core is None or self._is_cut(sender, to):
            return
        message = decode(data)
        handler = machine.core.message_handlers()[type(message)]
        handler(SimpleNamespace(node=sender), message, self._local(machine))
        self._perform(machine)

    # --- clients --------------------------------------------------------------------------------
    def _act(self, machine: Machine) -> None:
        """One client on each machine wants one thing after the other."""
        again_ms = machine.chance.between(5, 200)

        def again() -> None:
            self.at(again_ms * MS, lambda: self._act(machine))

        if machine.up:
            self.ask(machine, *self._wish(machine), again)
        else:
            again()

    def ask(
        self,
        machine: Machine,
        command: Command | None,
        kind: str,
        subject: str,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Somebody at a machine wants something decided, or to know what is."""
        machine.asked += 1
        note = self.history.begin(machine.node, self.now, command, kind, subject)

        def end(made: DecisionMade | None) -> None:
            self.history.end(note, self.now, made)
            then()

        machine.wanted[machine.asked] = end
        self.handle(machine, DecisionWanted(machine.asked, command, kind, subject))

    def _wish(self, machine: Machine) -> tuple[Command | None, str, str]:
        chance = machine.chance
        if chance.unit() < 0.5:
            subject = chance.pick(("a", "b"))
            if chance.unit() < 0.5:
                return None, "generation", subject
            known = self.history.seen_generation(subject) + chance.pick((0, 0, 0, 1))
            return Command("generation", subject, expected=known, value=machine.node), "", ""
        draw = chance.unit()
        if draw < 0.4:
            return None, "quota", "q"
        if draw < 0.5:
            return Command("quota.set", "q", amount=chance.pick((4, 6))), "", ""
        act = "quota.grant" if draw < 0.8 else "quota.release"
        return Command(act, "q", holder=machine.node, amount=1 + chance.below(2)), "", ""

    def _decided(self, machine: Machine, effect: DecisionMade) -> None:
        end = machine.wanted.pop(effect.number, None)
        if end is not None:
            end(effect)

    # --- the end --------------------------------------------------------------------------------
    def _heal(self) -> None:
        """Everything works from now on."""
        self.healed = True
        self.cut.clear()
        for machine in self.machines.values():
            machine.disk_ms = 2.0
            if not machine.up:
                self.start(machine)
        self.history.healed_at = self.now

    def _finish(self) -> None:
        self.history.stop(self.now)
        self.judge.finish()
        self.history.check()
        able = self._able_to_decide()
        if able:
            assert self.history.decided_since(self.now - SECOND // 2), "it did not recover"

    def _able_to_decide(self) -> bool:
        """Whether a majority of the voters has its disks."""
        newest = max(
            (m.core.raft.durable.log for m in self.machines.values() if m.core and m.core.raft),
            key=lambda log: (log.last_term, log.last_index),
        )
        voters = newest.configuration.voters
        whole = sum(1 for seat in voters if self.machines[seat.node].disk.store == seat.store)
        return whole > len(voters) // 2


def trial(
    seed: int, *, kind: type[Coordination] = Coordination, **changed: float
) -> ConsensusWorld:
    """Run one seed, with another kind of harm for each remainder of seven."""
    harms = (
        Harm(),
        Harm(seats=False),
        Harm(seats=False, loss=0.2, duplicate=0.2, slow=0.3),
        Harm(seats=False, every_ms=120),
        Harm(every_ms=120),
        Harm(seats=False, loss=0, duplicate=0, slow=0, every_ms=150),
        Harm(loss=0.0, duplicate=0.0),
    )
    harm = replace(harms[seed % len(harms)], **changed)  # type: ignore[arg-type]  # its fields
    world = ConsensusWorld(seed, harm, kind)
    world.run()
    return world
