"""A second node is asked where the first is late; one of the two answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import (
    EmitChunk,
    EngineReady,
    FailTask,
    FinishTask,
    HostingChanged,
    RouteChosen,
    RunEnded,
    RunFailed,
    RunProduced,
    StartRun,
    TaskArrived,
    TaskDropped,
)
from meshslm.core.hedging import Latencies
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Hardware,
    TaskCancel,
    TaskChunk,
    TaskRequest,
    Timings,
    Usage,
)
from meshslm.wire.routing import Routing
from tests.core.mesh import SLOTS, Mesh, specialist

USUAL_MS = 20


def ask(mesh: Mesh, name: str, **fields: object) -> str:
    """Where a new task goes first."""
    before = len(mesh.effects("a", RouteChosen))
    request = TaskRequest("coder", (ChatMessage("user", "tell"),))
    mesh.give("a", TaskArrived(TaskId(name), replace(request, **fields)))  # type: ignore[arg-type] # any field of it
    return mesh.effects("a", RouteChosen)[before].node


def newest(mesh: Mesh, node: str) -> RunId:
    return mesh.effects(node, StartRun)[-1].run


def answer(mesh: Mesh, node: str, run: RunId, text: str = "x") -> None:
    mesh.give(node, RunProduced(run, Chunk(0, (1,), text, finish="stop")))
    mesh.give(node, RunEnded(run, Usage(1, 1), Timings()))


def other(node: str) -> str:
    return "c" if node == "b" else "b"


def learn(mesh: Mesh) -> None:
    """Let A see how long first tokens take."""
    mesh.pass_time(1500)
    for number in range(limits.HEDGE_LEAST):
        node = ask(mesh, f"usual-{number}")
        mesh.pass_time(USUAL_MS)
        answer(mesh, node, newest(mesh, node))


@pytest.fixture
def hedged(mesh: Mesh) -> Mesh:
    """A asks, and knows how long first tokens take; B and C host the same."""
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b", "c"), hedge=0.05)
    learn(mesh)
    return mesh


def counts(mesh: Mesh) -> tuple[int, int]:
    tasks = mesh.boxes[NodeId("a")].core.status(mesh.now).tasks
    return tasks.hedged, tasks.hedges_won


def said(mesh: Mesh, task: str) -> str:
    return "".join(e.chunk.text for e in mesh.effects("a", EmitChunk) if e.task == task)


def test_the_second_wins(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    slow = newest(hedged, first)
    hedged.pass_time(3 * USUAL_MS)
    second = other(first)
    answer(hedged, second, newest(hedged, second), "second")
    assert said(hedged, "t") == "second"
    assert TaskCancel(TaskId("t"), 1) in hedged.seen["a", first]
    answer(hedged, first, slow, "first")
    assert said(hedged, "t") == "second"
    assert counts(hedged) == (1, 1)
    route = hedged.effects("a", RouteChosen)[-1]
    assert (route.node, route.attempt) == (second, 2)
    assert "late" in route.reason


def test_the_first_wins_after_all(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    slow = newest(hedged, first)
    hedged.pass_time(3 * USUAL_MS)
    answer(hedged, first, slow, "first")
    assert said(hedged, "t") == "first"
    assert TaskCancel(TaskId("t"), 2) in hedged.seen["a", other(first)]
    assert counts(hedged) == (1, 0)
    assert hedged.effects("a", RouteChosen)[-1].node == first


def test_who_is_in_time_is_left_alone(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    hedged.pass_time(USUAL_MS - 1)
    answer(hedged, first, newest(hedged, first))
    hedged.pass_time(10 * USUAL_MS)
    assert counts(hedged) == (0, 0)


def test_the_second_is_there_when_the_first_fails(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    slow = newest(hedged, first)
    hedged.pass_time(3 * USUAL_MS)
    hedged.give(first, RunFailed(slow, FaultCode.WORKER_LOST, "killed"))
    second = other(first)
    answer(hedged, second, newest(hedged, second), "second")
    assert said(hedged, "t") == "second"
    assert [f.task for f in hedged.effects("a", FinishTask)].count(TaskId("t")) == 1


def test_the_first_goes_on_when_the_second_is_lost(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    slow = newest(hedged, first)
    hedged.pass_time(3 * USUAL_MS)
    second = other(first)
    hedged.give(second, RunFailed(newest(hedged, second), FaultCode.WORKER_LOST, "killed"))
    answer(hedged, first, slow, "first")
    assert said(hedged, "t") == "first"
    assert not hedged.effects("a", FailTask)


def test_both_stop_when_the_client_leaves(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    hedged.pass_time(3 * USUAL_MS)
    hedged.give("a", TaskDropped(TaskId("t")))
    assert TaskCancel(TaskId("t"), 1) in hedged.seen["a", first]
    assert TaskCancel(TaskId("t"), 2) in hedged.seen["a", other(first)]


def test_an_attempt_after_a_hedge_has_a_number_of_its_own(hedged: Mesh) -> None:
    first = ask(hedged, "t")
    slow = newest(hedged, first)
    hedged.pass_time(3 * USUAL_MS)
    hedged.give(first, RunProduced(slow, Chunk(0, (1,), "one ")))
    hedged.break_link("a", first)
    hedged.pass_time(limits.LINK_GRACE_MS + 1000)
    attempts = [r.attempt for r in hedged.effects("a", RouteChosen) if r.task == "t"]
    assert attempts == [1, 3]


def test_the_budget_bounds_it(hedged: Mesh) -> None:
    """Every request is late; one in twenty may be asked twice, after a few that were saved."""
    for number in range(100):
        first = ask(hedged, f"late-{number}")
        hedged.pass_time(60 * USUAL_MS)
        answer(hedged, first, newest(hedged, first))
    assert 1 <= counts(hedged)[0] <= 0.05 * 120 + 1


@pytest.mark.parametrize("fields", [{"priority": "background"}, {"operation": "embed"}])
def test_what_can_wait_is_not_asked_twice(hedged: Mesh, fields: dict[str, object]) -> None:
    if fields.get("operation"):
        hedged.give("a", TaskArrived(TaskId("t"), TaskRequest("coder", **fields)))  # type: ignore[arg-type] # any field of it
    else:
        ask(hedged, "t", **fields)
    hedged.pass_time(10 * USUAL_MS)
    assert counts(hedged) == (0, 0)


def test_without_a_budget_nobody_is_asked_twice(twins: Mesh) -> None:
    for number in range(limits.HEDGE_LEAST + 1):
        node = ask(twins, f"t{number}")
        twins.pass_time(USUAL_MS)
        answer(twins, node, newest(twins, node))
    ask(twins, "late")
    twins.pass_time(1000)
    assert counts(twins) == (0, 0)


def test_nobody_else_there_is_no_second(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",), hedge=1.0)
    mesh.pass_time(1500)
    for number in range(limits.HEDGE_LEAST + 1):
        ask(mesh, f"t{number}")
        mesh.pass_time(USUAL_MS)
        answer(mesh, "b", newest(mesh, "b"))
    ask(mesh, "late")
    mesh.pass_time(1000)
    assert counts(mesh) == (0, 0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_late_is_what_most_are_not(times: list[float]) -> None:
    known = Latencies()
    for ms in times:
        known.add(("p", 1), ms)
    late, kept = known.late(("p", 1)), times[-limits.HEDGE_SAMPLES :]
    if len(kept) < limits.HEDGE_LEAST:
        assert late is None
    else:
        assert late in kept
        assert sum(ms > late for ms in kept) <= 0.05 * len(kept) + 1
    assert known.late(("p", 2)) is None


@pytest.fixture
def own(mesh: Mesh) -> Mesh:
    """A hosts what B hosts, and knows how long first tokens take."""
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", specialist("coder", "code"), bootstrap=("b",), hedge=0.05)
    learn(mesh)
    return mesh


def test_this_node_is_not_taken_for_lost_where_the_first_fails(own: Mesh) -> None:
    task = "t"
    while ask(own, task, routing=Routing("round-robin")) == "a":
        answer(own, "a", newest(own, "a"))
        task += "t"
    own.pass_time(3 * USUAL_MS)
    mine = newest(own, "a")
    own.break_link("a", "b")
    own.pass_time(2 * limits.ACCEPT_MS)
    answer(own, "a", mine, "mine")
    assert said(own, task) == "mine"
    assert newest(own, "a") == mine


def test_the_second_is_looked_after_although_its_first_item_was_lost(own: Mesh) -> None:
    first = ask(own, "t", routing=Routing("local-first"))
    assert first == "a"
    own.pass_time(3 * USUAL_MS)
    run = newest(own, "b")
    own.filter = lambda _f, _t, m: () if isinstance(m, TaskChunk) and m.seq == 0 else None
    own.give("b", RunProduced(run, Chunk(0, (1,), "one ")))
    own.give("b", RunProduced(run, Chunk(0, (2,), "two")))
    own.filter = lambda _f, _t, _m: None
    own.pass_time(limits.GAP_MS)
    assert said(own, "t") == "one two"


def test_a_late_upstream_is_not_paid_twice(mesh: Mesh) -> None:
    """Who is asked too is somebody else."""
    mesh.add("a", hedge=1.0)
    endpoint = replace(specialist("upstream", model="upstream/big"), digest="")
    mesh.give("a", HostingChanged((), Hardware(), upstream=(endpoint,)))
    mesh.give("a", EngineReady("upstream/big", SLOTS))
    for number in range(limits.HEDGE_LEAST):
        ask(mesh, f"usual-{number}", selector="upstream")
        answer(mesh, "a", newest(mesh, "a"))
    before = len(mesh.effects("a", StartRun))
    ask(mesh, "t", selector="upstream")
    mesh.pass_time(1000)
    assert len(mesh.effects("a", StartRun)) == before + 1
    assert counts(mesh) == (0, 0)


def test_the_time_that_a_failure_took_is_no_time_of_a_first_token(hedged: Mesh) -> None:
    """It would say that later ones are not late."""
    for number in range(limits.HEDGE_LEAST):
        first = ask(hedged, f"failed-{number}", max_tokens=number)
        hedged.pass_time(USUAL_MS - 1)
        hedged.give(first, RunFailed(newest(hedged, first), FaultCode.WORKER_LOST, "killed"))
        hedged.pass_time(USUAL_MS - 1)
        second = hedged.effects("a", RouteChosen)[-1].node
        answer(hedged, second, newest(hedged, second))
    before = counts(hedged)[0]
    ask(hedged, "t")
    hedged.pass_time(USUAL_MS + 1)
    assert counts(hedged)[0] == before + 1
