"""Famous bad schedules, which random runs hardly come upon: faults show, and the machine holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshslm.core.consensus.raft import Raft
from tests.sim.planted_coordinators import EarlyChanger, Hurrier, OlderTermCounter
from tests.sim.scripted_coordinators import (
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
