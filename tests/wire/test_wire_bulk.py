"""Background messages keep their number, whichever way they go and wherever a way breaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.errors import PeerFault
from meshslm.wire.bulk import Outgoing, decode_count, encode_count
from meshslm.wire.framing import BACKGROUND, LANES, FrameReader, FrameWriter, LaneOverflow

SIZES = st.integers(1, 5000)


class Sender:
    """Background messages of a link that switches between its lane and further connections."""

    def __init__(self) -> None:
        self.kept = FrameWriter()
        self.queued = 0
        self.out: Outgoing | None = None
        self.over = FrameWriter()

    def send(self, message: bytes) -> None:
        if self.out is None:
            self.kept.push(BACKGROUND, message)
            self.queued += 1
        else:
            self.out.push(message)
            self.feed(self.out)

    def feed(self, out: Outgoing) -> None:
        for message in out.due():
            self.over.push(BACKGROUND, message)

    def open(self) -> None:
        withdrawn = self.kept.withdraw(BACKGROUND)
        self.queued -= len(withdrawn)
        self.out, self.over = Outgoing(self.queued, withdrawn), FrameWriter()
        self.feed(self.out)

    def settle(self, count: int) -> None:
        assert self.out is not None
        self.out.told(count)
        rest = self.out.rest()
        self.queued, self.out = self.out.first + len(rest), None
        self.kept.restore(BACKGROUND, rest)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SIZES),
        st.tuples(st.just("kept"), st.integers(1, 9000)),
        st.tuples(st.just("over"), st.integers(1, 9000)),
        st.tuples(st.just("tell"), st.just(0)),
        st.tuples(st.just("switch"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_message_comes_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Bytes of both ways arrive when they like; a way may break at any byte."""
    sender, kept, over = Sender(), FrameReader(), FrameReader()
    sent: list[bytes] = []
    came: list[bytes] = []
    early: list[bytes] = []
    start = 0

    def take(pieces: list[tuple[int, bytes]], *, by_lane: bool) -> None:
        (came if by_lane else early).extend(message for _, message in pieces)
        while early and len(came) >= start:
            came.append(early.pop(0))

    for step, size in [*steps, ("last", 0)]:
        if step == "send":
            sent.append(len(sent).to_bytes(4, "big") + bytes(size))
            sender.send(sent[-1])
        elif step == "kept":
            take(kept.feed(sender.kept.pop(size)), by_lane=True)
        elif step == "over" and sender.out is not None:
            take(over.feed(sender.over.pop(size)), by_lane=False)
        elif step == "tell" and sender.out is not None:
            sender.out.told(decode_count(encode_count(len(came))))
            sender.feed(sender.out)
        elif sender.out is not None and step in ("switch", "last"):
            over, early = FrameReader(), []
            sender.settle(len(came))
        elif step == "switch":
            sender.open()
            assert sender.out is not None
            start = sender.out.first
    while piece := sender.kept.pop(limits.FRAME_BYTES):
        take(kept.feed(piece), by_lane=True)
    assert came == sent
    assert sender.queued == len(sent)


def test_what_is_not_known_to_be_there_is_bounded() -> None:
    out = Outgoing(5, [])
    for _ in range(4):
        out.push(bytes(limits.MIB // 2))
    assert len(list(out.due())) == 2
    assert not list(out.due()), "the rest waits"
    out.told(6)
    assert len(list(out.due())) == 1
    assert (out.first, len(out.rest())) == (6, 3)


def test_what_waits_is_bounded() -> None:
    out = Outgoing(0, [bytes(limits.MIB)] * 3)
    out.push(bytes(limits.MIB))
    with pytest.raises(LaneOverflow):
        out.push(b"x")
    assert len(out.rest()) == 4, "and nothing of it is kept"


def test_counts_of_what_was_never_sent_are_refused() -> None:
    out = Outgoing(3, [b"three", b"four"])
    next(out.due())
    out.told(2)  # late, and known already
    with pytest.raises(PeerFault, match="has 5 messages, of 4 sent"):
        out.told(5)
    assert out.rest() == [b"three", b"four"]


@pytest.mark.parametrize("data", [b"", bytes(7), bytes(9)])
def test_what_is_no_count_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_count(data)


def test_a_message_that_is_begun_stays_in_its_lane() -> None:
    writer, reader = FrameWriter(), FrameReader()
    for size in (100_000, 1, 2):
        writer.push(BACKGROUND, bytes(size))
    writer.push(0, b"urgent")
    messages = reader.feed(writer.pop(66_000))
    assert writer.withdraw(BACKGROUND) == [bytes(1), bytes(2)]
    writer.restore(BACKGROUND, [bytes(3)])
    while piece := writer.pop(66_000):
        messages += reader.feed(piece)
    assert [len(message) for lane, message in messages if lane == BACKGROUND] == [100_000, 3]
    assert not any(writer.queued_bytes(lane) for lane in range(LANES))
