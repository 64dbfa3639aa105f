"""A node that leaves takes nothing new, and nothing that it does is broken off."""

from __future__ import annotations

from collections.abc import Iterable

from meshslm import limits
from meshslm.core.drain_events import Drained, DrainRequested
from meshslm.core.events import (
    EmitChunk,
    FailTask,
    FinishTask,
    HostingChanged,
    RouteChosen,
    RunEnded,
    RunProduced,
    StartRun,
    TaskArrived,
)
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.draining import Draining
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Hardware,
    Message,
    TaskRequest,
    Timings,
    Usage,
)
from meshslm.wire.shares import Shares
from tests.core.mesh import Mesh, specialist

MINUTE = DrainRequested(60_000)
TALE = ("Once ", "upon ", "a ", "time.")


def ask(mesh: Mesh, at: str = "a", name: str = "t1", choices: int = 1) -> str:
    """Whom a new task went to first; empty for nobody. What B's clients ask is for B."""
    before = len(mesh.effects(at, RouteChosen))
    selector = "coder@b" if at == "b" else "coder"
    request = TaskRequest(selector, (ChatMessage("user", "tell"),), choices=choices)
    mesh.give(at, TaskArrived(TaskId(name), request))
    chosen = mesh.effects(at, RouteChosen)[before:]
    return chosen[0].node if chosen else ""


def say(mesh: Mesh, node: str, start: int, end: int, run: int = 1) -> None:
    for place in range(start, end):
        mesh.give(node, RunProduced(RunId(run), Chunk(0, (place,), TALE[place])))


def finish(mesh: Mesh, node: str, run: int = 1) -> None:
    mesh.give(node, RunProduced(RunId(run), Chunk(0, finish="stop")))
    mesh.give(node, RunEnded(RunId(run), Usage(1, len(TALE)), Timings()))


def other(node: str) -> str:
    return "c" if node == "b" else "b"


def told(mesh: Mesh) -> str:
    return "".join(effect.chunk.text for effect in mesh.effects("a", EmitChunk))


def test_a_node_with_nothing_to_do_leaves_at_once(pair: Mesh) -> None:
    assert Drained(whole=True) in pair.give("b", MINUTE)


def test_what_it_serves_others_moves_and_goes_on(twins: Mesh) -> None:
    first = ask(twins)
    second = other(first)
    say(twins, first, 0, 2)
    twins.give(first, MINUTE)
    twins.pass_time(limits.DRAIN_LOOK_MS)
    assert twins.effects(first, Drained) == [Drained(whole=True)]
    moved = twins.effects(second, StartRun)[-1].request
    assert len(moved.delivered) == 8
    say(twins, second, 2, len(TALE))
    finish(twins, second)
    assert told(twins) == "".join(TALE)
    assert len(twins.effects("a", FinishTask)) == 1


def test_what_has_not_begun_moves_too(twins: Mesh) -> None:
    first = ask(twins)
    twins.give(first, MINUTE)
    twins.pass_time(limits.DRAIN_LOOK_MS)
    assert twins.effects(first, Drained) == [Drained(whole=True)]
    finish(twins, other(first))
    assert len(twins.effects("a", FinishTask)) == 1


def test_what_can_go_on_nowhere_else_is_finished_first(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 2)
    pair.give("b", MINUTE)
    pair.pass_time(20_000)
    assert not pair.effects("b", Drained)
    drain = pair.boxes[NodeId("b")].core.status(pair.now).drain
    assert drain is not None
    assert (drain.tasks, drain.runs) == (0, 1)
    assert 39_000 < drain.left_ms <= 40_000
    say(pair, "b", 2, len(TALE))
    finish(pair, "b")
    pair.pass_time(limits.DRAIN_LOOK_MS)
    assert pair.effects("b", Drained) == [Drained(whole=True)]
    assert told(pair) == "".join(TALE)


def test_several_choices_move_together(twins: Mesh) -> None:
    first = ask(twins, choices=2)
    say(twins, first, 0, 2)
    twins.give(first, MINUTE)
    twins.pass_time(1000)
    assert twins.effects(first, Drained) == [Drained(whole=True)]
    (again,) = [run.request for run in twins.effects(other(first), StartRun)]
    assert again.shares == Shares((8, 0), ("", ""))


def test_own_clients_are_answered_first(twins: Mesh) -> None:
    assert ask(twins, at="b") == "b"
    say(twins, "b", 0, 2)
    twins.give("b", MINUTE)
    twins.pass_time(1000)
    assert not twins.effects("b", Drained)
    say(twins, "b", 2, len(TALE))
    finish(twins, "b")
    twins.pass_time(limits.DRAIN_LOOK_MS)
    assert twins.effects("b", Drained) == [Drained(whole=True)]


def test_an_answer_that_comes_from_elsewhere_keeps_its_entry_there(twins: Mesh) -> None:
    first = ask(twins)
    twins.give("a", MINUTE)
    say(twins, first, 0, 2)
    twins.pass_time(1000)
    assert not twins.effects("a", Drained)
    say(twins, first, 2, len(TALE))
    finish(twins, first)
    twins.pass_time(limits.DRAIN_LOOK_MS)
    assert twins.effects("a", Drained) == [Drained(whole=True)]
    assert told(twins) == "".join(TALE)


def test_new_work_is_refused_and_sent_elsewhere(twins: Mesh) -> None:
    ask(twins, at="b", name="busy")
    twins.give("b", MINUTE)
    assert [ask(twins, name=f"t{number}") for number in range(4)] == ["c"] * 4
    ask(twins, at="b", name="late")
    (refused,) = twins.effects("b", FailTask)
    assert refused.code is FaultCode.NOT_READY
    assert refused.retry_after_ms > 0


def test_who_has_not_heard_of_it_is_refused_and_goes_elsewhere(twins: Mesh) -> None:
    ask(twins, at="b", name="busy")
    twins.filter = lambda _from, _to, message: (
        () if type(message).__name__ in ("Capability", "Draining") else None
    )
    twins.give("b", MINUTE)
    for number in range(4):
        ask(twins, name=f"t{number}")
    last = {route.task: route.node for route in twins.effects("a", RouteChosen)}
    assert list(last.values()) == ["c"] * 4
    assert not twins.effects("a", FailTask)


def test_a_lost_word_is_said_again(twins: Mesh) -> None:
    first = ask(twins)
    say(twins, first, 0, 2)
    lost: list[Message] = []

    def lose_one(_from: NodeId, _to: NodeId, message: Message) -> Iterable[Message] | None:
        if isinstance(message, Draining) and not lost:
            lost.append(message)
            return ()
        return None

    twins.filter = lose_one
    twins.give(first, MINUTE)
    assert len(twins.effects("a", RouteChosen)) == 1
    twins.pass_time(limits.DRAIN_LOOK_MS * (limits.DRAIN_TELL_EVERY + 1))
    assert twins.effects(first, Drained) == [Drained(whole=True)]


def test_it_leaves_when_its_time_is_up(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 2)
    pair.give("b", DrainRequested(2_000))
    pair.pass_time(1_990)
    assert not pair.effects("b", Drained)
    pair.pass_time(11)
    assert pair.effects("b", Drained) == [Drained(whole=False)]


def test_a_second_request_only_makes_it_shorter(pair: Mesh) -> None:
    ask(pair)
    pair.give("b", DrainRequested(10_000))
    pair.give("b", DrainRequested(3_600_000))
    pair.give("b", DrainRequested(1_000))
    pair.pass_time(1_100)
    assert pair.effects("b", Drained) == [Drained(whole=False)]


def test_a_change_of_hosting_announces_nothing(pair: Mesh) -> None:
    ask(pair)
    pair.give("b", MINUTE)
    pair.give("b", HostingChanged((specialist("coder", "code"),), Hardware(cores=2)))
    assert ask(pair, name="t2") == ""


def test_who_serves_nothing_here_may_say_that_it_leaves(twins: Mesh) -> None:
    """A word about nothing moves nothing."""
    first = ask(twins)
    twins.boxes[NodeId(other(first))].core.handle(MINUTE, twins.now)
    assert len(twins.effects("a", RouteChosen)) == 1
