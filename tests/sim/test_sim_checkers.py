"""Each checker notices the fault that it is there for, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from meshslm.chance import Chance
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.core.views import PeerView
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.sim.checkers import (
    Answer,
    TaskChecker,
    TaskRecord,
    Violations,
    first_difference,
    inconsistency,
)
from meshslm.sim.node import Line, SimNode
from meshslm.sim.world import ClientEffect
from meshslm.wire.messages import Chunk, Hardware, TaskRequest, Timings, Usage

TASK = TaskId("t" * 32)
NODE = SimNode(0, NodeId("here"), Chance.from_int(1), Line(0.01))
SERVER = SimNode(1, NodeId("there"), Chance.from_int(2), Line(0.01))
NOW = Instant(1000)
ANSWER = Answer((1, 2, 3), ("a", "b", "c"), "stop")


def route(attempt: int = 1) -> RouteChosen:
    return RouteChosen(TASK, SERVER.id, "n1", "p", "m", "d", "because", attempt)


def chunk(token: int, text: str, finish: str = "", choice: int = 0) -> EmitChunk:
    return EmitChunk(TASK, Chunk(choice, (token,), text, finish=finish))


def finish(tokens: int = 3) -> FinishTask:
    return FinishTask(TASK, Usage(1, tokens), Timings())


GOOD: list[ClientEffect] = [route(), chunk(1, "a"), chunk(2, "b"), chunk(3, "c", "stop"), finish()]


def judge(effects: list[ClientEffect], at: SimNode = NODE) -> dict[str, int]:
    """What the checker finds in what a client was given."""
    violations = Violations()
    checker = TaskChecker(
        violations, lambda node: {SERVER.id: SERVER, NODE.id: NODE}[node], lambda *_: ANSWER
    )
    checker.submitted(TaskRecord(TASK, NODE, TaskRequest("auto"), "code", "auto", Instant(0)))
    for effect in effects:
        checker.effect(at, effect, NOW)
    checker.at_end(NOW)
    return violations.counts


def test_what_one_began_another_goes_on_with() -> None:
    moved = replace(route(2), continued="tokens")
    begun: list[ClientEffect] = [route(), chunk(1, "a"), moved]
    assert judge([*begun, *GOOD[2:]]) == {}
    assert judge([*begun, chunk(3, "c", "stop"), finish(2)]) == {"tokens": 1}  # one is lost
    assert judge([*begun, chunk(1, "a"), *GOOD[2:4], finish(4)]) == {"tokens": 1}  # one is doubled


def test_an_answer_that_begins_anew_behind_its_first_token() -> None:
    assert judge([route(), chunk(1, "a"), route(2), *GOOD[1:]])["task"] == 1
    assert judge([replace(route(), continued="tokens"), *GOOD[1:]])["task"] == 1


def test_a_good_answer_is_good() -> None:
    assert judge(GOOD) == {}


def test_a_refusal_is_an_end() -> None:
    assert judge([FailTask(TASK, FaultCode.OVERLOADED, "full")]) == {}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        pytest.param(lambda e: e[:-1], "task lost", id="never ends"),
        pytest.param(lambda e: [*e, finish()], "task", id="ends twice"),
        pytest.param(
            lambda e: [*e, FailTask(TASK, FaultCode.INTERNAL, "")], "task", id="both ends"
        ),
        pytest.param(lambda e: [*e, chunk(4, "d")], "task", id="goes on after its end"),
        pytest.param(lambda e: [e[0], *e[2:]], "tokens", id="loses the first token"),
        pytest.param(lambda e: [*e[:2], *e[3:]], "tokens", id="loses a token"),
        pytest.param(lambda e: [*e[:3], finish(2)], "tokens", id="loses the last token"),
        pytest.param(lambda e: [*e[:2], *e[1:]], "tokens", id="doubles a token"),
        pytest.param(lambda e: [e[0], e[2], e[1], *e[3:]], "tokens", id="swaps tokens"),
        pytest.param(lambda e: [*e[:2], chunk(2, "B"), *e[3:]], "tokens", id="changes the text"),
        pytest.param(lambda e: [*e[:2], chunk(9, "b"), *e[3:]], "tokens", id="changes a token"),
        pytest.param(
            lambda e: [*e[:3], chunk(3, "c", "length"), e[4]], "tokens", id="other finish"
        ),
        pytest.param(lambda e: [*e[:4], finish(7)], "tokens", id="counts wrongly"),
        pytest.param(lambda e: e[1:], "task", id="comes from nobody"),
        pytest.param(lambda e: [*e[:2], route(2), *e[2:]], "task", id="moves after a token"),
        pytest.param(lambda e: [e[0], *e], "task", id="same attempt twice"),
        pytest.param(lambda e: [e[0], chunk(1, "x", "", 3), *e[1:]], "task", id="unasked choice"),
        pytest.param(lambda e: [*e[:4], chunk(4, "d"), e[4]], "task", id="choice goes on"),
        pytest.param(
            lambda e: [replace(e[0], task=TaskId("u" * 32)), *e], "task", id="task of nobody"
        ),
    ],
)
def test_a_spoilt_answer_is_noticed(
    spoil: Callable[[list[ClientEffect]], list[ClientEffect]], found: str
) -> None:
    assert found in judge(spoil(GOOD))


def test_an_answer_at_the_wrong_node_is_noticed() -> None:
    assert judge(GOOD, at=SERVER)["task"] == len(GOOD)


def test_nothing_may_come_after_a_cancel_and_a_dead_node_ends_its_tasks() -> None:
    violations = Violations()
    checker = TaskChecker(violations, lambda _: SERVER, lambda *_: ANSWER)
    for task in (TASK, TaskId("other")):
        request = TaskRequest("auto")
        checker.submitted(TaskRecord(task, NODE, request, "code", "auto", Instant(0)))
    assert checker.dropped(TASK, NOW)
    assert not checker.dropped(TASK, NOW)
    checker.node_died(NODE, NOW)
    assert [record.outcome for record in checker.records.values()] == ["cancelled", "orphaned"]
    assert checker.open == 0
    assert violations.counts == {}
    checker.effect(NODE, GOOD[1], NOW)
    assert violations.counts == {"task": 1}


def test_only_the_first_violations_are_kept_in_words_but_all_are_counted() -> None:
    violations = Violations()
    for number in range(100):
        violations.note("task", number, str(number))
    assert violations.counts == {"task": 100}
    assert [violation.detail for violation in violations.kept] == [str(n) for n in range(20)]


def test_where_sequences_part() -> None:
    assert first_difference((1, 2, 3), (1, 9, 3)) == 1
    assert first_difference((1, 2), (1, 2, 3)) == 2
    assert first_difference((), ()) == 0


def view(node: str, state: str = "alive", *, heard: float = 1.0, rtt: float = 1.0) -> PeerView:
    return PeerView(NodeId(node), node, state, "", "", rtt, heard, (), Hardware(), ())


@pytest.mark.parametrize(
    ("views", "problem"),
    [
        ([view("a", "self"), view("b")], None),
        ([view("a", "self"), view("b"), view("b")], "twice"),
        ([view("b")], "itself"),
        ([view("a", "self"), view("b", "self")], "itself"),
        ([view("a", "self"), view("c")], "nowhere"),
        ([view("a", "self"), view("b", "asleep")], "asleep"),
        ([view("a", "self"), view("b", heard=-1.0)], "future"),
        ([view("a", "self"), view("b", rtt=-1.0)], "before it is asked"),
    ],
)
def test_views_that_make_no_sense_are_noticed(views: list[PeerView], problem: str | None) -> None:
    found = inconsistency(NodeId("a"), views, [NodeId("a"), NodeId("b")])
    assert found is None if problem is None else problem in (found or "")
