"""Tasks that entered elsewhere: found by asking, without texts, and by nobody too often."""

from __future__ import annotations

import pytest

from meshslm import state_limits
from meshslm.core.chronicle import Chronicle, read_events
from meshslm.core.events import BytesReceived
from meshslm.core.state_events import HistoryAsked, HistoryFound
from meshslm.ids import NodeId
from meshslm.wire.codec import encode
from meshslm.wire.histories import HistoryTold, HistoryWanted, PastTask
from meshslm.wire.messages import Message
from tests.core.state_mesh import StateMesh
from tests.core.test_core_chronicle import NOW, run, write

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


@pytest.fixture
def mesh() -> StateMesh:
    """Three nodes; two tasks entered at b, one at c, and their journals keep texts."""
    made = StateMesh()
    made.join("a")
    made.join("b", "a")
    made.join("c", "a", "b")
    made.pass_time(1_000)
    for name, tasks in (("b", ("t1", "t2")), ("c", ("t3",))):
        chronicle = Chronicle(1, texts=True)
        for place, task in enumerate(tasks):
            run(chronicle, task, NOW + place)
        write(made, name, chronicle)
    made.pass_time(1_000)
    return made


def ask(mesh: StateMesh, task: str = "", limit: int = 10, state: str = "") -> HistoryFound:
    number = len(mesh.effects("a", HistoryFound)) + 1
    mesh.give("a", HistoryAsked(number, task, limit, state))
    if len(mesh.effects("a", HistoryFound)) < number:
        mesh.pass_time(state_limits.HISTORY_MS)
    found = mesh.effects("a", HistoryFound)[-1]
    assert found.number == number
    return found


def test_a_task_is_found_where_it_entered_and_its_text_stays_there(mesh: StateMesh) -> None:
    assert not mesh.docs("a").names("journal/")
    found = ask(mesh, "t3")
    ((node, task, events),) = [(p.node, p.task, p.events) for p in found.found]
    assert (node, task) == (C, "t3")
    assert [event.kind for event in read_events(events)] == ["admitted", "routed", "finished"]
    assert b"secret" not in events
    assert found.silent == ()
    assert not mesh.docs("a").names("journal/"), "asking is no wanting"


def test_the_newest_of_all_are_told(mesh: StateMesh) -> None:
    found = ask(mesh)
    assert sorted(p.task for p in found.found) == ["t1", "t2", "t3"]
    mesh.pass_time(3_000)
    assert len(ask(mesh, limit=1).found) == 2
    mesh.pass_time(3_000)
    assert not ask(mesh, state="failed").found


def test_what_nobody_knows_is_not_found(mesh: StateMesh) -> None:
    found = ask(mesh, "unheard-of")
    assert (found.found, found.silent) == ((), ())


def test_who_does_not_answer_is_named_in_time(mesh: StateMesh) -> None:
    mesh.cut.add(frozenset((A, C)))
    found = ask(mesh)
    assert sorted(p.task for p in found.found) == ["t1", "t2"]
    assert found.silent == (C,)
    assert ask(mesh, "t1").silent == ()


def test_a_journal_is_looked_through_for_others_now_and_then_only(mesh: StateMesh) -> None:
    assert not ask(mesh).silent
    busy = ask(mesh)
    assert busy.silent == (B, C)
    assert ask(mesh, "t2").found, "one task is told at any time"
    mesh.pass_time(state_limits.HISTORY_LIST_MS)
    assert not ask(mesh).silent


def test_only_what_entered_here_is_told(mesh: StateMesh) -> None:
    mesh.docs("b").want("journal/*")
    mesh.pass_time(40_000)
    assert len(list(mesh.docs("b").keys("journal/2027-01-15"))) == 3
    assert sorted(p.task for p in ask(mesh).found) == ["t1", "t2", "t3"]
    assert [p.node for p in ask(mesh, "t3").found] == [C]


def test_a_node_alone_finds_nothing_at_once() -> None:
    mesh = StateMesh()
    mesh.join("a")
    mesh.give("a", HistoryAsked(1, "t"))
    assert mesh.effects("a", HistoryFound) == [HistoryFound(1, (), ())]


def test_questions_are_bounded(mesh: StateMesh) -> None:
    mesh.cut |= {frozenset((A, B)), frozenset((A, C))}
    for number in range(state_limits.HISTORY_QUESTIONS + 1):
        mesh.give("a", HistoryAsked(number, "t"))
    assert [f.number for f in mesh.effects("a", HistoryFound)] == [number]
    mesh.pass_time(state_limits.HISTORY_MS)
    assert len(mesh.effects("a", HistoryFound)) == number + 1


def banned(mesh: StateMesh) -> bool:
    return bool(mesh.boxes[A].core.status(mesh.now).banned)


@pytest.mark.parametrize(
    ("told", "bad"),
    [
        ((PastTask("t1", b"[]"), PastTask("t1", b"[]")), True),
        ((PastTask("t9", b"[]"),), True),
        ((PastTask("t1", b"no json"),), False),
        ((), False),
    ],
)
def test_answers_that_do_not_fit_are_faults(
    mesh: StateMesh, told: tuple[PastTask, ...], bad: bool
) -> None:
    mesh.filter = lambda _from, to, message: [] if isinstance(message, HistoryTold) else None
    mesh.give("a", HistoryAsked(1, "t1"))
    mesh.filter = lambda _from, to, message: None
    answer: Message = HistoryTold(1, told)
    mesh.give("a", BytesReceived(B, encode(answer)))
    assert banned(mesh) is bad
    mesh.give("a", BytesReceived(C, encode(HistoryTold(77, told))))
    for part in ("t2", "t3"):
        mesh.give("a", HistoryAsked(2, part))
    assert isinstance(mesh.seen[A, C][-1], HistoryWanted)


def test_an_unasked_answer_is_nothing(mesh: StateMesh) -> None:
    mesh.give("a", BytesReceived(B, encode(HistoryTold(5, (PastTask("x", b"[]"),)))))
    assert not banned(mesh)
    assert not mesh.effects("a", HistoryFound)


def test_who_asks_for_single_tasks_without_end_is_told_so_much_and_no_more(mesh: StateMesh) -> None:
    """And others are told meanwhile, and so is the same one later."""
    one = len(encode(HistoryTold(1, (task_of(mesh),))))
    sent = len(mesh.seen["b", "a"])
    for number in range(3_000):
        mesh.give("b", BytesReceived(A, encode(HistoryWanted(number + 1, "t1", 1, ""))))
    answers = [m for m in mesh.seen["b", "a"][sent:] if isinstance(m, HistoryTold)]
    whole = [m for m in answers if m.tasks]
    most = state_limits.HISTORY_TOLD_BURST
    assert len(answers) == 3_000
    assert most / 2 < len(whole) * one < 1.2 * most
    assert all(message.busy for message in answers if not message.tasks)
    mesh.give("b", BytesReceived(C, encode(HistoryWanted(1, "t1", 1, ""))))
    last = mesh.seen["b", "c"][-1]
    assert isinstance(last, HistoryTold)
    assert last.tasks
    mesh.pass_time(1_000)
    assert ask(mesh, "t1").found


def task_of(mesh: StateMesh) -> PastTask:
    found = ask(mesh, "t1").found[0]
    return PastTask(found.task, found.events)
