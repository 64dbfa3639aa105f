"""Famous bad schedules, which random runs hardly come upon: faults show, and the machine holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshslm import mesh_limits
from meshslm.core.consensus.events import Snapshot
from meshslm.core.consensus.raft import Raft
from meshslm.wire.consensus import AppendReply, SnapshotPart
from tests.sim.planted_coordinators import EarlyChanger, Hurrier, OlderTermCounter
from tests.sim.scripted_coordinators import (
    GROUP,
    Stage,
    change_before_settled,
    late_votes,
    older_term_by_count,
    two_changes_at_once,
)

Schedule = Callable[[Stage], int]
SCHEDULES = [
    (older_term_by_count, OlderTermCounter, (5, 0), 0),
    (two_changes_at_once, Hurrier, (3, 2), 1),
    (change_before_settled, EarlyChanger, (4, 1), 1),
]
"""What happens, whom it harms, how many vote and learn, and how many changes are to be refused."""


@pytest.mark.parametrize(("schedule", "fault", "size", "_refused"), SCHEDULES)
def test_a_schedule_brings_the_fault_to_light(
    schedule: Schedule, fault: type[Raft], size: tuple[int, int], _refused: int
) -> None:
    stage = Stage(fault, *size)
    with pytest.raises(AssertionError, match="leader completeness"):
        schedule(stage)
    assert stage.refused == 0


@pytest.mark.parametrize(("schedule", "_fault", "size", "refused"), SCHEDULES)
def test_the_machine_holds(
    schedule: Schedule, _fault: type[Raft], size: tuple[int, int], refused: int
) -> None:
    stage = Stage(Raft, *size)
    leader = schedule(stage)
    assert stage.refused == refused
    stage.agree(leader)


def test_a_leader_of_a_former_term_may_come_late() -> None:
    stage = Stage(Raft, 5)
    stage.agree(late_votes(stage))


def test_who_lies_about_the_parts_that_it_has_is_not_sent_them_again_at_once() -> None:
    """A part follows the acknowledgement of the one before; anything else waits for heartbeats."""
    stage = Stage(Raft, 1, 1)
    stage.elect(1)
    for number in range(4):
        stage.propose(1, f"s{number}")
    leader, learner = stage.of(1, 2)
    machine = stage.machines[leader]
    log, configuration = machine.durable.log, machine.configuration
    size = 5 * mesh_limits.SNAPSHOT_PART_BYTES
    snapshot = Snapshot(machine.commit, log.last_term, configuration, bytes(size))
    machine.durable.compact(snapshot, keep=0)
    machine.settle(stage.now)

    def parts() -> list[int]:
        mail, stage._mail = stage._mail, []
        return [message.offset for _, _, message in mail if isinstance(message, SnapshotPart)]

    def reply(offset: int) -> None:
        store = stage._disks[learner].store
        term, index = machine.durable.term, snapshot.index
        machine.hear(learner, AppendReply(GROUP, term, True, index, 0, store, offset), stage.now)
        machine.settle(stage.now)

    while not parts():
        stage.beat(1)
    one = mesh_limits.SNAPSHOT_PART_BYTES
    reply(one)
    assert parts() == [one]
    for _ in range(300):
        for offset in (0, one, 0, 3 * one, 7, one + 7, size, 0):
            reply(offset)
    assert parts() == []
    beats = 0
    while not (sent := parts()):
        stage.beat(1)
        beats += 1
    assert sent == [0], "who began anew is sent all of it"
    assert beats > 1
    for number in (1, 2, 3, 4, 5, 5):
        reply(number * one)
    assert parts() == [one, 2 * one, 3 * one, 4 * one]
