"""Streams from peers that send what they must not: nothing wrong is told, kept or given away."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import (
    BytesReceived,
    EmitChunk,
    FinishTask,
    RunEnded,
    RunProduced,
    StopRun,
    TaskArrived,
)
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.codec import encode
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Message,
    TaskAccepted,
    TaskCancel,
    TaskChunk,
    TaskDone,
    TaskEnded,
    TaskRefused,
    TaskRequest,
    TaskResend,
    Timings,
    Usage,
)
from tests.core.mesh import Mesh, specialist

TASK = TaskId("t1")
WORDS = ("one ", "two ", "three ", "four ")


def begun() -> Mesh:
    """A asked B, whose first two words are here; C is a member with nothing to do."""
    mesh = Mesh()
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c")
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    mesh.add("d", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    request = TaskRequest("coder", (ChatMessage("user", "secret"),))
    mesh.give("a", TaskArrived(TASK, request))
    for place in range(2):
        mesh.give("b", RunProduced(RunId(1), Chunk(0, (place,), WORDS[place])))
    return mesh


def send(mesh: Mesh, to: str, sender: str, message: Message) -> list[Message]:
    """A message that nobody's core decided to send; what comes back."""
    before = len(mesh.seen[to, sender])
    mesh.give(to, BytesReceived(NodeId(sender), encode(message)))
    return mesh.seen[to, sender][before:]


def finish(mesh: Mesh) -> None:
    for place in range(2, len(WORDS)):
        mesh.give("b", RunProduced(RunId(1), Chunk(0, (place,), WORDS[place])))
    mesh.give("b", RunEnded(RunId(1), Usage(1, 4), Timings()))


def told(mesh: Mesh) -> str:
    return "".join(effect.chunk.text for effect in mesh.effects("a", EmitChunk))


def whole(mesh: Mesh) -> bool:
    return told(mesh) == "".join(WORDS) and len(mesh.effects("a", FinishTask)) == 1


def test_who_never_sent_the_prompt_gets_nothing_of_the_answer() -> None:
    mesh = begun()
    for seq in (0, 1, 2**40):
        (answer,) = send(mesh, "b", "d", TaskResend(TASK, 1, seq))
        assert isinstance(answer, TaskRefused)
        assert answer.code == FaultCode.PEER_LOST
    finish(mesh)
    assert whole(mesh)


def test_who_never_sent_the_prompt_can_end_nothing() -> None:
    mesh = begun()
    send(mesh, "b", "d", TaskCancel(TASK, 1))
    send(mesh, "b", "d", TaskDone(TASK, 1))
    assert not mesh.effects("b", StopRun)
    finish(mesh)
    assert whole(mesh)


def test_items_of_a_node_that_was_not_asked_are_nobodys() -> None:
    mesh = begun()
    (answer,) = send(mesh, "a", "c", TaskChunk(TASK, 1, 2, Chunk(0, (9,), "lies ")))
    assert answer == TaskCancel(TASK, 1)
    (answer,) = send(mesh, "a", "c", TaskEnded(TASK, 1, 2, Usage(), Timings()))
    assert answer == TaskDone(TASK, 1)
    finish(mesh)
    assert whole(mesh)


@given(st.lists(st.integers(0, 3), max_size=12))
def test_doubled_and_disordered_items_are_told_once_and_in_order(order: list[int]) -> None:
    mesh = begun()
    for seq in order:
        chunk = Chunk(0, (seq,), WORDS[seq])
        send(mesh, "a", "b", TaskChunk(TASK, 1, seq, chunk))
        assert "".join(WORDS).startswith(told(mesh))
    finish(mesh)
    assert whole(mesh)


def test_as_many_items_are_kept_as_there_is_room_for_and_no_more() -> None:
    mesh = begun()
    for seq in range(3, 3 + limits.REORDER_ITEMS + 20):
        send(mesh, "a", "b", TaskChunk(TASK, 1, seq, Chunk(0, (1,), "x")))
    assert told(mesh) == "".join(WORDS[:2])  # the mesh checks the bound after each


@given(st.lists(st.integers(2, 2**40), min_size=1, max_size=400))
def test_items_of_a_far_future_are_kept_within_a_bound(seqs: list[int]) -> None:
    mesh = begun()
    for seq in seqs:
        send(mesh, "a", "b", TaskChunk(TASK, 1, seq + limits.REORDER_ITEMS, Chunk(0, (1,), "x")))
    assert told(mesh) == "".join(WORDS[:2])  # the mesh checks the bound after each


def test_items_after_the_end_are_answered_with_thanks() -> None:
    mesh = begun()
    finish(mesh)
    (answer,) = send(mesh, "a", "b", TaskChunk(TASK, 1, 7, Chunk(0, (1,), "more ")))
    assert answer == TaskCancel(TASK, 1)
    (answer,) = send(mesh, "a", "b", TaskEnded(TASK, 1, 8, Usage(), Timings()))
    assert answer == TaskDone(TASK, 1)
    assert whole(mesh)


def test_items_of_another_attempt_are_nobodys() -> None:
    mesh = begun()
    (answer,) = send(mesh, "a", "b", TaskChunk(TASK, 2, 0, Chunk(0, (1,), "again ")))
    assert answer == TaskCancel(TASK, 2)
    finish(mesh)
    assert whole(mesh)


def test_what_a_slow_link_brings_is_not_asked_for_again_and_again() -> None:
    """A long answer was missed; of its items one comes each two milliseconds."""
    mesh, wire = begun(), Wire()
    mesh.filter = lambda source, _to, _m: () if source == "b" else None
    count, each_ms = 300, 2
    for place in range(2, count):
        mesh.give("b", RunProduced(RunId(1), Chunk(0, (place,), "x")))
    mesh.filter = wire.takes
    send(mesh, "a", "b", TaskAccepted(TASK, 1, 0, count))
    for _ in range(2 * count):
        mesh.pass_time(each_ms)
        wire.brings(mesh)
    assert len(told(mesh)) == len("".join(WORDS[:2])) + count - 2
    assert wire.most <= 3 * limits.RESEND_ITEMS
    assert not wire.items


class Wire:
    """From B to A; holds what is on its way."""

    def __init__(self) -> None:
        self.items: deque[Message] = deque()
        self.most = 0

    def takes(self, source: NodeId, _to: NodeId, message: Message) -> tuple[()] | None:
        if source != "b" or not isinstance(message, TaskChunk | TaskAccepted):
            return None
        self.items.append(message)
        self.most = max(self.most, len(self.items))
        return ()

    def brings(self, mesh: Mesh) -> None:
        if self.items:
            mesh.give("a", BytesReceived(NodeId("b"), encode(self.items.popleft())))
