"""The relay's messages: golden bytes, a law, and everything that is not of the form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.adapters.circuit_messages import (
    Hop,
    HopMessage,
    Limit,
    Status,
    Stop,
    StopMessage,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from meshslm.adapters.protobuf import varint
from meshslm.errors import PeerFault

numbers = st.integers(min_value=0, max_value=2**64 - 1)
limits_drawn = st.builds(Limit, st.integers(0, 2**32 - 1), numbers)


def body(framed: bytes) -> bytes:
    """Without the length, which all of these have in one or two bytes."""
    return framed[1 if framed[0] < 0x80 else 2 :]


def test_bytes_are_those_of_the_specification() -> None:
    assert encode_hop(HopMessage(Hop.RESERVE)) == bytes.fromhex("020800")
    connect = HopMessage(Hop.CONNECT, b"\x01\x02")
    assert encode_hop(connect) == bytes.fromhex("08080112040a020102")
    answer = HopMessage(Hop.STATUS, b"", 300, Limit(60, 1024), Status.OK)
    told = "08021a0308ac022205083c1080082864"
    assert encode_hop(answer) == bytes.fromhex("10" + told)
    called = StopMessage(Stop.CONNECT, b"\x07", Limit(60, 1024))
    assert encode_stop(called) == bytes.fromhex("0e080012030a01071a05083c108008")
    assert encode_stop(StopMessage(Stop.STATUS, status=Status.OK)) == bytes.fromhex("0408012064")


@given(
    st.builds(
        HopMessage,
        st.sampled_from(list(Hop)),
        st.binary(max_size=64),
        numbers,
        limits_drawn,
        st.sampled_from(list(Status)),
    )
)
def test_what_was_written_is_read(message: HopMessage) -> None:
    assert decode_hop(body(encode_hop(message))) == message


@given(
    st.builds(
        StopMessage,
        st.sampled_from(list(Stop)),
        st.binary(max_size=64),
        limits_drawn,
        st.sampled_from(list(Status)),
    )
)
def test_what_was_written_to_the_called_is_read(message: StopMessage) -> None:
    assert decode_stop(body(encode_stop(message))) == message


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_a_fault(raw: bytes) -> None:
    for decode in (decode_hop, decode_stop):
        try:
            decode(raw)
        except PeerFault:
            pass


def test_unknown_fields_are_skipped() -> None:
    more = bytes.fromhex("7a0141a106" + "00" * 8 + "ad06" + "00" * 4 + "b00605")
    assert decode_hop(more + body(encode_hop(HopMessage(Hop.RESERVE)))) == HopMessage(Hop.RESERVE)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x08",
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x08" + b"\xff" * 9 + b"\x7f",
        b"\x00\x00",
        b"\x0b",
        b"\x12\x05\x0a",
        b"\x12\xff\xff\xff\xff\x7f",
        b"\x10\x01",
        b"\x0a\x01\x00",
        b"\x12\x02\x08\x01",
        b"\x09\x00",
    ],
)
def test_what_is_not_of_the_form_is_refused(raw: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_hop(raw)


@pytest.mark.parametrize(("number", "written"), [(0, "00"), (127, "7f"), (300, "ac02")])
def test_numbers_are_written_seven_bits_a_byte(number: int, written: str) -> None:
    assert varint(number) == bytes.fromhex(written)
