"""What waits for a slow reader is little, whole and in order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import EmitChunk, FailTask, FinishTask
from meshslm.daemon.task_stream import TaskStream, may_merge, merged, weight
from meshslm.errors import FaultCode
from meshslm.ids import TaskId
from meshslm.wire.messages import CallPiece, Chunk, Timings, TokenLogprob, Usage

TASK = TaskId("t")
WORDS = st.text("ab ", max_size=3)
LOGPROBS = st.sampled_from([(), (TokenLogprob("x", b"x", -0.5),)])

chunks = st.builds(
    Chunk,
    choice=st.integers(0, 1),
    tokens=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    text=WORDS,
    reasoning=WORDS,
    logprobs=LOGPROBS,
    finish=st.sampled_from(["", "", "", "stop"]),
    calls=st.sampled_from([(), (), (), (CallPiece(0, arguments="{"),)]),
)


def told(found: Sequence[Chunk], choice: int) -> tuple[object, ...]:
    """All that a client is told of a choice, in order."""
    mine = [chunk for chunk in found if chunk.choice == choice]
    letters = [
        letter
        for chunk in mine
        for letter in (
            *(f"r{c}" for c in chunk.reasoning),
            *(f"t{c}" for c in chunk.text),
            *(f"c{piece.arguments}" for piece in chunk.calls),
            *([f"f{chunk.finish}"] if chunk.finish else []),
        )
    ]
    tokens = [token for chunk in mine for token in chunk.tokens]
    logprobs = [logprob for chunk in mine for logprob in chunk.logprobs]
    return letters, tokens, logprobs


@given(st.lists(chunks, max_size=40), st.data())
def test_whenever_it_is_read_the_same_is_told(made: list[Chunk], data: st.DataObject) -> None:
    stream, read = TaskStream(TASK), []
    for chunk in made:
        assert stream.push(EmitChunk(TASK, chunk))
        while data.draw(st.booleans()) and (item := stream.take_nowait()) is not None:
            assert isinstance(item, EmitChunk)
            read.append(item.chunk)
    while (item := stream.take_nowait()) is not None:
        assert isinstance(item, EmitChunk)
        read.append(item.chunk)
    for choice in (0, 1):
        assert told(read, choice) == told(made, choice)


@given(st.lists(chunks, max_size=20))
def test_who_keeps_up_gets_every_chunk_as_it_came(made: list[Chunk]) -> None:
    stream = TaskStream(TASK)
    for chunk in made:
        stream.push(EmitChunk(TASK, chunk))
        assert stream.take_nowait() == EmitChunk(TASK, chunk)


@given(chunks, chunks)
def test_two_as_one_weigh_as_much_as_both(first: Chunk, second: Chunk) -> None:
    if may_merge(first, second):
        assert weight(merged(first, second)) == weight(first) + weight(second)


def test_a_long_answer_that_nobody_reads_becomes_few_items() -> None:
    stream = TaskStream(TASK)
    for number in range(10 * limits.MERGED_TOKENS):
        assert stream.push(EmitChunk(TASK, Chunk(0, (number,), "x")))
    items = []
    while (item := stream.take_nowait()) is not None:
        items.append(item)
    assert len(items) == 10


def test_what_waits_is_bounded_and_the_end_says_why() -> None:
    stream, pushed = TaskStream(TASK), 0
    word = "x" * 1000
    while stream.push(EmitChunk(TASK, Chunk(0, (1,), word))):
        pushed += len(word)
        assert pushed < limits.STREAM_BYTES
    assert stream.ended
    kept, last = 0, None
    while (item := stream.take_nowait()) is not None:
        kept += weight(item.chunk) if isinstance(item, EmitChunk) else 0
        last = item
    assert kept <= limits.STREAM_BYTES
    assert isinstance(last, FailTask)
    assert last.code is FaultCode.CANCELLED
    assert "too slowly" in last.detail


def test_reading_makes_room_again() -> None:
    stream, word = TaskStream(TASK), "x" * 1000
    for _ in range(2 * limits.STREAM_BYTES // 1000):
        assert stream.push(EmitChunk(TASK, Chunk(0, (1,), word)))
        stream.take_nowait()
    assert stream.push(FinishTask(TASK, Usage(), Timings()))


def test_items_with_nothing_in_them_are_bounded_too() -> None:
    stream, pushed = TaskStream(TASK), 0
    while stream.push(EmitChunk(TASK, Chunk(0))):
        pushed += 1
        assert pushed < limits.STREAM_BYTES / 100
    assert stream.ended
