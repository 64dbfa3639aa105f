"""The engine's pipe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.protocol import (
    FRAME_BYTES,
    Beat,
    Command,
    Ended,
    Failed,
    FrameReader,
    Load,
    Loading,
    Measured,
    Produced,
    Ready,
    Report,
    Shutdown,
    Start,
    Stop,
    Unusable,
    decode_commands,
    decode_reports,
    encode,
)
from meshslm.errors import FaultCode, OurFault
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Sampling,
    TaskRequest,
    Timings,
    TokenBias,
    TokenLogprob,
    TopLogprob,
    Usage,
)

REQUEST = TaskRequest(
    "auto",
    messages=(ChatMessage("user", "é", "ann"),),
    stop=("a", "b"),
    sampling=Sampling(seed=-(2**63), logit_bias=(TokenBias(1, -2.5),)),
    logprobs=2,
)
TOP = TopLogprob("x", b"\xff", -0.5)
REPORTS: list[Report] = [
    Loading(0.5),
    Ready(8, 2048, 49152, 10**9, "Q8_0", "llama", 2),
    Unusable("broken"),
    Produced(1, Chunk(0, (1, 2), "é", (TokenLogprob("x", b"x", -1.0, (TOP,)),), "stop")),
    Ended(1, Usage(1, 2, 3), Timings(1.0, 2.0, 3.0)),
    Failed(2, FaultCode.CONTEXT_OVERFLOW, "too long"),
    Measured(1.0, 2.0),
    Beat(),
]


def test_everything_arrives_as_it_was_sent() -> None:
    commands: list[Command] = [
        Load("/m", 2048, 8, 512, None),
        Start(7, REQUEST),
        Stop(7),
        Shutdown(),
    ]
    (body,) = FrameReader().feed(encode(commands))
    assert decode_commands(body) == commands
    (body,) = FrameReader().feed(encode(REPORTS))
    assert decode_reports(body) == REPORTS


@given(st.lists(st.lists(st.sampled_from(REPORTS), max_size=4), max_size=4), st.data())
def test_frames_in_any_pieces(frames: list[list[Report]], data: st.DataObject) -> None:
    stream = b"".join(map(encode, frames))
    reader = FrameReader()
    got = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += [decode_reports(body) for body in reader.feed(stream[:size])]
        stream = stream[size:]
    assert got == frames


def test_a_frame_has_a_bound() -> None:
    with pytest.raises(OurFault, match="frame of"):
        list(FrameReader().feed((FRAME_BYTES + 1).to_bytes(4, "big")))


@given(st.binary(max_size=80))
def test_garbage_is_our_fault(garbage: bytes) -> None:
    for decode in (decode_commands, decode_reports):
        try:
            decode(garbage)
        except OurFault:
            pass
