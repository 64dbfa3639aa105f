"""However a stream is cut, the same messages come out: in order by lane, urgent ones first."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.errors import PeerFault
from meshslm.wire.framing import (
    BACKGROUND,
    BACKGROUND_SHARE,
    FRAGMENT_LEAST,
    HEADER_BYTES,
    LANES,
    PAYLOAD_MOST,
    FrameReader,
    FrameWriter,
    LaneOverflow,
)

LONG = 3 * PAYLOAD_MOST + 17
lanes = st.integers(0, LANES - 1)
sizes = st.sampled_from([1, 2, 300, PAYLOAD_MOST - 1, PAYLOAD_MOST, PAYLOAD_MOST + 1, LONG])
pushes = st.lists(st.tuples(lanes, sizes), max_size=12)


def content(index: int, size: int) -> bytes:
    """Bytes that tell one message, and one place in it, from another."""
    return (b"%d:" % index * (size // 2 + 1))[:size]


def header(lane: int, length: int, *, last: bool) -> bytes:
    return (length | lane << 24 | last << 26).to_bytes(4, "big")


def drain(writer: FrameWriter, budget: int) -> list[bytes]:
    written = []
    while data := writer.pop(budget):
        written.append(data)
    return written


def frames_of(stream: bytes) -> list[tuple[int, int, bool]]:
    """(lane, payload bytes, last) of each frame, read by the book and not by the reader."""
    frames = []
    at = 0
    while at < len(stream):
        number = int.from_bytes(stream[at : at + 4], "big")
        frames.append((number >> 24 & 3, number & 0xFFFFFF, bool(number >> 26 & 1)))
        at += 4 + frames[-1][1]
    return frames


@given(
    pushes=pushes,
    budget=st.sampled_from([1, 1000, limits.FRAME_BYTES, limits.MIB]),
    cuts=st.lists(st.integers(0, 2**22), max_size=8),
)
def test_any_cutting_of_the_stream_gives_the_same_messages(
    pushes: list[tuple[int, int]], budget: int, cuts: list[int]
) -> None:
    writer, reader = FrameWriter(), FrameReader()
    sent: list[list[bytes]] = [[], [], []]
    for index, (lane, size) in enumerate(pushes):
        sent[lane].append(content(index, size))
        writer.push(lane, sent[lane][-1])
    assert [writer.queued_bytes(lane) for lane in range(LANES)] == [
        sum(map(len, sent[lane])) for lane in range(LANES)
    ]
    stream = b"".join(drain(writer, budget))
    assert [writer.queued_bytes(lane) for lane in range(LANES)] == [0] * LANES
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    received: list[list[bytes]] = [[], [], []]
    for start, end in pairwise(edges):
        for lane, message in reader.feed(stream[start:end]):
            received[lane].append(message)
    assert received == sent
    assert reader.partial_bytes == 0


def test_byte_by_byte() -> None:
    writer, reader = FrameWriter(), FrameReader()
    writer.push(1, content(0, PAYLOAD_MOST + 5))
    writer.push(0, b"urgent")
    stream = writer.pop(limits.MIB)
    received = [pair for byte in stream for pair in reader.feed(bytes([byte]))]
    assert received == [(0, b"urgent"), (1, content(0, PAYLOAD_MOST + 5))]


@given(pushes=pushes, budget=st.integers(1, 4 * limits.FRAME_BYTES))
def test_frames_keep_their_size_and_pop_its_budget(
    pushes: list[tuple[int, int]], budget: int
) -> None:
    writer = FrameWriter()
    for index, (lane, size) in enumerate(pushes):
        writer.push(lane, content(index, size))
    for data in drain(writer, budget):
        frames = frames_of(data)
        assert len(data) <= budget or len(frames) == 1
        for _, payload, last in frames:
            assert 1 <= payload <= PAYLOAD_MOST
            assert last or payload >= FRAGMENT_LEAST


@given(pushes=pushes)
def test_the_most_urgent_lane_goes_first(pushes: list[tuple[int, int]]) -> None:
    writer = FrameWriter()
    for index, (lane, size) in enumerate(pushes):
        writer.push(lane, content(index, size))
    order = [lane for data in drain(writer, 1) for lane, _, _ in frames_of(data)]
    urgent = [lane for lane in order if lane < 2]
    assert urgent == sorted(urgent)


def test_an_urgent_message_overtakes_a_long_one_between_its_frames() -> None:
    writer = FrameWriter()
    writer.push(1, content(0, LONG))
    first = writer.pop(limits.FRAME_BYTES)
    writer.push(0, b"urgent")
    rest = writer.pop(limits.MIB)
    assert [lane for lane, _, _ in frames_of(first)] == [1]
    assert [lane for lane, _, _ in frames_of(rest)] == [0, 1, 1, 1]


def test_background_gets_its_share_of_a_busy_link_and_no_more() -> None:
    writer = FrameWriter()
    sent = [0] * LANES
    while sum(sent) < 40 * limits.MIB:
        while writer.queued_bytes(1) < limits.MIB:
            writer.push(1, content(1, 300))
        while writer.queued_bytes(2) < limits.MIB:
            writer.push(2, content(2, LONG))
        for lane, payload, _ in frames_of(writer.pop(limits.FRAME_BYTES)):
            sent[lane] += payload
    assert sent[2] / sum(sent) == pytest.approx(1 / BACKGROUND_SHARE, rel=0.1)


def test_an_idle_link_is_all_for_the_background() -> None:
    writer = FrameWriter()
    writer.push(2, content(0, LONG))
    assert [lane for lane, _, _ in frames_of(writer.pop(limits.MIB))] == [2, 2, 2, 2]


def test_small_messages_are_joined_into_one_write() -> None:
    writer = FrameWriter()
    for index in range(100):
        writer.push(1, content(index, 100))
    assert len(writer.pop(limits.FRAME_BYTES)) == 100 * (100 + HEADER_BYTES)
    assert writer.pop(limits.FRAME_BYTES) == b""


def test_a_full_lane_refuses_and_the_others_do_not_care() -> None:
    writer = FrameWriter()
    writer.push(1, bytes(limits.MESSAGE_BYTES))
    writer.push(1, bytes(limits.LANE_QUEUE_BYTES - limits.MESSAGE_BYTES))
    with pytest.raises(LaneOverflow) as caught:
        writer.push(1, b"x")
    assert caught.value.lane == 1
    assert writer.queued_bytes(1) == limits.LANE_QUEUE_BYTES
    writer.push(0, b"x")
    assert frames_of(writer.pop(1)) == [(0, 1, True)]


@pytest.mark.parametrize("size", [0, limits.MESSAGE_BYTES + 1])
def test_what_cannot_be_framed_is_our_bug(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        FrameWriter().push(0, bytes(size))


# --- hostile streams ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (header(3, 1, last=True), "lane 3"),
        (header(0, 0, last=True), "of 0 bytes"),
        (header(0, 0, last=False), "of 0 bytes"),
        (header(0, FRAGMENT_LEAST - 1, last=False), "of 1023 bytes"),
        (header(0, PAYLOAD_MOST + 1, last=True), "frame of"),
        (b"\xff\xff\xff\xff", "no version"),
        (b"\x08\x00\x00\x01", "no version"),
        (b"GET / HTTP/1.1\r\n", "no version"),
    ],
)
def test_a_forged_header_is_refused_before_its_payload_comes(stream: bytes, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        FrameReader().feed(stream)


def test_a_message_that_never_ends_is_refused_in_bounded_memory() -> None:
    reader = FrameReader()
    frame = header(2, FRAGMENT_LEAST, last=False) + bytes(FRAGMENT_LEAST)
    tracemalloc.start()
    try:
        for _ in range(limits.MESSAGE_BYTES // FRAGMENT_LEAST):
            assert reader.feed(frame) == []
        with pytest.raises(PeerFault, match="message of over"):
            reader.feed(frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * limits.MESSAGE_BYTES


def test_half_a_frame_can_be_seen() -> None:
    reader = FrameReader()
    assert reader.feed(header(0, 10, last=True) + b"12345") == []
    assert reader.partial_bytes == 9
    assert reader.feed(b"67890") == [(0, b"1234567890")]
    assert reader.partial_bytes == 0


def test_the_largest_message_passes() -> None:
    writer, reader = FrameWriter(), FrameReader()
    message = bytes(limits.MESSAGE_BYTES)
    writer.push(2, message)
    received = [pair for data in drain(writer, 1) for pair in reader.feed(data)]
    assert received == [(2, message)]


@given(data=st.lists(st.binary(max_size=100), max_size=5))
def test_random_streams_raise_only_peer_fault(data: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for piece in data:
            for lane, message in reader.feed(piece):
                assert 0 <= lane < LANES
                assert message
    except PeerFault:
        pass  # the one error a stream may cause


@given(pushes=pushes, most=st.integers(1, 12), cut=st.integers(0, 3))
def test_whole_urgent_messages_are_taken_at_once_and_nothing_else_is(
    pushes: list[tuple[int, int]], most: int, cut: int
) -> None:
    writer = FrameWriter()
    for index, (lane, size) in enumerate(pushes):
        writer.push(lane, content(index, size))
    stream = b"".join(drain(writer, limits.MIB))
    stream = stream[: len(stream) - cut]
    frames = frames_of(stream)
    urgent = all(last and lane < BACKGROUND for lane, _, last in frames)
    whole = not cut and urgent and len(frames) <= most
    reader, other = FrameReader(), FrameReader()
    taken = reader.feed_whole(stream, most)
    assert (taken is not None) == (whole or not stream)
    if taken is None:
        assert not reader.partial_bytes
        assert reader.feed(stream) == other.feed(stream), "it is still to be read"
    else:
        assert taken == [message for _, message in other.feed(stream)]


@given(data=st.binary(max_size=40))
def test_what_is_taken_at_once_is_what_is_read_otherwise(data: bytes) -> None:
    taken = FrameReader().feed_whole(data, 5)
    if taken is not None:
        assert taken == [message for _, message in FrameReader().feed(data)]


def test_nothing_is_taken_at_once_while_a_message_is_unfinished() -> None:
    reader = FrameReader()
    reader.feed(header(0, 10, last=True) + b"begun")
    assert reader.feed_whole(header(0, 1, last=True) + b"x", 5) is None
