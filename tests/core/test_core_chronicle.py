"""The journal of tasks and the ledger of what they used, on nodes with real documents."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import state_limits
from meshslm.core.chronicle import (
    DAY_MS,
    Chronicle,
    Sums,
    day_ms,
    day_of,
    history,
    tasks,
    usage,
)
from meshslm.core.events import FailTask, FinishTask, RouteChosen
from meshslm.core.memory import BEHIND
from meshslm.core.state_events import Change, StateWrite, StateWritten
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, TaskId
from meshslm.wire.messages import ChatMessage, TaskRequest, Timings, Usage
from tests.core.state_mesh import StateMesh

NOW = 1_800_000_000_000
DAY = "2027-01-15"
REQUEST = TaskRequest("auto", (ChatMessage("user", "a secret"),), tenant="t1")


def route(task: str, model: str = "m", attempt: int = 1, continued: str = "") -> RouteChosen:
    return RouteChosen(
        TaskId(task), NodeId("n2"), "beta", "p", model, "d", "cheapest", attempt, continued
    )


def finish(task: str, prompt: int = 10, answer: int = 5) -> FinishTask:
    return FinishTask(TaskId(task), Usage(prompt, answer, 3), Timings())


def write(mesh: StateMesh, name: str, chronicle: Chronicle) -> None:
    """Write what a chronicle has into a node's documents."""
    while chronicle.waiting:
        for document, changes in chronicle.take().items():
            mesh.requests += 1
            mesh.give(name, StateWrite(mesh.requests, document, changes, NOW))
            answer = mesh.effects(name, StateWritten)[-1]
            assert answer.code is None, answer.detail


def run(chronicle: Chronicle, task: str, at: int = NOW, *, took: int = 100) -> None:
    chronicle.arrived(TaskId(task), REQUEST, at)
    chronicle.routed(route(task), at + 1)
    chronicle.ended(finish(task), at + took)


def test_a_task_is_told_step_by_step_and_without_its_text() -> None:
    mesh = StateMesh()
    documents = mesh.join("a")
    chronicle = Chronicle(1)
    chronicle.arrived(TaskId("t"), REQUEST, NOW)
    chronicle.routed(route("t"), NOW + 1)
    write(mesh, "a", chronicle)
    assert [event.kind for event in history(documents, "t")] == ["admitted", "routed"]
    chronicle.routed(route("t", attempt=2), NOW + 2)
    chronicle.routed(route("t", attempt=3, continued="tokens"), NOW + 3)
    chronicle.ended(finish("t"), NOW + 50)
    write(mesh, "a", chronicle)
    events = history(documents, "t")
    kinds = [event.kind for event in events]
    assert kinds == ["admitted", "routed", "moved", "continued", "finished"]
    assert events[1].reason == "cheapest"
    assert (events[-1].prompt_tokens, events[-1].completion_tokens) == (10, 5)
    assert all("secret" not in event.text for event in events)
    assert history(documents, "other") == []


def test_texts_are_kept_where_they_are_asked_for() -> None:
    mesh = StateMesh()
    documents = mesh.join("a")
    chronicle = Chronicle(1, texts=True)
    run(chronicle, "t")
    write(mesh, "a", chronicle)
    assert history(documents, "t")[0].text == "a secret"


def test_sums_of_all_nodes_and_lives_are_added() -> None:
    mesh = StateMesh()
    mesh.join("a")
    documents = mesh.join("b", "a")
    mesh.pass_time(2_000)
    for name, boot in (("a", 1), ("a", 2), ("b", 1)):
        chronicle = Chronicle(boot)
        for number in range(3):
            run(chronicle, f"{name}{boot}{number}")
        chronicle.arrived(TaskId("bad"), REQUEST, NOW)
        chronicle.ended(FailTask(TaskId("bad"), FaultCode.DEADLINE, "late"), NOW + 7)
        chronicle.arrived(TaskId("left"), REQUEST, NOW)
        chronicle.dropped(TaskId("left"), NOW + 3)
        write(mesh, name, chronicle)
        mesh.pass_time(1_000)
    rows = {(row.tenant, row.model, row.node): row.sums for row in usage(documents, [DAY])}
    assert rows["t1", "m", NodeId("a")] == Sums(6, 0, 60, 30, 18, 600)
    assert rows["t1", "m", NodeId("b")] == Sums(3, 0, 30, 15, 9, 300)
    assert rows["t1", "", NodeId("a")] == Sums(4, 4, 0, 0, 0, 20)
    assert list(usage(documents, ["2027-01-14"])) == []


def test_the_newest_tasks_come_first() -> None:
    mesh = StateMesh()
    documents = mesh.join("a")
    chronicle = Chronicle(1)
    run(chronicle, "old", NOW - 9 * DAY_MS)
    run(chronicle, "second", NOW)
    run(chronicle, "third", NOW + 5)
    write(mesh, "a", chronicle)
    assert [task for task, _ in tasks(documents)] == ["third", "second", "old"]


def test_what_somebody_else_writes_into_a_ledger_is_passed_over() -> None:
    mesh = StateMesh()
    documents = mesh.join("a")
    bad = (
        Change("no key of ours", b"{}"),
        Change(f"t{BEHIND}m{BEHIND}1", b"not json"),
        Change(f"t{BEHIND}m{BEHIND}4", b'{"x":' + b"[" * 1_500),
        Change(f"t{BEHIND}m{BEHIND}2", b'{"requests": -5}'),
        Change(f"t{BEHIND}m{BEHIND}3", b'{"requests": 1e300}'),
    )
    mesh.give("a", StateWrite(1, f"ledger/{DAY}", bad, NOW))
    mesh.give("a", StateWrite(2, f"journal/{DAY}", (Change("t", b"{}"),), NOW))
    assert list(usage(documents, [DAY])) == []
    assert list(tasks(documents)) == []
    assert history(documents, "t") == []


def test_a_task_that_moves_for_ever_stays_bounded() -> None:
    chronicle = Chronicle(1)
    chronicle.arrived(TaskId("t"), REQUEST, NOW)
    for attempt in range(1, 1000):
        chronicle.routed(route("t", attempt=attempt), NOW + attempt)
    (changes,) = chronicle.take().values()
    assert len(changes) == 1
    assert changes[0].value is not None
    assert changes[0].value.count(b'"kind"') == state_limits.TASK_EVENTS
    assert b"admitted" in changes[0].value
    chronicle.routed(route("unknown"), NOW)
    chronicle.dropped(TaskId("unknown"), NOW)
    assert not chronicle.waiting


def test_a_journal_is_bounded_and_its_oldest_tasks_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_limits, "JOURNAL_TASKS", 5)
    mesh = StateMesh()
    documents = mesh.join("a")
    chronicle = Chronicle(0)
    for boot in (1, 2):
        chronicle = Chronicle(boot)
        chronicle.knows(DAY, [task for task, _ in reversed(list(tasks(documents)))])
        for number in range(4):
            run(chronicle, f"{boot}-{number}", NOW + 10 * boot + number)
            write(mesh, "a", chronicle)
    assert [task for task, _ in tasks(documents)] == ["2-3", "2-2", "2-1", "2-0", "1-3"]
    for number in range(9):  # and nothing can be written
        run(chronicle, f"late-{number}")
    write(mesh, "a", chronicle)
    assert {task for task, _ in tasks(documents)} == {f"late-{n}" for n in range(4, 9)}


@given(st.integers(1, 400))
def test_everything_is_handed_out_once_in_writes_that_fit(count: int) -> None:
    chronicle = Chronicle(1)
    for number in range(count):
        run(chronicle, f"t{number}")
    seen: list[str] = []
    while chronicle.waiting:
        for document, changes in chronicle.take().items():
            size = sum(len(change.value or b"") + 100 for change in changes)
            assert size <= state_limits.UPDATE_BYTES
            assert len(changes) <= state_limits.UPDATE_CHANGES
            seen += [change.key for change in changes if document.startswith("journal")]
    assert sorted(seen) == sorted(f"t{number}" for number in range(count))


@given(st.integers(0, 250_000_000_000_000))
def test_days_are_those_of_the_calendar(unix_ms: int) -> None:
    day = day_of(unix_ms)
    assert day == datetime.fromtimestamp(unix_ms / 1000, UTC).date().isoformat()
    assert day_ms(day) == unix_ms // DAY_MS * DAY_MS


@pytest.mark.parametrize("text", ["", "2027", "2027-13-01", "2027-00-10", "yesterday"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        day_ms(text)
