"""The codec's laws, over every message class: strategies are built from the schema itself."""

from __future__ import annotations

import dataclasses
import tracemalloc
from functools import cache
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshslm import limits
from meshslm.errors import FaultCode, PeerFault
from meshslm.ids import TaskId
from meshslm.wire.codec import COMPILED, UnknownKind, decode, encode, message_classes
from meshslm.wire.detection import Ping
from meshslm.wire.messages import (
    Chunk,
    EngineLoad,
    Message,
    Presence,
    TaskChunk,
    TaskEnded,
    TaskRefused,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from meshslm.wire.schema import MOST_ITEMS, Field, fields_of

CLASSES = pytest.mark.parametrize("cls", list(COMPILED), ids=lambda cls: cls.__name__)
FIELDS = pytest.mark.parametrize(
    "field",
    [pytest.param(f, id=f"{f.owner}.{f.name}") for cls in COMPILED for f in fields_of(cls)],
)
TASK = TaskId("t")
PARTS = {cls.__name__: cls for cls in COMPILED}


# --- strategies ---------------------------------------------------------------------------------
def items_of(field: Field) -> st.SearchStrategy[Any]:
    tag = field.tag
    if field.kind is bool:
        return st.booleans()
    if field.kind is int:
        return st.integers(int(tag.least), int(tag.most or 0))
    if field.kind is float:
        return st.floats(float(tag.least), float(tag.most or 0), allow_nan=False)
    short = min(int(tag.most or 0) // 4, 20)
    if field.kind is str:
        return st.text(st.characters(codec="utf-8"), max_size=short)
    if field.kind is bytes:
        return st.binary(max_size=short)
    return instances_of(field.kind)


def values_of(field: Field) -> st.SearchStrategy[Any]:
    one = items_of(field)
    if field.many:
        return st.lists(one, max_size=min(field.tag.items or 0, 3)).map(tuple)
    return st.none() | one if field.optional else one


def instances_of(cls: type) -> st.SearchStrategy[Any]:
    return _instances_of(cls)


@cache
def _instances_of(cls: type) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{field.name: values_of(field) for field in fields_of(cls)})


messages = st.one_of([instances_of(cls) for cls in message_classes()])


def least_of(cls: type) -> Any:
    """An instance with small proper values in every field that is required."""
    values: dict[type, Any] = {bool: False, int: 1, float: 0.0, str: "x", bytes: b"x"}
    return cls(
        **{
            f.name: () if f.many else least_of(f.kind) if f.nested else values[f.kind]
            for f in fields_of(cls)
            if f.required
        }
    )


def parsed(plain: dict[int, Any]) -> Any:
    """What the parser makes of it: lists become tuples."""
    return msgpack.unpackb(msgpack.packb(plain), use_list=False, strict_map_key=False)


# --- round trips --------------------------------------------------------------------------------
@CLASSES
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_class_survives_the_way_there_and_back(cls: type, data: st.DataObject) -> None:
    instance = data.draw(instances_of(cls))
    plain = COMPILED[cls].encode(instance)
    assert list(plain) == sorted(plain)
    assert COMPILED[cls].decode(parsed(plain)) == instance
    if cls in message_classes():
        encoded = encode(instance)
        assert decode(encoded) == instance
        assert encode(decode(encoded)) == encoded


@given(message=messages, number=st.integers(100, 2**32), value=st.integers() | st.text())
def test_unknown_fields_anywhere_change_nothing(message: Message, number: int, value: Any) -> None:
    value = str(value)

    def add(plain: Any) -> Any:
        if isinstance(plain, dict):
            return {**{key: add(one) for key, one in plain.items()}, number: value}
        return [add(one) for one in plain] if isinstance(plain, list) else plain

    later = msgpack.packb(add(msgpack.unpackb(encode(message), strict_map_key=False)))
    assert decode(later) == message


def test_a_whole_number_is_read_where_a_float_is_meant() -> None:
    message = TaskEnded(TASK, 1, 0, Usage(), Timings(3, 4, 0))
    assert encode(message) == encode(TaskEnded(TASK, 1, 0, Usage(), Timings(3.0, 4.0, 0.0)))
    raw = msgpack.packb([TaskEnded.KIND, {1: "t", 2: 1, 3: 0, 4: {}, 5: {1: 3, 2: 4}}])
    read = decode(raw)
    assert isinstance(read, TaskEnded)
    assert [type(read.timings.queue_ms), read.timings.queue_ms] == [float, 3.0]


def test_text_of_an_enumeration_is_sent_as_text() -> None:
    read = decode(encode(TaskRefused(TASK, 1, FaultCode.OVERLOADED)))
    assert isinstance(read, TaskRefused)
    assert type(read.code) is str
    assert read.code == "overloaded"


# --- bounds -------------------------------------------------------------------------------------
def improper(field: Field) -> list[Any]:
    """Values of one item that must be refused, with the right and with wrong types."""
    tag = field.tag
    wrong: list[Any] = [(), {}, None, b"" if field.kind is str else ""]
    if field.nested:
        return [(), {}, 1, "x"]
    if field.kind is bool:
        return [*wrong, 0, 1]
    if field.kind in (int, float):
        assert tag.most is not None
        over = [tag.most + 1, tag.least - 1] if field.kind is int else [tag.most * 2 + 1, -1e300]
        return [*wrong, *over, True, float("nan"), float("inf"), float("-inf")]
    most = int(tag.most or 0)
    return [*wrong, 1, *(["x" * (most + 1), "é" * (most // 2 + 1)] if field.kind is str else [])]


@FIELDS
def test_an_improper_value_is_refused_both_ways_with_its_name(field: Field) -> None:
    cls = PARTS[field.owner]
    proper = least_of(cls)
    for value in improper(field):
        if not field.required and not field.many and value == field.default:
            continue  # as absent as the default itself
        bad = (value,) if field.many else value
        with pytest.raises(ValueError, match=f"{field.owner}.{field.name} "):
            COMPILED[cls].encode(dataclasses.replace(proper, **{field.name: bad}))
        if field.nested and value == {}:
            continue  # on the wire this is a part
        with pytest.raises(PeerFault, match=field.kind.__name__ if field.nested else field.name):
            COMPILED[cls].decode({**parsed(COMPILED[cls].encode(proper)), field.tag.number: bad})


@FIELDS
def test_a_list_that_is_too_long_or_none_is_refused(field: Field) -> None:
    if not field.many:
        return
    cls = PARTS[field.owner]
    proper = least_of(cls)
    one = least_of(field.kind) if field.nested else {int: 1, str: "x", bytes: b"x"}[field.kind]
    for bad in ((one,) * ((field.tag.items or 0) + 1), "text", 7):
        with pytest.raises(ValueError, match=f"{field.owner}.{field.name} "):
            COMPILED[cls].encode(dataclasses.replace(proper, **{field.name: bad}))
        with pytest.raises(PeerFault, match=f"{field.owner}.{field.name} "):
            COMPILED[cls].decode({**parsed(COMPILED[cls].encode(proper)), field.tag.number: bad})


@FIELDS
def test_what_is_required_is_missed_by_name(field: Field) -> None:
    cls = PARTS[field.owner]
    plain = COMPILED[cls].encode(least_of(cls))
    if field.required:
        del plain[field.tag.number]
        with pytest.raises(PeerFault, match=f"{field.owner}.{field.name} .* is missing"):
            COMPILED[cls].decode(plain)
    else:
        assert field.tag.number not in plain


def test_a_message_over_the_size_limit_is_not_written() -> None:
    best = TopLogprob("x" * 1024, b"x" * 1024, 0.0)
    chunk = Chunk(0, logprobs=(TokenLogprob("", b"", 0.0, (best,) * 20),) * 64)
    with pytest.raises(ValueError, match="TaskChunk takes"):
        encode(TaskChunk(TASK, 1, 0, chunk))


def test_lone_surrogates_are_not_written() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        encode(TaskRefused(TASK, 1, "x", "\ud800"))


# --- hostile bytes ------------------------------------------------------------------------------
def only_peer_fault(data: bytes) -> None:
    """Either refused by blaming the peer, or a message that we could have sent ourselves."""
    try:
        message = decode(data)
    except PeerFault as fault:
        blame = str(fault)
    else:
        blame = ""
        encode(message)
    assert len(blame) < 400


def mutated(data: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    changed = bytearray(data)
    for kind, where, byte in changes:
        at = where % (len(changed) + 1)
        if kind == 0:
            changed[at : at + 1] = bytes([byte])
        elif kind == 1:
            changed[at:at] = bytes([byte])
        else:
            del changed[at : at + byte % 8]
    return bytes(changed)


changes = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2**16), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 9), inner),
    max_leaves=12,
)  # fmt: skip
kinds = st.sampled_from([cls.KIND for cls in message_classes()])
fields = st.dictionaries(st.integers(0, 10), plain_values, max_size=9)


@given(data=st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    only_peer_fault(data)


@given(message=messages, how=changes)
def test_messages_damaged_on_the_way(message: Message, how: list[tuple[int, int, int]]) -> None:
    only_peer_fault(mutated(encode(message), how))


@given(kind=kinds, content=fields)
def test_sound_msgpack_with_wrong_content(kind: int, content: dict[int, Any]) -> None:
    only_peer_fault(msgpack.packb([kind, content]))


@pytest.mark.long
@settings(max_examples=15_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400), message=messages, how=changes, kind=kinds, content=fields)
def test_hostile_bytes_for_long(
    data: bytes, message: Message, how: list[tuple[int, int, int]], kind: int, content: Any
) -> None:
    only_peer_fault(data)
    only_peer_fault(mutated(encode(message), how))
    only_peer_fault(msgpack.packb([kind, content]))
    only_peer_fault(mutated(msgpack.packb([kind, content]), how))


BOMBS = {
    "lists in a list": b"\xdc\x04\x00" + b"\xdc\x04\x00" * 1024,
    "deepest lists": b"\x91" * limits.MESSAGE_BYTES,
    "deepest maps": b"\x81\x01" * (limits.MESSAGE_BYTES // 2),
    "longest lists in each other": b"\xdc\x04\x00" * (limits.MESSAGE_BYTES // 3),
    "two million empty lists": msgpack.packb([[[[[]] * 1000] * 1000] * 2, {}])[: 2 * limits.MIB],
    "two million empty maps": msgpack.packb([6, {9: [[[{}] * 1000] * 1000] * 2}])[: 2 * limits.MIB],
    "a list that claims everything": b"\x92\x03\xdd\xff\xff\xff\xff",
    "a text that claims everything": b"\x92\x02\x81\x01\xdb\xff\xff\xff\xff",
    "a map that claims everything": b"\x92\x02\xdf\xff\xff\xff\xff",
    "too large": b"\xc0" * (limits.MESSAGE_BYTES + 1),
}


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_bombs_are_refused_in_little_memory(bomb: str) -> None:
    data = BOMBS[bomb]
    tracemalloc.start()
    try:
        with pytest.raises(PeerFault):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * limits.MIB


def test_the_largest_honest_chunk_is_not_taken_for_a_bomb() -> None:
    token = TokenLogprob("ab", b"ab", -1.5, (TopLogprob("ab", b"ab", -1.5),) * limits.TOP_LOGPROBS)
    message = TaskChunk(TASK, 1, 0, Chunk(0, tuple(range(MOST_ITEMS)), logprobs=(token,) * 1024))
    assert decode(encode(message)) == message


def test_an_unknown_kind_can_be_told_from_rubbish() -> None:
    with pytest.raises(UnknownKind) as caught:
        decode(msgpack.packb([99, {1: 2}]))
    assert caught.value.kind == 99


def test_an_error_names_class_field_and_numbers() -> None:
    load = {1: "m", 2: True, 3: -4}
    with pytest.raises(PeerFault) as caught:
        decode(msgpack.packb([Presence.KIND, {1: 1, 2: 2, 3: [load]}]))
    assert str(caught.value) == (
        "EngineLoad.running (field 3) is -4, must be from 0 to 9007199254740992"
    )


def test_a_failed_encoding_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="nonce"):
        encode(Ping(-1))
    assert decode(encode(Ping(5))) == Ping(5)
    assert encode(Presence(1, 2, (EngineLoad("m", ready=True),))).hex() == (
        "92038301010202039182" + "01a16d02c3"
    )
