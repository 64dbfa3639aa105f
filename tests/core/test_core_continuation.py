"""An answer whose node goes in the middle: another goes on behind what the client has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.continuation import Delivered, Way
from meshslm.core.events import (
    EmitChunk,
    EngineLost,
    EngineReady,
    FailTask,
    FinishTask,
    RouteChosen,
    RunEnded,
    RunFailed,
    RunProduced,
    ShutdownRequested,
    StartRun,
    TaskArrived,
)
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.messages import (
    CallPiece,
    ChatMessage,
    Chunk,
    Constraint,
    TaskCancel,
    TaskRequest,
    TaskResend,
    Timings,
    Tool,
    Usage,
)
from tests.core.mesh import SLOTS, Mesh, specialist

TASK = TaskId("t1")
TALE = ("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "fox.")


def ask(mesh: Mesh, selector: str = "coder", **fields: object) -> None:
    request = TaskRequest(selector, (ChatMessage("user", "tell"),))
    mesh.give("a", TaskArrived(TASK, replace(request, **fields)))  # type: ignore[arg-type] # any field of it


def say(mesh: Mesh, node: str, start: int, end: int, run: int = 1) -> None:
    """Tokens of the tale; token n is its n-th word."""
    for place in range(start, end):
        chunk = Chunk(0, (place,), TALE[place], prompt_tokens=9 if place == start else 0)
        mesh.give(node, RunProduced(RunId(run), chunk))


def finish(mesh: Mesh, node: str, run: int = 1) -> None:
    mesh.give(node, RunProduced(RunId(run), Chunk(0, finish="stop")))
    mesh.give(node, RunEnded(RunId(run), Usage(9, len(TALE)), Timings()))


def told(mesh: Mesh) -> str:
    return "".join(effect.chunk.text for effect in mesh.effects("a", EmitChunk))


def routes(mesh: Mesh) -> list[RouteChosen]:
    return mesh.effects("a", RouteChosen)


def asked(mesh: Mesh, node: str) -> TaskRequest:
    """The newest request that a node's engine got."""
    return mesh.effects(node, StartRun)[-1].request


def packed(*tokens: int) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in tokens)


def failure(mesh: Mesh) -> FailTask:
    (fault,) = mesh.effects("a", FailTask)
    return fault


@pytest.fixture
def cousins(mesh: Mesh) -> Mesh:
    """A asks; B and C have the domain in common and nothing else."""
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c", replace(specialist("hacker", "code", model="other"), digest="d2"))
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    return mesh


def other(mesh: Mesh) -> str:
    """Whom the task was not sent to at first."""
    return ({"b", "c"} - {routes(mesh)[0].node}).pop()


# --- the same file: in tokens -------------------------------------------------------------------
@given(st.integers(min_value=1, max_value=len(TALE)))
def test_nothing_is_lost_and_nothing_doubled_wherever_it_breaks(cut: int) -> None:
    mesh = Mesh()
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    ask(mesh)
    first, second = routes(mesh)[0].node, other(mesh)
    say(mesh, first, 0, cut)
    mesh.break_link("a", first)
    assert asked(mesh, second).delivered == packed(*range(cut))
    say(mesh, second, cut, len(TALE))
    finish(mesh, second)
    assert told(mesh) == "".join(TALE)
    assert [route.continued for route in routes(mesh)] == ["", "tokens"]
    assert mesh.effects("a", FinishTask)[0].usage == Usage(9, len(TALE))
    tasks = mesh.boxes[NodeId("a")].core.status(mesh.now).tasks
    assert (tasks.finished, tasks.continued) == (1, 1)


def test_what_the_first_node_made_and_nobody_got_is_made_anew(twins: Mesh) -> None:
    ask(twins)
    first, second = routes(twins)[0].node, other(twins)
    say(twins, first, 0, 2)
    twins.cut.add(frozenset(("a", first)))
    say(twins, first, 2, 5)
    twins.break_link("a", first)
    say(twins, second, 2, len(TALE))
    finish(twins, second)
    assert told(twins) == "".join(TALE)


def test_an_answer_that_lacks_only_its_end_is_whole(twins: Mesh) -> None:
    ask(twins)
    first = routes(twins)[0].node
    say(twins, first, 0, 3)
    twins.give(first, RunProduced(RunId(1), Chunk(0, (3,), TALE[3], finish="length")))
    twins.break_link("a", first)
    assert len(routes(twins)) == 1
    assert twins.effects("a", FinishTask) == [FinishTask(TASK, Usage(9, 4), Timings())]


def test_a_node_that_leaves_hands_its_streams_over(twins: Mesh) -> None:
    ask(twins)
    first, second = routes(twins)[0].node, other(twins)
    say(twins, first, 0, 4)
    twins.give(first, ShutdownRequested())
    say(twins, second, 4, len(TALE))
    finish(twins, second)
    assert told(twins) == "".join(TALE)


def test_a_crashed_engine_goes_on_with_its_own_streams_when_it_is_back(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"))
    ask(mesh)
    say(mesh, "a", 0, 4)
    mesh.give("a", EngineLost("tiny", "killed"))
    mesh.give("a", EngineReady("tiny", SLOTS))
    mesh.pass_time(limits.RETRY_WAIT_MS + 1)
    assert asked(mesh, "a").delivered == packed(*range(4))
    say(mesh, "a", 4, len(TALE), run=2)
    finish(mesh, "a", run=2)
    assert told(mesh) == "".join(TALE)


def test_a_stream_that_was_sent_away_does_not_come_back(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"))
    ask(mesh)
    say(mesh, "a", 0, 4)
    mesh.give("a", RunFailed(RunId(1), FaultCode.NOT_READY, "unloaded by order"))
    assert failure(mesh).code is FaultCode.NOT_READY


# --- stalls -------------------------------------------------------------------------------------
def flow(mesh: Mesh, node: str, count: int) -> None:
    """A stream of 25 tokens a second."""
    for place in range(count):
        say(mesh, node, place, place + 1)
        mesh.pass_time(40)


def test_a_silent_node_is_left_within_two_seconds(twins: Mesh) -> None:
    ask(twins)
    first, second = routes(twins)[0].node, other(twins)
    flow(twins, first, 4)
    twins.cut.add(frozenset(("a", first)))  # nobody is told of it
    twins.pass_time(1700)
    assert asked(twins, second).delivered == packed(*range(4))
    assert TaskCancel(TASK, 1) in twins.seen["a", first]
    say(twins, second, 4, len(TALE))
    finish(twins, second)
    assert told(twins) == "".join(TALE)


def test_a_node_that_answers_without_going_on_is_left_too(twins: Mesh) -> None:
    ask(twins)
    first, second = routes(twins)[0].node, other(twins)
    flow(twins, first, 4)
    twins.pass_time(limits.STREAM_SILENT_MS + 500)
    assert len(routes(twins)) == 1  # it may be busy with others' prompts
    twins.pass_time(limits.STREAM_STALLED_MS)
    assert asked(twins, second).delivered == packed(*range(4))


def test_a_slow_stream_is_not_taken_for_a_stalled_one(twins: Mesh) -> None:
    ask(twins)
    first = routes(twins)[0].node
    for place in range(len(TALE)):
        say(twins, first, place, place + 1)
        twins.pass_time(2500)
    finish(twins, first)
    assert len(routes(twins)) == 1
    assert told(twins) == "".join(TALE)


def test_a_stalled_stream_stays_where_nobody_else_could_go_on(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    ask(mesh)
    flow(mesh, "b", 4)
    mesh.pass_time(3 * limits.STREAM_STALLED_MS)
    assert any(isinstance(message, TaskResend) for message in mesh.seen["a", "b"])
    say(mesh, "b", 4, len(TALE))
    finish(mesh, "b")
    assert told(mesh) == "".join(TALE)
    assert len(routes(mesh)) == 1


def test_the_last_attempt_is_waited_for_where_it_stalls(mesh: Mesh) -> None:
    for node in "bcd":
        mesh.add(node, specialist("coder", "code"))
    mesh.add("a", bootstrap=tuple("bcd"))
    mesh.pass_time(1500)
    ask(mesh)
    for attempt in range(1, limits.ATTEMPTS):
        node = routes(mesh)[-1].node
        run = mesh.effects(node, StartRun)[-1].run
        mesh.give(node, RunFailed(run, FaultCode.WORKER_LOST, "killed"))
        mesh.pass_time(2**attempt * limits.RETRY_WAIT_MS)
    last = routes(mesh)[-1]
    assert last.attempt == limits.ATTEMPTS
    run = mesh.effects(last.node, StartRun)[-1].run
    say(mesh, last.node, 0, 4, run=run)
    mesh.pass_time(2 * limits.STREAM_STALLED_MS)
    say(mesh, last.node, 4, len(TALE), run=run)
    finish(mesh, last.node, run=run)
    assert told(mesh) == "".join(TALE)


def test_late_items_of_the_former_node_are_nobodys(twins: Mesh) -> None:
    ask(twins)
    first, second = routes(twins)[0].node, other(twins)
    flow(twins, first, 4)
    pair = frozenset(("a", first))
    twins.cut.add(pair)
    twins.pass_time(1700)
    twins.cut.discard(pair)
    say(twins, first, 4, 6)
    say(twins, second, 4, len(TALE))
    finish(twins, second)
    assert told(twins) == "".join(TALE)


# --- another file: in text ----------------------------------------------------------------------
def test_another_model_of_the_domain_goes_on_in_text(cousins: Mesh) -> None:
    ask(cousins, "domain:code")
    first, second = routes(cousins)[0].node, other(cousins)
    say(cousins, first, 0, 3)
    cousins.break_link("a", first)
    request = asked(cousins, second)
    assert (request.begun, request.delivered) == ("Once upon a ", b"")
    assert routes(cousins)[1].continued == "text"


def test_what_was_asked_for_by_name_is_not_swapped(cousins: Mesh) -> None:
    ask(cousins, "coder")
    assert routes(cousins)[0].node == "b"
    say(cousins, "b", 0, 3)
    cousins.break_link("a", "b")
    assert failure(cousins).code is FaultCode.PEER_LOST


@pytest.mark.parametrize(
    "fields", [{"tools": (Tool("look"),)}, {"constraint": Constraint("json_object")}]
)
def test_an_answer_of_a_form_goes_on_in_tokens_only(
    cousins: Mesh, fields: dict[str, object]
) -> None:
    ask(cousins, "domain:code", **fields)
    first = routes(cousins)[0].node
    say(cousins, first, 0, 3)
    cousins.break_link("a", first)
    assert failure(cousins).code is FaultCode.PEER_LOST


@pytest.mark.parametrize(
    "chunk", [Chunk(0, (1,), reasoning="hm"), Chunk(0, (1,), calls=(CallPiece(0),))]
)
def test_what_is_more_than_text_goes_on_in_tokens_only(chunk: Chunk) -> None:
    delivered = Delivered(TaskRequest("auto"))
    assert list(delivered.ways) == [Way.TOKENS, Way.TEXT]
    delivered.add(chunk)
    assert list(delivered.ways) == [Way.TOKENS]


def test_tokens_of_two_vocabularies_are_never_mixed() -> None:
    delivered = Delivered(TaskRequest("auto"))
    delivered.add(Chunk(0, (1,), "one "))
    delivered.goes_on(Way.TEXT)
    delivered.add(Chunk(0, (2,), "two "))
    assert delivered.ways == (Way.TEXT,)
    assert delivered.rest(TaskRequest("auto"), Way.TEXT).begun == "one two "


# --- what cannot go on --------------------------------------------------------------------------
@pytest.mark.parametrize("fields", [{"echo": True}, {"operation": "embed"}])
def test_some_answers_cannot_go_on(fields: dict[str, object]) -> None:
    request = replace(TaskRequest("auto"), **fields)  # type: ignore[arg-type] # any field
    assert Delivered(request).ways == ()


def test_an_answer_beyond_the_bound_cannot_go_on() -> None:
    delivered = Delivered(TaskRequest("auto"))
    tokens = tuple(range(1000))
    for _ in range(limits.DELIVERED_TOKENS // 1000 + 1):
        delivered.add(Chunk(0, tokens, "x"))
    assert delivered.ways == ()


@pytest.mark.parametrize("text", ["word ", "\N{SNOWMAN}" * 4, ""])
def test_text_beyond_the_bound_is_not_kept_and_cannot_go_on(cousins: Mesh, text: str) -> None:
    """However many tokens are said to be in it: a request with more of it fits into no message."""
    ask(cousins, "domain:code")
    first = routes(cousins)[0].node
    text *= 50_000
    for place in range(5):
        cousins.give(first, RunProduced(RunId(1), Chunk(0, (place,), text)))
    cousins.break_link("a", first)
    if text:
        assert failure(cousins).code is FaultCode.PEER_LOST
    else:
        assert routes(cousins)[1].continued == "text"


@pytest.mark.parametrize(
    ("code", "param"),
    [(FaultCode.BAD_REQUEST, "delivered"), (FaultCode.CONTEXT_OVERFLOW, "max_tokens")],
)
def test_one_that_has_no_room_for_what_was_said_is_not_the_last(
    mesh: Mesh, code: FaultCode, param: str
) -> None:
    for node in "bcd":
        mesh.add(node, specialist("coder", "code"))
    mesh.add("a", bootstrap=tuple("bcd"))
    mesh.pass_time(1500)
    ask(mesh)
    first = routes(mesh)[0].node
    say(mesh, first, 0, 3)
    mesh.break_link("a", first)
    mesh.give(routes(mesh)[1].node, RunFailed(RunId(1), code, "no room", param))
    last = routes(mesh)[2].node
    assert asked(mesh, last).delivered == packed(*range(3))
    mesh.give(last, RunFailed(RunId(1), code, "no room", param))
    for _ in range(limits.ATTEMPTS):
        mesh.pass_time(30_000)
        for node in "bcd":
            for start in mesh.effects(node, StartRun)[1:]:
                mesh.give(node, RunFailed(start.run, code, "no room", param))
    assert failure(mesh).code is FaultCode.PEER_LOST


def test_a_fault_of_the_request_is_not_carried_elsewhere(twins: Mesh) -> None:
    ask(twins)
    first = routes(twins)[0].node
    say(twins, first, 0, 2)
    twins.give(first, RunFailed(RunId(1), FaultCode.DEADLINE, "too late"))
    assert failure(twins).code is FaultCode.DEADLINE
