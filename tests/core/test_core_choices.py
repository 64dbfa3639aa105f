"""Several answers to one question, whose node goes in the middle: each goes on behind its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.adapters.scripted_engine import ScriptedEngine, Speed, answer
from meshslm.core.continuation import Delivered, Way
from meshslm.core.events import (
    EmitChunk,
    Event,
    FinishTask,
    RouteChosen,
    RunProduced,
    StartRun,
    TaskArrived,
)
from meshslm.ids import Instant, RunId, TaskId
from meshslm.wire.messages import CallPiece, ChatMessage, Chunk, Constraint, TaskRequest, Usage
from meshslm.wire.shares import Shares
from tests.core.mesh import Mesh, specialist

TASK = TaskId("t1")
SECOND = 1_000_000


def asked(choices: int, most: int = 0, **fields: object) -> TaskRequest:
    messages = (ChatMessage("user", "tell"),)
    request = TaskRequest("coder", messages, choices=choices, max_tokens=most)
    return replace(request, **fields)  # type: ignore[arg-type] # any field of it


def events(start: StartRun) -> list[Event]:
    """All that an engine says to a run."""
    engine = ScriptedEngine("tiny", Speed(slots=16))
    engine.start_run(start.run, start.request, Instant(0))
    return engine.advance(Instant(10_000 * SECOND))[1:]  # without its speed


def triplets() -> Mesh:
    mesh = Mesh()
    for name in ("b", "c", "d"):
        mesh.add(name, specialist("coder", "code"))
    mesh.add("a", bootstrap=("b", "c", "d"))
    mesh.pass_time(1500)
    return mesh


def node_of(mesh: Mesh) -> str:
    return mesh.effects("a", RouteChosen)[-1].node


def play(mesh: Mesh, count: int | None) -> None:
    """Have the node that was asked last say so many of its events, or all."""
    node = node_of(mesh)
    for event in events(mesh.effects(node, StartRun)[-1])[:count]:
        mesh.give(node, event)


def told(mesh: Mesh, choice: int) -> list[Chunk]:
    chunks = [effect.chunk for effect in mesh.effects("a", EmitChunk)]
    return [chunk for chunk in chunks if chunk.choice == choice]


def check(mesh: Mesh, request: TaskRequest) -> None:
    """Each choice is whole, each of its tokens came once, and the counts are right."""
    count = 0
    for choice in range(request.choices):
        due, chunks = answer(request, choice), told(mesh, choice)
        assert tuple(token for chunk in chunks for token in chunk.tokens) == due.tokens
        assert "".join(chunk.text for chunk in chunks) == due.text
        assert [chunk.finish for chunk in chunks if chunk.finish] == [due.finish]
        count += len(due.tokens)
    (end,) = mesh.effects("a", FinishTask)
    assert end.usage.completion_tokens == count


@pytest.mark.parametrize("cut", range(31))
def test_wherever_it_breaks_nothing_is_lost_or_doubled_in_any_choice(cut: int) -> None:
    mesh, request = triplets(), asked(3, 10)
    assert [len(answer(request, choice).tokens) for choice in range(3)] == [10, 10, 10]
    mesh.give("a", TaskArrived(TASK, request))
    play(mesh, cut)
    mesh.break_link("a", node_of(mesh))
    if cut < 30:
        play(mesh, None)
    check(mesh, request)
    assert len(mesh.effects("a", RouteChosen)) == (2 if cut < 30 else 1)


@given(st.integers(2, 4), st.integers(0, 200), st.integers(0, 200))
def test_choices_of_different_length_survive_two_deaths(
    choices: int, first: int, second: int
) -> None:
    mesh, request = triplets(), asked(choices)
    mesh.give("a", TaskArrived(TASK, request))
    for count in (first, second):
        if not mesh.effects("a", FinishTask):
            play(mesh, count)
            mesh.break_link("a", node_of(mesh))
    if not mesh.effects("a", FinishTask):
        play(mesh, None)
    check(mesh, request)


def test_a_choice_that_has_ended_is_counted_and_not_asked_for_again() -> None:
    delivered = Delivered(asked(3))
    for chunk in (Chunk(0, (7, 8), "a "), Chunk(1, (9,), "b ", finish="stop"), Chunk(2, (), "")):
        delivered.add(chunk)
    rest = delivered.rest(asked(3), Way.TOKENS)
    assert rest.shares == Shares((8, 4, 0), ("", "stop", ""))
    assert len(rest.delivered) == 12
    assert delivered.usage() == Usage(0, 3)
    in_text = delivered.rest(asked(3), Way.TEXT)
    assert (in_text.begun, in_text.shares) == ("a b ", Shares((2, 2, 0), ("", "stop", "")))
    assert not delivered.whole
    for chunk in (Chunk(0, finish="stop"), Chunk(2, finish="length")):
        delivered.add(chunk)
    assert delivered.whole


def test_what_is_kept_of_all_choices_together_is_bounded() -> None:
    delivered = Delivered(asked(4))
    tokens = tuple(range(1000))
    for turn in range(limits.DELIVERED_TOKENS // 1000 + 1):
        assert delivered.ways
        delivered.add(Chunk(turn % 4, tokens, "x"))
    assert delivered.ways == ()
    assert not delivered.whole


def test_one_choice_with_more_than_text_keeps_all_to_tokens() -> None:
    delivered = Delivered(asked(2))
    delivered.add(Chunk(1, (1,), calls=(CallPiece(0),)))
    assert list(delivered.ways) == [Way.TOKENS]
    assert list(Delivered(asked(2, constraint=Constraint("json_object"))).ways) == [Way.TOKENS]


def test_another_model_goes_on_in_text_with_each() -> None:
    mesh = Mesh()
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c", replace(specialist("hacker", "code", model="other"), digest="d2"))
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    mesh.give("a", TaskArrived(TASK, replace(asked(2), selector="domain:code")))
    node = node_of(mesh)
    mesh.give(node, RunProduced(RunId(1), Chunk(0, (1, 2), "one two ")))
    mesh.give(node, RunProduced(RunId(1), Chunk(1, (3,), "three ", finish="stop")))
    mesh.break_link("a", node)
    rest = mesh.effects(node_of(mesh), StartRun)[-1].request
    assert rest.begun == "one two three "
    assert rest.shares == Shares((8, 6), ("", "stop"))
    assert mesh.effects("a", RouteChosen)[-1].continued == "text"
    play(mesh, None)
    assert mesh.effects("a", FinishTask)


@pytest.mark.parametrize(
    "shares",
    [
        Shares((2, 2), ("", "")),
        Shares((4,), ("", "stop")),
        Shares((3, 2), ("", "")),
        Shares((), ()),
    ],
)
def test_parts_that_do_not_fit_what_was_delivered_are_refused(shares: Shares) -> None:
    with pytest.raises(ValueError, match="parts of"):
        shares.parts(b"abcdef")
