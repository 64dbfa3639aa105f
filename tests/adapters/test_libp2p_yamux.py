"""The multiplexer by itself: any cut of the bytes gives the same streams; every bound holds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.adapters.libp2p_yamux import (
    INITIAL_WINDOW,
    RECEIVE_WINDOW,
    GoneAway,
    PongReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    YamuxSession,
)
from meshslm.errors import PeerFault

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + body


def pair(most_streams: int = 16) -> tuple[YamuxSession, YamuxSession]:
    return (
        YamuxSession(dialled=True, most_streams=most_streams),
        YamuxSession(dialled=False, most_streams=most_streams),
    )


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_bytes_arrive_however_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    dialler, other = pair()
    stream = dialler.open()
    for piece in pieces:
        dialler.send(stream, piece)
    dialler.end(stream)
    sent = dialler.take()
    received, ended, at, turn = b"", False, 0, 0
    while at < len(sent):
        size = cuts[turn % len(cuts)]
        for event in other.receive(sent[at : at + size]):
            if isinstance(event, StreamData):
                assert not ended
                received += event.data
            elif isinstance(event, StreamEnded):
                ended = not event.reset
        at, turn = at + size, turn + 1
    assert received == b"".join(pieces)
    assert ended


def test_the_window_grows_beyond_the_first_and_is_given_back_when_read() -> None:
    dialler, other = pair()
    stream = dialler.open()
    assert dialler.window(stream) == INITIAL_WINDOW
    other.receive(dialler.take())
    dialler.receive(other.take())
    assert dialler.window(stream) == RECEIVE_WINDOW
    dialler.send(stream, bytes(RECEIVE_WINDOW))
    assert dialler.window(stream) == 0
    with pytest.raises(ValueError, match="window"):
        dialler.send(stream, b"x")
    other.receive(dialler.take())
    assert not other.consume(stream, RECEIVE_WINDOW // 2 - 1)
    assert other.take() == b""
    assert other.consume(stream, 1)
    dialler.receive(other.take())
    assert dialler.window(stream) == RECEIVE_WINDOW // 2


def test_both_ends_forget_a_stream_that_both_ended() -> None:
    dialler, other = pair(most_streams=1)
    for _ in range(3):
        stream = dialler.open()
        dialler.end(stream)
        assert other.receive(dialler.take())[0] == StreamOpened(stream)
        other.end(stream)
        assert dialler.receive(other.take())[-1] == StreamEnded(stream, reset=False)


def test_a_reset_ends_both_directions() -> None:
    dialler, other = pair()
    stream = dialler.open()
    other.receive(dialler.take())
    dialler.receive(other.take())
    other.reset(stream)
    dialler.send(stream, b"on its way")
    assert dialler.receive(other.take()) == [StreamEnded(stream, reset=True)]
    assert dialler.window(stream) == 0
    assert other.receive(dialler.take()) == []


def test_pings_are_answered_and_leaving_is_heard() -> None:
    dialler, other = pair()
    dialler.ping(77)
    dialler.go_away()
    assert other.receive(dialler.take()) == [GoneAway(0)]
    assert dialler.receive(other.take()) == [PongReceived(77)]


OPENED = frame(WINDOW, SYN, 1, 0)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x01" + bytes(11), "version 1"),
        (frame(9, 0, 0, 0), "type 9"),
        (frame(WINDOW, SYN, 2, 0), "not its own"),
        (OPENED + OPENED, "not its own"),
        (frame(WINDOW, SYN, 3, 0) + OPENED, "not its own"),
        (frame(WINDOW, SYN, 0, 0), "not its own"),
        (frame(DATA, 0, 1, 1, b"x"), "never opened"),
        (frame(DATA, 0, 2, 1, b"x"), "never opened"),
        (frame(WINDOW, 0, 0, 9), "never opened"),
        (OPENED + frame(DATA, 0, 1, RECEIVE_WINDOW + 1), "were allowed"),
        (OPENED + frame(DATA, 0, 1, 2**32 - 1), "were allowed"),
        (OPENED + frame(DATA, FIN, 1, 1, b"x") + frame(DATA, 0, 1, 1, b"x"), "were allowed"),
        (b"".join(frame(WINDOW, SYN, n, 0) for n in range(1, 40, 2)), "more than 16 streams"),
        (frame(PING, SYN, 0, 1) * 6000, "answers"),
    ],
)
def test_what_breaks_the_protocol_is_the_peers_fault(data: bytes, complaint: str) -> None:
    _, session = pair()
    with pytest.raises(PeerFault, match=complaint):
        session.receive(data)


def test_a_window_is_never_exceeded_in_small_steps() -> None:
    _, session = pair()
    session.receive(OPENED)
    piece = bytes(64 * 1024)
    for _ in range(RECEIVE_WINDOW // len(piece)):
        session.receive(frame(DATA, 0, 1, len(piece), piece))
    with pytest.raises(PeerFault, match="were allowed"):
        session.receive(frame(DATA, 0, 1, 1))


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_garbage_raises_nothing_but_peer_fault(pieces: list[bytes]) -> None:
    _, session = pair()
    try:
        session.receive(OPENED)
        for piece in pieces:
            session.receive(piece)
    except PeerFault:
        pass


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.integers(0, 15),
            st.integers(0, 6),
            st.integers(0, 40),
            st.binary(),
        ),
        max_size=30,
    )
)
def test_frames_in_any_order_raise_nothing_but_peer_fault(
    frames: list[tuple[int, int, int, int, bytes]],
) -> None:
    for dialled in (False, True):
        session = YamuxSession(dialled=dialled, most_streams=3)
        session.open()
        try:
            for kind, flags, stream, length, body in frames:
                session.receive(frame(kind, flags, stream, length, body[:length]))
        except PeerFault:
            pass
