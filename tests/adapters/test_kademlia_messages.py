"""The DHT's messages: bytes that the libp2p library wrote, a law, and what is not of the form."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import mesh_limits
from meshslm.adapters.kademlia_messages import (
    Answer,
    Peer,
    Place,
    decode_answer,
    decode_place,
    encode_place,
    encode_question,
    encode_record,
)
from meshslm.adapters.multiaddrs import Address, parse
from meshslm.adapters.protobuf import bytes_field, number_field
from meshslm.errors import PeerFault

KEY = b"\x12\x20" + bytes(range(32))
SEAL = b"\x12\x20" + bytes(range(32, 64))
NODE = bytes.fromhex("0024080112206ed489385db2a395f8cc42630b44718d893075a88cac407705fc99d4252dd503")
HERE = Place(parse("/ip4/192.0.2.7/tcp/7415"), SEAL)
HERE_TOO = Place(parse("/ip6/2001:db8::7/tcp/7415"))

QUESTION = "080312221220000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
RECORD = (
    "080212221220000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f4a6d"
    "0a260024080112206ed489385db2a395f8cc42630b44718d893075a88cac407705fc99d4252dd503"
    "122d04c0000207061cf7d203221220202122232425262728292a2b2c2d2e2f303132333435363738"
    "393a3b3c3d3e3f12142920010db8000000000000000000000007061cf7"
)
ANSWER = (
    "080312221220000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f42a6"
    "010a260024080112206ed489385db2a395f8cc42630b44718d893075a88cac407705fc99d4252dd5"
    "03120804c0000208060fa1120b04c000020891020fa1cd03123d2920010db8000000000000000000"
    "000008060fa1a503260024080112206ed489385db2a395f8cc42630b44718d893075a88cac407705"
    "fc99d4252dd5031210360b6578616d706c652e6f7267060fa1120a04c0000208060fa1dd03180222"
    "067369676e6564420e0a0c6e6f206164647265737365734a590a260024080112206ed489385db2a3"
    "95f8cc42630b44718d893075a88cac407705fc99d4252dd503122d04c0000207061cf7d203221220"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f18015a0673656e64"
    "6572"
)

places = st.builds(
    Place,
    st.builds(
        lambda ip, port: Address(f"ip{ip.version}", str(ip), port),
        st.ip_addresses().filter(lambda ip: "%" not in str(ip)),
        st.integers(0, 65535),
    ),
    st.binary(min_size=1, max_size=40) | st.just(b""),
)


def test_what_is_sent_is_what_the_library_would_send() -> None:
    assert encode_question(KEY)[1:].hex() == QUESTION
    assert encode_record(KEY, Peer(NODE, (HERE, HERE_TOO)))[2:].hex() == RECORD


def test_an_answer_of_the_library_is_read_as_far_as_it_is_of_use() -> None:
    """Of a server's addresses those over TCP to an IP address; who has none of them is left out."""
    server = Peer(
        NODE,
        (Place(parse("/ip4/192.0.2.8/tcp/4001")), Place(parse("/ip6/2001:db8::8/tcp/4001"))),
    )
    assert decode_answer(bytes.fromhex(ANSWER)) == Answer((server,), (Peer(NODE, (HERE,)),))


@given(places)
def test_a_place_is_read_as_it_was_written(place: Place) -> None:
    written = encode_place(place)
    assert decode_place(written) == place
    assert all(decode_place(written[:end]) != place for end in range(len(written)))


@given(st.binary(max_size=60))
def test_no_bytes_are_a_place_that_raises(raw: bytes) -> None:
    place = decode_place(raw)
    if place is not None:
        assert str(ipaddress.ip_address(place.address.host)) == place.address.host


@given(st.binary(max_size=300))
def test_whatever_a_server_sends_is_read_or_a_fault(body: bytes) -> None:
    try:
        decode_answer(number_field(1, 3) + body)
    except PeerFault:
        pass  # the only thing that it may raise


@pytest.mark.parametrize(
    "body",
    [
        b"",
        number_field(1, 2),
        bytes_field(1, b"\x03"),
        number_field(1, 3) + number_field(8, 1),
        number_field(1, 3) + bytes_field(8, number_field(2, 1)),
        number_field(1, 3) + bytes_field(9, number_field(1, 1)),
        number_field(1, 3) + bytes_field(8, b"\xff"),
        number_field(1, 3) + b"\x42\x05abc",
    ],
)
def test_what_is_no_answer_is_a_fault(body: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_answer(body)


def test_of_too_many_peers_the_first_are_read() -> None:
    peer = bytes_field(1, NODE) + bytes_field(2, encode_place(HERE))
    body = number_field(1, 3) + 1000 * (bytes_field(8, peer) + bytes_field(9, peer))
    answer = decode_answer(body)
    assert len(answer.closer) == len(answer.providers) == mesh_limits.DHT_CLOSEST
