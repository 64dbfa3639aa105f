"""More than there is room for: told at once, with an honest time, background work first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import FailTask, RunEnded, RunProduced, StartRun, TaskArrived
from meshslm.errors import FaultCode
from meshslm.ids import TaskId
from meshslm.wire.messages import ChatMessage, Chunk, TaskRequest, Timings, Usage
from tests.core.mesh import SLOTS, Mesh, specialist

BOUND = 4
ROOM = SLOTS + limits.RUN_AHEAD + BOUND
"""Given to the engine at once, and waiting."""


@pytest.fixture
def lone() -> Mesh:
    """A node whose queue has four places."""
    mesh = Mesh()
    mesh.add("a", specialist("coder", "code"), queue_per_engine=BOUND)
    return mesh


def ask(mesh: Mesh, task: str, priority: str = "interactive", at: str = "a") -> FailTask | None:
    """A new task; its failure, where it fails at once."""
    before = len(mesh.effects(at, FailTask))
    request = TaskRequest("coder", (ChatMessage("user", "hello"),), priority=priority)
    mesh.give(at, TaskArrived(TaskId(task), request))
    return next((f for f in mesh.effects(at, FailTask)[before:] if f.task == task), None)


def end_all(mesh: Mesh, node: str = "a", done: int = 0) -> int:
    """End what runs; how many have ended by then."""
    runs = [effect.run for effect in mesh.effects(node, StartRun)]
    for run in runs[done:]:
        mesh.give(node, RunProduced(run, Chunk(0, (1,), "x", finish="stop")))
        mesh.give(node, RunEnded(run, Usage(1, 1), Timings()))
    return len(runs)


def fill(mesh: Mesh, priority: str = "interactive") -> None:
    for number in range(ROOM):
        assert ask(mesh, f"{priority}-{number}", priority) is None


def test_past_the_bound_it_is_refused_with_a_time(lone: Mesh) -> None:
    fill(lone)
    refused = ask(lone, "late")
    assert refused is not None
    assert refused.code is FaultCode.OVERLOADED
    assert refused.retry_after_ms > 0


@given(st.integers(50, 5000))
@settings(max_examples=20)
def test_the_time_is_the_one_in_which_a_place_gets_free(run_ms: int) -> None:
    mesh = Mesh()
    mesh.add("a", specialist("coder", "code"), queue_per_engine=BOUND)
    done = 0
    for turn in range(12):  # until it knows how long its runs take
        for number in range(SLOTS):
            ask(mesh, f"known-{turn}-{number}")
        mesh.pass_time(run_ms)
        done = end_all(mesh, done=done)
    fill(mesh)
    refused = ask(mesh, "late")
    assert refused is not None
    honest = run_ms / SLOTS
    assert refused.retry_after_ms <= max(250, 1.6 * honest + 1)
    assert refused.retry_after_ms >= min(250, 0.9 * honest)


def test_background_work_makes_room_for_interactive(lone: Mesh) -> None:
    fill(lone, "background")
    assert ask(lone, "urgent") is None
    (shed,) = lone.effects("a", FailTask)
    assert shed.task == f"background-{ROOM - 1}", "who came last goes first"
    assert shed.code is FaultCode.OVERLOADED
    assert shed.retry_after_ms > 0


def test_background_work_makes_no_room_for_its_like(lone: Mesh) -> None:
    fill(lone, "background")
    refused = ask(lone, "more", "background")
    assert refused is not None
    assert refused.code is FaultCode.OVERLOADED
    assert [f.task for f in lone.effects("a", FailTask)] == ["more"]


def test_when_all_background_work_is_gone_interactive_work_is_refused(lone: Mesh) -> None:
    fill(lone, "background")
    waiting = [ask(lone, f"urgent-{number}") for number in range(ROOM + 1)]
    refused = [fault for fault in waiting if fault is not None]
    assert refused
    assert all(fault.code is FaultCode.OVERLOADED for fault in refused)


def test_what_is_shed_for_a_peer_is_told_to_it(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"), queue_per_engine=BOUND)
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    for number in range(ROOM):
        assert ask(mesh, f"background-{number}", "background") is None
    assert ask(mesh, "urgent", at="b") is None
    (shed,) = mesh.effects("a", FailTask)
    assert shed.code is FaultCode.OVERLOADED
    assert shed.retry_after_ms > 0


def test_nothing_waits_without_a_deadline(lone: Mesh) -> None:
    fill(lone)
    assert TaskRequest("coder").deadline_ms == limits.DEADLINE_MS
    lone.pass_time(limits.DEADLINE_MS + 1000)
    assert len(lone.effects("a", FailTask)) == ROOM
