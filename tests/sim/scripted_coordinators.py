"""Coordinators on a stage: nothing happens but what a script says. For tests alone.

Random runs hardly ever come upon the famous schedules, which need a row of exact coincidences; here
they are written down. Disks write at once; messages reach only those that are let talk, and what is
said to anybody else is lost. Everybody's clock shows the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from meshslm.chance import Chance
from meshslm.core.consensus.configuration import with_voter, without
from meshslm.core.consensus.events import PersistLog
from meshslm.core.consensus.leading import Leading
from meshslm.core.consensus.raft import Raft
from meshslm.core.consensus.timing import Timing
from meshslm.ids import Instant, NodeId, after
from meshslm.sim.consensus_checks import Judge
from meshslm.sim.consensus_machine import Disk
from meshslm.wire.consensus import (
    Append,
    BallotReply,
    Command,
    Configuration,
    ConsensusMessage,
    Entry,
    Proposal,
    Seat,
)

GROUP = "0" * 32
Letter = tuple[NodeId, NodeId, ConsensusMessage]


def _never(_message: ConsensusMessage) -> bool:
    return False


class Stage:
    """Machines of one kind, of which the first `voters` vote and the others learn."""

    def __init__(self, kind: type[Raft], voters: int, learners: int = 0) -> None:
        self._kind = kind
        self.now = Instant(0)
        self.judge = Judge()
        self.refused = 0
        """Changes of who decides that the leader would not make."""
        self._mail: list[Letter] = []
        self._late: list[Letter] = []
        self._names = [NodeId(f"s{number}") for number in range(1, voters + learners + 1)]
        seats = tuple(Seat(name, number + 1) for number, name in enumerate(self._names))
        first = Entry(1, 1, None, Configuration(seats[:voters], seats[voters:]))
        self._disks = {seat.node: Disk(seat.store, GROUP, 1, entries={1: first}) for seat in seats}
        self._unwritten: dict[NodeId, list[PersistLog]] = {name: [] for name in self._names}
        self.machines: dict[NodeId, Raft] = {}
        for number in range(1, len(self._names) + 1):
            self.restart(number)

    def of(self, *numbers: int) -> list[NodeId]:
        """The machines with these numbers, counted from 1."""
        return [self._names[number - 1] for number in numbers]

    def restart(self, number: int) -> None:
        """The process ends, and begins again with what is on its disk."""
        (name,) = self.of(number)
        self.judge.gone(name)
        self.machines[name] = self._kind(
            name,
            self._disks[name].recovered(),
            Timing(append_entries=1),
            Chance.from_int(0).fork(name),
            self.now,
            persist=self._unwritten[name].append,
            post=lambda to, message: self._mail.append((name, to, message)),
            applied=lambda _entry, _result: None,
        )

    # --- steps ----------------------------------------------------------------------------------
    def _step(self, name: NodeId, do: Callable[[], None]) -> None:
        """Let a machine do something; its disk writes at once."""
        machine = self.machines[name]
        do()
        machine.settle(self.now)
        self.judge.look(name, machine)
        while self._unwritten[name]:
            effect = self._unwritten[name].pop(0)
            self._disks[name].write(effect)
            machine.persisted(effect.number, self.now)
            self.judge.look(name, machine)
        machine.check()

    def talk(self, *numbers: int, late: Callable[[ConsensusMessage], bool] = _never) -> None:
        """Let these hear each other until they have nothing more to say.

        What is `late` stays on its way until `arrive`; what is said to others is lost.
        """
        self._deliver(self.of(*numbers), late, lambda: False)

    def _deliver(
        self,
        among: list[NodeId],
        late: Callable[[ConsensusMessage], bool],
        enough: Callable[[], bool],
    ) -> None:
        while self._mail and not enough():
            letter = self._mail.pop(0)
            sender, to, message = letter
            if sender in among and to in among:
                if late(message):
                    self._late.append(letter)
                else:
                    self._step(to, partial(self.machines[to].hear, sender, message, self.now))

    def arrive(self) -> None:
        """What was late comes; what it gives rise to is lost."""
        late, self._late = self._late, []
        for sender, to, message in late:
            self._step(to, partial(self.machines[to].hear, sender, message, self.now))
        self._mail.clear()

    def stand(self, number: int) -> None:
        """Time passes, so that nobody holds on to a leader; this one's patience ends first."""
        (name,) = self.of(number)
        machine = self.machines[name]
        self.now = max(after(self.now, 1000), machine.next_wake())
        self._mail.clear()
        self._step(name, partial(machine.wake, self.now))

    def elect(self, number: int, *voters: int) -> None:
        """Have one lead that these vote for; nobody hears of it yet.

        It takes a few tries: to see that nobody follows any more, and to reach the others' term.
        """
        (name,) = self.of(number)
        machine = self.machines[name]
        for _ in range(4):
            self.stand(number)
            self._deliver(self.of(number, *voters), _never, lambda: machine.leading is not None)
            if machine.leading is not None:
                return
        raise RuntimeError(f"{name} was not elected")

    def last_term(self, number: int) -> int:
        """The term of the last entry of the machine with this number."""
        (name,) = self.of(number)
        return self.machines[name].durable.log.last_term

    def leading(self, number: int) -> Leading:
        """What the leader with this number does."""
        (name,) = self.of(number)
        leading = self.machines[name].leading
        assert leading is not None, f"{name} does not lead"
        return leading

    def beat(self, number: int) -> None:
        """A leader's next heartbeat."""
        (name,) = self.of(number)
        self.now = after(self.now, 100)
        self._step(name, partial(self.leading(number).beat, self.now))

    def propose(self, number: int, subject: str) -> None:
        """A client wants something revoked."""
        (name,) = self.of(number)
        proposal = Proposal(subject.rjust(32, "0"), 1, Command("revoke", subject))

        def do() -> None:
            self.leading(number).propose(proposal, self.now)

        self._step(name, do)

    def _change(self, number: int, configuration: Configuration) -> None:
        (name,) = self.of(number)
        leading = self.leading(number)
        if leading.obstacle():
            self.refused += 1
        else:
            self._step(name, partial(leading.change, configuration, self.now))

    def seat(self, number: int, newcomer: int) -> None:
        """Order a leader to give a machine a vote; it may refuse."""
        (leader, node) = self.of(number, newcomer)
        seat = Seat(node, self._disks[node].store)
        self._change(number, with_voter(self.machines[leader].configuration, seat))

    def unseat(self, number: int, gone: int) -> None:
        """Order a leader to take a machine's seat; it may refuse."""
        (leader, node) = self.of(number, gone)
        self._change(number, without(self.machines[leader].configuration, node))

    def agree(self, number: int) -> None:
        """Everybody hears this leader again: what it decides now is decided everywhere."""
        everybody = range(1, len(self._names) + 1)
        self.propose(number, "after all")
        for _ in range(6):
            self.talk(*everybody)
            self.beat(number)
        states = {machine.decided.find("", "") for machine in self.machines.values()}
        assert len(states) == 1
        assert "after all" in {decision.subject for decision in states.pop()}


# --- schedules ----------------------------------------------------------------------------------
def older_term_by_count(stage: Stage) -> int:
    """The Raft paper's figure 8: a majority has an entry of an older term, and still it may go."""
    stage.elect(1, 2, 3)
    stage.talk(1, 2)
    stage.restart(1)
    stage.elect(5, 3, 4)
    stage.restart(5)
    stage.elect(1, 2, 3)
    stage.talk(1, 2)
    stage.beat(1)
    stage.talk(1, 3, late=_is_of_its_own_term)
    assert [stage.last_term(number) for number in (1, 2, 3, 5)] == [4, 4, 2, 3]
    stage.restart(1)
    stage.elect(5, 3, 4)
    return 5


def _is_of_its_own_term(message: ConsensusMessage) -> bool:
    """An entry that was made in the term of the leader that sends it."""
    return isinstance(message, Append) and any(e.term == message.term for e in message.entries)


def two_changes_at_once(stage: Stage) -> int:
    """A majority of five, of which two were taken in at once, and a majority of the three."""
    stage.elect(1, 2, 3)
    stage.talk(1, 2, 3, 4, 5)
    stage.seat(1, 4)
    stage.seat(1, 5)
    stage.talk(1, 4, 5)
    stage.propose(1, "decided by five")
    stage.talk(1, 4, 5)
    stage.elect(2, 3)
    return 2


def change_before_settled(stage: Stage) -> int:
    """Two leaders each change one seat of the same four (Ongaro, raft-dev, 2015)."""
    stage.elect(1, 2, 3, 4)
    stage.talk(1, 2, 3, 4, 5)
    stage.seat(1, 5)
    stage.talk(1, 5)
    stage.elect(2, 3, 4)
    stage.unseat(2, 1)
    stage.talk(2, 3)
    stage.elect(1, 4, 5)
    return 1


def late_votes(stage: Stage) -> int:
    """Votes come when the next term's leader has already committed: who gets them leads nobody."""
    stage.elect(1, 2, 3)
    stage.talk(1, 2)
    stage.restart(1)
    stage.stand(5)
    stage.talk(3, 5)  # from which it learns the term
    stage.stand(5)
    stage.talk(3, 4, 5, late=lambda m: isinstance(m, BallotReply) and not m.pre)
    stage.elect(1, 2, 3)
    stage.talk(1, 2, 3)
    assert stage.leading(1).settled
    stage.arrive()
    assert not stage.leading(5).settled
    return 1
