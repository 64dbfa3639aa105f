"""A link that breaks and comes back: the tasks on it go on, unless the peer has really gone."""

from __future__ import annotations

import pytest

from meshslm import limits
from meshslm.core.absence import own_machine
from meshslm.core.directory import Peer
from meshslm.core.events import (
    BytesReceived,
    DialFailed,
    EmitChunk,
    FailTask,
    FinishTask,
    PeerDisconnected,
    RouteChosen,
    RunEnded,
    RunProduced,
    StartRun,
    StopRun,
    TaskArrived,
    TaskDropped,
    Tell,
)
from meshslm.core.ways import host_of
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.codec import encode
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Goodbye,
    Hello,
    TaskCancel,
    TaskRequest,
    TaskSubmit,
    Timings,
    Usage,
)
from tests.core.mesh import Mesh, address_of

TASK = TaskId("t1")
TALE = ("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "fox.")
PAIR = frozenset("ab")


def ask(mesh: Mesh) -> None:
    mesh.give("a", TaskArrived(TASK, TaskRequest("coder", (ChatMessage("user", "tell"),))))


def say(mesh: Mesh, node: str, start: int, end: int) -> None:
    for place in range(start, end):
        mesh.give(node, RunProduced(RunId(1), Chunk(0, (place,), TALE[place])))


def finish(mesh: Mesh, node: str) -> None:
    mesh.give(node, RunEnded(RunId(1), Usage(9, len(TALE)), Timings()))


def told(mesh: Mesh) -> str:
    return "".join(effect.chunk.text for effect in mesh.effects("a", EmitChunk))


def silence(mesh: Mesh) -> None:
    """Both hear that their link is gone, and no new one gets through."""
    mesh.cut.add(PAIR)
    mesh.cut_link("a", "b")


def heal(mesh: Mesh) -> None:
    mesh.cut.clear()


def topics(mesh: Mesh, name: str) -> list[str]:
    return [t.topic for t in mesh.effects(name, Tell) if t.topic in ("peer.away", "peer.gone")]


def test_an_answer_goes_on_over_a_new_link(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 3)
    pair.cut_link("a", "b")
    assert pair.peer_state("a", "b") == "alive"
    say(pair, "b", 3, len(TALE))
    finish(pair, "b")
    assert told(pair) == "".join(TALE)
    assert len(pair.effects("a", RouteChosen)) == 1
    assert pair.effects("a", FinishTask)[0].usage == Usage(9, len(TALE))
    assert topics(pair, "a") == topics(pair, "b") == ["peer.away"]


@pytest.mark.parametrize("ended", [False, True])
def test_what_was_said_meanwhile_is_asked_for(pair: Mesh, *, ended: bool) -> None:
    ask(pair)
    say(pair, "b", 0, 2)
    silence(pair)
    say(pair, "b", 2, len(TALE))
    if ended:
        finish(pair, "b")
    assert told(pair) == "".join(TALE[:2])
    heal(pair)
    pair.pass_time(limits.LINK_GRACE_MS / 2)
    assert told(pair) == "".join(TALE)
    if not ended:
        finish(pair, "b")
    assert len(pair.effects("a", FinishTask)) == 1
    assert len(pair.effects("a", RouteChosen)) == 1


def test_a_question_that_was_lost_on_the_way_is_asked_again(pair: Mesh) -> None:
    pair.filter = lambda _f, _t, m: () if isinstance(m, TaskSubmit) else None
    ask(pair)
    pair.filter = lambda _f, _t, _m: None
    pair.cut_link("a", "b")
    say(pair, "b", 0, len(TALE))
    finish(pair, "b")
    assert told(pair) == "".join(TALE)


def test_a_peer_that_does_not_come_back_is_given_up_after_the_grace(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 2)
    silence(pair)
    pair.pass_time(limits.LINK_GRACE_MS - 1)
    assert not pair.effects("a", FailTask)
    assert not pair.effects("b", StopRun)
    pair.pass_time(1)
    assert topics(pair, "a") == topics(pair, "b") == ["peer.away", "peer.gone"]
    assert pair.effects("b", StopRun)
    pair.pass_time(limits.DEADLINE_MS)
    assert len(pair.effects("a", FailTask)) == 1


def test_one_whose_machine_refuses_is_gone_at_once(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 2)
    pair.break_link("a", "b")
    assert topics(pair, "a") == topics(pair, "b") == ["peer.away", "peer.gone"]
    assert pair.effects("b", StopRun)


def test_another_goes_on_before_the_grace_is_over_if_one_can(twins: Mesh) -> None:
    ask(twins)
    first = twins.effects("a", RouteChosen)[0].node
    say(twins, first, 0, 2)
    twins.cut.add(frozenset(("a", first)))
    twins.cut_link("a", first)
    twins.pass_time(limits.STREAM_SILENT_MS + limits.STREAM_PROBE_MS)
    assert len(twins.effects("a", RouteChosen)) == 2
    assert twins.effects("a", RouteChosen)[1].node != first


def test_one_that_restarted_is_gone(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 2)

    def reborn(source: NodeId, _to: NodeId, message: object) -> tuple[Hello, ...] | None:
        if isinstance(message, Hello) and source == "b":
            return (Hello(message.version_low, message.version_high, message.mesh, 2, "b"),)
        return None

    pair.filter = reborn
    pair.cut_link("a", "b")
    assert topics(pair, "a") == ["peer.away", "peer.gone"]


@pytest.mark.parametrize("how", ["goodbye", "fault"])
def test_nobody_waits_for_one_that_left_or_broke_the_protocol(pair: Mesh, how: str) -> None:
    ask(pair)
    if how == "goodbye":
        pair.give("a", BytesReceived(NodeId("b"), encode(Goodbye("off", leaving=True))))
    else:
        pair.links.clear()
        pair.give("a", PeerDisconnected(NodeId("b"), "nonsense", fault=True))
    assert topics(pair, "a") == ["peer.gone"]


def test_nothing_of_a_task_is_sent_where_no_link_is(pair: Mesh) -> None:
    ask(pair)
    say(pair, "b", 0, 2)
    silence(pair)
    before = len(pair.seen["b", "a"])
    say(pair, "b", 2, 5)
    pair.give("a", TaskDropped(TASK))
    assert len(pair.seen["b", "a"]) == before
    heal(pair)
    pair.pass_time(limits.LINK_GRACE_MS / 2)
    say(pair, "b", 5, 6)  # the first word that nobody wants
    assert [m for m in pair.seen["a", "b"] if isinstance(m, TaskCancel)]
    assert pair.effects("b", StopRun)


def test_a_link_that_breaks_again_and_again_is_waited_for_once_each_time(pair: Mesh) -> None:
    ask(pair)
    for place in range(len(TALE)):
        say(pair, "b", place, place + 1)
        pair.cut_link("a", "b")
        pair.pass_time(limits.DIAL_BACKOFF_MS)
        assert pair.peer_state("a", "b") == "alive"
    finish(pair, "b")
    assert told(pair) == "".join(TALE)
    assert topics(pair, "a") == ["peer.away"] * len(TALE)


def test_only_the_machine_that_a_peer_was_seen_at_can_show_that_it_died() -> None:
    inside = "/ip4/192.168.1.7/tcp/7415/p2p/p"
    outside = "/ip4/203.0.113.5/tcp/7415/p2p/p"
    assert host_of(inside) == "/ip4/192.168.1.7"
    peer = Peer(NodeId("p"), address=outside)
    assert own_machine(peer) == (outside,)
    peer = Peer(NodeId("p"), incoming=True, came_from="/ip4/203.0.113.5/tcp/61000")
    peer.addresses = (inside,)
    assert own_machine(peer) == ()
    peer.addresses = (inside, outside)
    assert own_machine(peer) == (outside,)
    peer.came_from = ""
    assert own_machine(peer) == ()


def test_a_refusal_somewhere_else_is_no_proof(pair: Mesh) -> None:
    silence(pair)
    pair.give("a", DialFailed("/memory/else/p2p/b", "connection refused", refused=True))
    assert topics(pair, "a") == ["peer.away"]
    pair.give("a", DialFailed(address_of("b"), "connection refused", refused=True))
    assert topics(pair, "a") == ["peer.away", "peer.gone"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_was_stopped_meanwhile_is_not_waited_for(pair: Mesh, *, begun: bool) -> None:
    """A is frozen for as long as B needs to give it up, and wakes before it hears of that."""
    ask(pair)
    say(pair, "b", 0, 2 * begun)
    frozen = pair.boxes[NodeId("a")]
    timers, frozen.timers = frozen.timers, {}
    pair.cut.add(PAIR)
    pair.pass_time(4000)
    assert pair.effects("b", StopRun)
    heal(pair)
    frozen.timers = timers
    pair.give("a", PeerDisconnected(NodeId("b"), "closed"))
    pair.pass_time(limits.LINK_GRACE_MS)
    newest = pair.effects("b", StartRun)[-1]
    assert newest.run != RunId(1), "nobody works at it, and nobody says so"
    for place in range(2 * begun, len(TALE)):
        pair.give("b", RunProduced(newest.run, Chunk(0, (place,), TALE[place])))
    pair.give("b", RunEnded(newest.run, Usage(9, len(TALE)), Timings()))
    assert told(pair) == "".join(TALE)
    assert len(pair.effects("a", FinishTask)) == 1
