"""Tasks from question to last character: routing, streams that arrive damaged, moves, ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import (
    BytesReceived,
    EmitChunk,
    EngineLost,
    EngineReady,
    Event,
    FailTask,
    FinishTask,
    RouteChosen,
    RunEnded,
    RunFailed,
    RunProduced,
    ShutdownRequested,
    StartRun,
    StopRun,
    TaskArrived,
    TaskDropped,
    TimerKey,
)
from meshslm.core.origin import WATCH
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId, after
from meshslm.wire.codec import encode
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Message,
    TaskCancel,
    TaskChunk,
    TaskDone,
    TaskEnded,
    TaskRefused,
    TaskRequest,
    TaskResend,
    TaskSubmit,
    Timings,
    Usage,
)
from tests.core.mesh import SLOTS, Mesh, specialist


def ask(
    mesh: Mesh,
    name: str,
    selector: str = "auto",
    text: str = "hello",
    task: str = "t1",
    deadline_ms: int = limits.DEADLINE_MS,
) -> None:
    request = TaskRequest(selector, (ChatMessage("user", text),), deadline_ms=deadline_ms)
    mesh.give(name, TaskArrived(TaskId(task), request))


def runs(mesh: Mesh, name: str) -> list[StartRun]:
    return mesh.effects(name, StartRun)


def produce(mesh: Mesh, name: str, *texts: str, run: int = 1) -> None:
    for text in texts:
        mesh.give(name, RunProduced(RunId(run), Chunk(0, (1,), text)))


def end(mesh: Mesh, name: str, run: int = 1) -> None:
    mesh.give(name, RunProduced(RunId(run), Chunk(0, finish="stop")))
    mesh.give(name, RunEnded(RunId(run), Usage(3, 4), Timings()))


def text(mesh: Mesh, name: str = "a", task: str = "t1") -> str:
    return "".join(e.chunk.text for e in mesh.effects(name, EmitChunk) if e.task == task)


def ends(mesh: Mesh, name: str = "a", task: str = "t1") -> list[FinishTask | FailTask]:
    done = mesh.boxes[NodeId(name)].done
    return [e for e in done if isinstance(e, FinishTask | FailTask) and e.task == task]


def fault(mesh: Mesh, name: str = "a", task: str = "t1") -> FailTask:
    """The one fault that a task ended with."""
    (end,) = ends(mesh, name, task)
    assert isinstance(end, FailTask)
    return end


# --- the straight way ---------------------------------------------------------------------------
def test_a_local_specialist_answers(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"))
    ask(mesh, "a", "coder")
    produce(mesh, "a", "wor", "ld")
    end(mesh, "a")
    assert text(mesh) == "world"
    assert isinstance(ends(mesh)[0], FinishTask)
    assert mesh.seen == {}


def test_the_stop_string_that_was_met_crosses_the_mesh(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    pair.give("b", RunProduced(RunId(1), Chunk(0, (1,), "x", finish="stop", stopped="END")))
    (shown,) = pair.effects("a", EmitChunk)
    assert (shown.chunk.finish, shown.chunk.stopped) == ("stop", "END")


def test_a_remote_specialist_answers(pair: Mesh) -> None:
    ask(pair, "a", "domain:code")
    route = pair.effects("a", RouteChosen)[0]
    assert (route.node, route.profile, route.attempt) == ("b", "coder", 1)
    produce(pair, "b", "wor", "ld")
    end(pair, "b")
    assert text(pair) == "world"
    finish = ends(pair)[0]
    assert isinstance(finish, FinishTask)
    assert finish.usage == Usage(3, 4)
    assert pair.boxes[NodeId("a")].core.status(pair.now).tasks.finished == 1
    assert any(isinstance(m, TaskDone) for m in pair.seen["a", "b"])


def test_tokens_may_wait_for_each_other_only_on_their_way_to_another_node(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    ask(pair, "b", "coder", task="t2")
    assert [run.coalesce for run in runs(pair, "b")] == [True, False]


def test_streams_are_looked_after_together(pair: Mesh) -> None:
    for number in range(1, 5):
        ask(pair, "a", "coder", task=f"t{number}")
        pair.pass_time(37)
        produce(pair, "b", "x", run=number)
        pair.pass_time(13)
    timers = pair.boxes[NodeId("a")].timers
    looks = {timers[TimerKey(WATCH, f"t{number}")][0] for number in range(1, 5)}
    assert len(looks) == 1, "each wakes its node by itself"
    assert pair.now < min(looks) <= after(pair.now, limits.STREAM_PROBE_MS)


@pytest.mark.parametrize(
    ("selector", "node"),
    [
        ("coder", "b"),
        ("tiny", "b"),
        ("domain:code", "b"),
        ("auto@b", "b"),
        ("coder@b", "b"),
    ],
)
def test_selectors(pair: Mesh, selector: str, node: str) -> None:
    ask(pair, "a", selector)
    assert pair.effects("a", RouteChosen)[0].node == node


@pytest.mark.parametrize("selector", ["nope", "domain:cooking", "coder@nowhere"])
def test_an_unknown_model_names_the_known_ones(pair: Mesh, selector: str) -> None:
    ask(pair, "a", selector)
    assert fault(pair).code is FaultCode.UNKNOWN_MODEL
    for known in ("auto", "coder", "tiny", "domain:code"):
        assert known in fault(pair).detail


def test_auto_follows_the_words_and_knows_when_it_does_not_know(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c", specialist("cook", "cooking"))
    mesh.add("a", specialist("any", "general"), bootstrap=("b", "c"))
    mesh.pass_time(1500)
    ask(mesh, "a", text="a question on cooking, please", task="t1")
    ask(mesh, "a", text="some code for me", task="t2")
    ask(mesh, "a", text="zzz qqq", task="t3")
    chosen = {e.task: e for e in mesh.effects("a", RouteChosen)}
    assert [chosen[TaskId(t)].node for t in ("t1", "t2", "t3")] == ["c", "b", "a"]
    assert "domain cooking" in chosen[TaskId("t1")].reason
    assert "no domain recognised" in chosen[TaskId("t3")].reason


def test_the_last_turn_of_the_user_decides(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", specialist("cook", "cooking"), bootstrap=("b",))
    mesh.pass_time(1500)
    turns = (
        ChatMessage("user", "cooking cooking cooking"),
        ChatMessage("assistant", "cooking it is"),
        ChatMessage("user", "now some code"),
    )
    mesh.give("a", TaskArrived(TaskId("t1"), TaskRequest("auto", turns)))
    assert mesh.effects("a", RouteChosen)[0].node == "b"


def test_the_less_busy_of_two_is_chosen(twins: Mesh) -> None:
    for number in range(SLOTS + 1):
        ask(twins, "a", "coder@b", task=f"busy{number}")
    twins.pass_time(1500)
    ask(twins, "a", "coder")
    assert twins.effects("a", RouteChosen)[-1].node == "c"


# --- queue and refusal --------------------------------------------------------------------------
def test_runs_wait_in_a_bounded_queue_and_are_refused_past_it(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=3)
    given_to_engine = SLOTS + limits.RUN_AHEAD
    for number in range(given_to_engine + 3):
        ask(mesh, "a", task=f"t{number}")
    assert len(runs(mesh, "a")) == given_to_engine
    ask(mesh, "a", task="late")
    assert fault(mesh, task="late").code is FaultCode.OVERLOADED
    assert fault(mesh, task="late").retry_after_ms > 0
    end(mesh, "a", run=1)
    assert len(runs(mesh, "a")) == given_to_engine + 1


def test_without_a_queue_free_slots_are_used_and_nobody_waits(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=0)
    for number in range(SLOTS):
        ask(mesh, "a", task=f"t{number}")
    assert len(runs(mesh, "a")) == SLOTS
    ask(mesh, "a", task="late")
    assert fault(mesh, task="late").code is FaultCode.OVERLOADED
    end(mesh, "a", run=1)
    ask(mesh, "a", task="later")
    assert len(runs(mesh, "a")) == SLOTS + 1


def test_without_a_queue_a_run_of_more_choices_than_slots_is_taken_alone(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=0)
    many = TaskRequest("coder", prompt="x", choices=SLOTS + 1)
    mesh.give("a", TaskArrived(TaskId("t1"), many))
    assert len(runs(mesh, "a")) == 1
    mesh.give("a", TaskArrived(TaskId("t2"), many))
    assert fault(mesh, task="t2").code is FaultCode.OVERLOADED


def test_without_a_queue_the_first_run_waits_for_its_model(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=0)
    mesh.give("a", EngineLost("tiny", "killed"))
    ask(mesh, "a")
    assert runs(mesh, "a") == []
    mesh.give("a", EngineReady("tiny", SLOTS))
    assert len(runs(mesh, "a")) == 1


def test_one_peer_cannot_take_a_node_for_itself(
    pair: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TASKS_PER_PEER", 2)
    for number in range(3):
        ask(pair, "a", "coder", task=f"t{number}")
    assert fault(pair, task="t2").code is FaultCode.OVERLOADED


# --- a link that damages ------------------------------------------------------------------------
def lossy(pair: Mesh, plan: Sequence[int]) -> None:
    """Damage item messages from B: 0 drops, 1 passes, 2 doubles, 3 holds back for the next."""
    steps = iter(plan)
    held: list[Message] = []

    def damage(sender: NodeId, _to: NodeId, message: Message) -> list[Message] | None:
        if sender != "b" or not isinstance(message, TaskChunk | TaskEnded):
            return None
        match next(steps, 1):
            case 0:
                return []
            case 2:
                return [message, message]
            case 3:
                held.append(message)
                return []
        late, held[:] = held[:], []
        return [message, *late]

    pair.filter = damage


@given(plan=st.lists(st.integers(0, 3), max_size=40), count=st.integers(1, 20))
def test_every_item_arrives_once_and_in_order_whatever_the_link_does(
    plan: list[int], count: int
) -> None:
    mesh = Mesh()
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    lossy(mesh, plan)
    ask(mesh, "a", "coder")
    words = [f"w{number} " for number in range(count)]
    for word in words:
        produce(mesh, "b", word)
        mesh.pass_time(20)
    end(mesh, "b")
    mesh.pass_time(limits.SILENCE_MS * 4)
    assert text(mesh) == "".join(words)
    assert [type(e) for e in ends(mesh)] == [FinishTask]


def test_a_lost_submit_is_sent_again_and_runs_once(pair: Mesh) -> None:
    lost: list[Message] = []

    def lose(_from: NodeId, _to: NodeId, message: Message) -> list[Message] | None:
        if isinstance(message, TaskSubmit) and not lost:
            lost.append(message)
            return []
        return [message, message] if isinstance(message, TaskSubmit) else None

    pair.filter = lose
    ask(pair, "a", "coder")
    assert runs(pair, "b") == []
    pair.pass_time(limits.SUBMIT_RETRY_MS + 1)
    assert len(runs(pair, "b")) == 1


def test_a_late_submit_of_a_finished_task_does_not_run_again(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    submit = next(m for m in pair.seen["a", "b"] if isinstance(m, TaskSubmit))
    produce(pair, "b", "x")
    end(pair, "b")
    pair.give("b", BytesReceived(NodeId("a"), encode(submit)))
    assert len(runs(pair, "b")) == 1


def test_a_stream_nobody_follows_is_cancelled_where_it_comes_from(pair: Mesh) -> None:
    pair.filter = lambda _f, _t, m: [] if isinstance(m, TaskCancel) else None
    ask(pair, "a", "coder")
    pair.give("a", TaskDropped(TaskId("t1")))
    assert pair.effects("b", StopRun) == []
    pair.filter = lambda _f, _t, _m: None
    produce(pair, "b", "x")
    assert len(pair.effects("b", StopRun)) == 1


def test_chunks_of_a_choice_nobody_asked_for_end_the_link(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    pair.give(
        "a", BytesReceived(NodeId("b"), encode(TaskChunk(TaskId("t1"), 1, 0, Chunk(7, (1,), "x"))))
    )
    assert text(pair) == ""
    assert fault(pair).code is FaultCode.PEER_LOST


# --- moving on ----------------------------------------------------------------------------------
def test_death_before_the_first_item_moves_the_task(twins: Mesh) -> None:
    ask(twins, "a", "coder")
    first = twins.effects("a", RouteChosen)[0].node
    twins.break_link("a", first)
    second = twins.effects("a", RouteChosen)[1]
    assert second.node == ({"b", "c"} - {first}).pop()
    assert second.attempt == 2
    produce(twins, second.node, "ok")
    end(twins, second.node)
    assert text(twins) == "ok"
    assert twins.boxes[NodeId("a")].core.status(twins.now).tasks.retried == 1


def test_death_in_the_middle_is_told_to_the_client_where_nobody_can_go_on(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    produce(pair, "b", "half")
    pair.break_link("a", "b")
    assert fault(pair).code is FaultCode.PEER_LOST
    assert len(pair.effects("a", RouteChosen)) == 1


def test_a_refusal_moves_the_task(twins: Mesh) -> None:
    twins.give("b", EngineLost("tiny", "crash", final=True))
    ask(twins, "a", "coder@b", task="only-b")
    ask(twins, "a", "coder")
    produce(twins, "c", "ok")
    end(twins, "c")
    assert text(twins) == "ok"


def test_a_fault_that_every_node_would_find_is_not_retried(twins: Mesh) -> None:
    ask(twins, "a", "coder")
    node = twins.effects("a", RouteChosen)[0].node
    detail = "9000 tokens, not 2048"
    twins.give(node, RunFailed(RunId(1), FaultCode.CONTEXT_OVERFLOW, detail, "max_tokens"))
    assert fault(twins).code is FaultCode.CONTEXT_OVERFLOW
    assert (fault(twins).detail, fault(twins).param) == (detail, "max_tokens")


def test_a_fault_that_is_too_long_for_a_message_is_cut(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    too_long = "\ud800" + "ä" * limits.KIB
    pair.give("b", RunFailed(RunId(1), FaultCode.BAD_REQUEST, too_long, too_long))
    assert fault(pair).detail == "?" + "ä" * 511
    assert fault(pair).param == "?" + "ä" * 63


def test_a_crashed_engine_that_comes_back_answers_after_all(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"))
    ask(mesh, "a", "coder")
    mesh.give("a", EngineLost("tiny", "killed"))
    assert ends(mesh) == []
    mesh.give("a", EngineReady("tiny", SLOTS))
    mesh.pass_time(limits.RETRY_WAIT_MS + 1)
    produce(mesh, "a", "ok", run=2)
    end(mesh, "a", run=2)
    assert text(mesh) == "ok"


def test_a_node_that_never_answers_is_given_up(twins: Mesh) -> None:
    twins.filter = lambda _f, to, m: [] if isinstance(m, TaskSubmit) and to == "b" else None
    ask(twins, "a", "coder@b")
    twins.pass_time(limits.DEADLINE_MS)
    assert fault(twins).code is FaultCode.PEER_LOST


def test_a_stalled_stream_is_probed_and_goes_on(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    pair.pass_time(limits.SILENCE_MS * 3)
    assert ends(pair) == []
    assert any(isinstance(m, TaskResend) for m in pair.seen["a", "b"])
    produce(pair, "b", "slow")
    end(pair, "b")
    assert text(pair) == "slow"


def test_a_node_that_forgot_the_task_is_left(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    pair.give("b", BytesReceived(NodeId("a"), encode(TaskCancel(TaskId("t1"), 1))))
    pair.pass_time(limits.LINGER_MS + limits.SILENCE_MS)
    assert len(pair.effects("a", RouteChosen)) > 1


# --- ends ---------------------------------------------------------------------------------------
def test_the_deadline_ends_it_everywhere(pair: Mesh) -> None:
    ask(pair, "a", "coder", deadline_ms=700)
    pair.pass_time(701)
    assert fault(pair).code is FaultCode.DEADLINE
    assert len(pair.effects("b", StopRun)) == 1


def test_a_client_that_hangs_up_stops_the_run(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    produce(pair, "b", "x")
    pair.give("a", TaskDropped(TaskId("t1")))
    assert len(pair.effects("b", StopRun)) == 1
    assert ends(pair) == []
    assert pair.boxes[NodeId("a")].core.status(pair.now).tasks.cancelled == 1


def test_an_origin_that_dies_stops_its_runs(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    pair.break_link("a", "b")
    assert len(pair.effects("b", StopRun)) == 1


def test_shutting_down_ends_local_tasks_and_hands_back_those_of_peers(twins: Mesh) -> None:
    ask(twins, "a", "coder")
    first = twins.effects("a", RouteChosen)[0].node
    ask(twins, first, "coder", task="own")
    twins.give(first, ShutdownRequested())
    assert fault(twins, first, "own").code is FaultCode.NOT_READY
    assert twins.effects("a", RouteChosen)[-1].node != first
    assert ends(twins) == []
    ask(twins, first, "coder", task="after")
    assert fault(twins, first, "after").code is FaultCode.NOT_READY


def test_finished_runs_are_forgotten_in_time(pair: Mesh) -> None:
    ask(pair, "a", "coder")
    produce(pair, "b", "x")
    end(pair, "b")
    pair.pass_time(limits.LINGER_MS + 2 * limits.PRESENCE_MS)
    pair.seen.clear()
    pair.give("b", BytesReceived(NodeId("a"), encode(TaskResend(TaskId("t1"), 1, 0))))
    (refused,) = pair.seen["b", "a"]
    assert isinstance(refused, TaskRefused)
    assert "not known" in refused.detail


@given(
    st.lists(
        st.sampled_from(
            ["ask", "drop", "produce", "end", "fail", "crash", "ready", "cut", "time", "leave"]
        ),
        max_size=40,
    )
)
def test_every_task_ends_at_most_once_and_none_is_forgotten(steps: list[str]) -> None:
    mesh = Mesh()
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    asked: list[str] = []
    dropped: set[str] = set()
    for step in steps:
        live = [r.run for r in runs(mesh, "b")]
        happenings: dict[str, list[Event]] = {
            "produce": [RunProduced(live[-1], Chunk(0, (1,), "x"))] if live else [],
            "end": [RunEnded(live[-1], Usage(), Timings())] if live else [],
            "fail": [RunFailed(live[-1], FaultCode.INTERNAL, "x")] if live else [],
            "crash": [EngineLost("tiny", "x")],
            "ready": [EngineReady("tiny", SLOTS)],
            "leave": [ShutdownRequested()] if len(steps) % 7 == 0 else [],
        }
        for event in happenings.get(step, []):
            mesh.give("b", event)
        if step == "ask":
            asked.append(f"t{len(asked)}")
            ask(mesh, "a", "coder", task=asked[-1], deadline_ms=20_000)
        elif step == "drop" and asked:
            if not ends(mesh, task=asked[-1]):
                dropped.add(asked[-1])
            mesh.give("a", TaskDropped(TaskId(asked[-1])))
        elif step == "cut" and frozenset("ab") in mesh.links:
            mesh.break_link("a", "b")
        elif step == "time":
            mesh.pass_time(3000)
    mesh.pass_time(20_001)
    for task in asked:
        assert len(ends(mesh, task=task)) == (0 if task in dropped else 1)
    assert mesh.boxes[NodeId("a")].core.status(mesh.now).tasks.active == 0
