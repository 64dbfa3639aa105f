"""What updates pass the check: all that we write, and nothing that an author must not do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from meshslm import state_limits
from meshslm.errors import PeerFault
from meshslm.state.entry import Entry, pack, unpack
from meshslm.state.part import Part, PartKey, client_id
from meshslm.state.validate import check_update
from tests.state.updates import KEY, damaged, history

CLIENT = client_id(KEY)


@given(st.integers(0, 2**32))
def test_all_that_we_write_passes(seed: int) -> None:
    part = Part(KEY)
    for update, before, after in history(seed):
        changes = check_update(update, CLIENT, before)
        assert before + changes.count == after
        assert not set(changes.made) & set(part.live)
        part.apply(update, after)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_sound(data: bytes) -> None:
    try:
        check_update(data, CLIENT, 0)
    except PeerFault:
        return
    part = Part(KEY)
    part.apply(data, check_update(data, CLIENT, 0).count)


@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_damaged_updates_are_refused_or_sound(seed: int, draw: Any) -> None:
    update, before, _ = history(seed, 3)[draw.randrange(3)]
    try:
        check_update(damaged(update, draw), CLIENT, before)
    except PeerFault:
        return


def made_by(client: int, do: Any) -> bytes:
    """What the library sends of what `do` does to a document's map."""
    doc: Doc[Any] = Doc(client_id=client)
    root: Map[Any] = doc.get("m", type=Map)
    with doc.transaction():
        do(doc, root)
    return doc.get_update()


ENTRY = pack(Entry(b"v", 1))


@pytest.mark.parametrize(
    "do",
    [
        lambda _doc, root: root.update({"k": "text"}),
        lambda _doc, root: root.update({"k": 7.0}),
        lambda _doc, root: root.update({"k": {"a": b"b"}}),
        lambda _doc, root: root.update({"k": Map({"a": ENTRY})}),
        lambda _doc, root: root.update({"k": Array([ENTRY])}),
        lambda _doc, root: root.update({"k": Text("hello")}),
        lambda _doc, root: root.update({"k": Doc()}),
        lambda _doc, root: root.update({"k": b"no entry\xff"}),
        lambda _doc, root: root.update({"": ENTRY}),
        lambda _doc, root: root.update({"a\nb": ENTRY}),
        lambda _doc, root: root.update({"k" * 300: ENTRY}),
        lambda doc, _root: doc.get("other", type=Map).update({"k": ENTRY}),
        lambda doc, _root: doc.get("t", type=Text).insert(0, "hello"),
    ],
)
def test_whatever_is_no_flat_map_of_entries_is_refused(do: Any) -> None:
    with pytest.raises(PeerFault):
        check_update(made_by(CLIENT, do), CLIENT, 0)


def test_another_client_id_is_refused() -> None:
    with pytest.raises(PeerFault, match="client"):
        check_update(made_by(5, lambda _d, root: root.update({"k": ENTRY})), CLIENT, 0)


def test_items_of_two_clients_are_refused() -> None:
    doc: Doc[Any] = Doc(client_id=CLIENT)
    doc.apply_update(made_by(5, lambda _d, root: root.update({"k": ENTRY})))
    root: Map[Any] = doc.get("m", type=Map)
    root["mine"] = ENTRY
    with pytest.raises(PeerFault, match="clients"):
        check_update(doc.get_update(), CLIENT, 0)


def test_writing_over_and_deleting_what_others_wrote_is_refused() -> None:
    other = made_by(5, lambda _d, root: root.update({"k": ENTRY}))
    for change in ("set", "delete"):
        doc: Doc[Any] = Doc(client_id=CLIENT)
        doc.apply_update(other)
        root: Map[Any] = doc.get("m", type=Map)
        before = doc.get_state()
        if change == "set":
            root["k"] = ENTRY
        else:
            del root["k"]
        with pytest.raises(PeerFault):
            check_update(doc.get_update(before), CLIENT, 0)


def test_a_delete_set_alone_is_refused() -> None:
    for who in (CLIENT, 5):
        deletes = b"\x00\x01" + number(who) + b"\x01\x00\x7f"
        with pytest.raises(PeerFault):
            check_update(deletes, CLIENT, 0)


def number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def test_a_gap_and_a_repetition_are_refused() -> None:
    update, before, _ = history(1)[3]
    for clock in (before - 1, before + 1, 0):
        with pytest.raises(PeerFault, match="clock"):
            check_update(update, CLIENT, clock)


def test_huge_numbers_are_refused_at_once() -> None:
    for data in (
        b"\xff" * 9 + b"\x01",
        b"\x01" + b"\xff\xff\xff\xff\x0f" + number(CLIENT) + b"\x00",
        b"\x01\x01" + number(CLIENT) + b"\x00\x28\x01\x01m" + b"\xff\xff\xff\x7f",
        bytes(state_limits.UPDATE_BYTES + 1),
    ):
        with pytest.raises(PeerFault):
            check_update(data, CLIENT, 0)


@given(
    st.binary(max_size=100),
    st.integers(0, 2**48),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
)
def test_entries_come_back_as_they_were(
    value: bytes, revision: int, written: int, expires: int
) -> None:
    entry = Entry(value, revision, written, expires, deleted=not value and bool(revision % 2))
    assert unpack(pack(entry)) == entry


@given(st.binary(max_size=40))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    try:
        entry = unpack(data)
    except PeerFault:
        return
    assert unpack(pack(entry)) == entry


def test_client_ids_have_53_bits_and_depend_on_all_of_the_name() -> None:
    other = PartKey(KEY.document, KEY.author, KEY.generation + 1)
    assert 0 <= client_id(KEY) < 2**53
    assert len({client_id(KEY), client_id(other)}) == 2
