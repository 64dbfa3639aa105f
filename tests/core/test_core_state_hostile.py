"""Peers that lie about shared documents: refused with a reason, and held against them."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from meshslm import limits, state_limits
from meshslm.core.events import BytesReceived, Tell
from meshslm.ids import NodeId
from meshslm.sim.signatures import sign
from meshslm.state.entry import Entry, pack
from meshslm.state.part import Part, PartKey
from meshslm.wire.admission import SIGNED_PREFIX
from meshslm.wire.codec import encode
from meshslm.wire.messages import Message
from meshslm.wire.state import (
    Delta,
    DocumentDigest,
    PartClock,
    SignedDelta,
    StateDeltas,
    StateDigests,
    StateHave,
    StateVector,
)
from tests.core.state_mesh import DOC, StateMesh

A, EVIL = NodeId("a"), NodeId("evil")


def mesh_with_evil() -> StateMesh:
    """Node a, and a member whose messages the test makes up."""
    mesh = StateMesh()
    mesh.join("a")
    mesh.join("evil", "a")
    mesh.pass_time(100)
    mesh.put("a", "mine", b"precious")
    mesh.pass_time(100)
    return mesh


def send(mesh: StateMesh, message: Message) -> None:
    mesh.give("a", BytesReceived(EVIL, encode(message)))


def signed(delta: Delta, by: NodeId = EVIL) -> SignedDelta:
    payload = encode(delta)
    return SignedDelta(payload, sign(by, SIGNED_PREFIX + payload))


def honest(key: str = "k", document: str = DOC, generation: int = 1 << 16) -> Delta:
    part = Part(PartKey(document, EVIL, generation))
    update = part.write({key: pack(Entry(b"v", 1))})
    return Delta(b"", EVIL, document, generation, 0, 1, (update,))


def banned(mesh: StateMesh) -> str:
    """Why the liar is kept out now; empty where it is not."""
    found = mesh.boxes[A].core.status(mesh.now).banned
    return found[0].reason if found else ""


def test_an_honest_delta_of_the_same_making_is_taken() -> None:
    mesh = mesh_with_evil()
    send(mesh, StateDeltas((signed(honest()),)))
    assert not banned(mesh)
    assert mesh.value("a", "k") == b"v"


def forged_author() -> SignedDelta:
    part = Part(PartKey(DOC, A, 9))
    update = part.write({"mine": pack(Entry(b"stolen", 99))})
    return signed(Delta(b"", A, DOC, 9, 0, 1, (update,)))


def other_client() -> SignedDelta:
    part = Part(PartKey(DOC, A, 9))
    return signed(replace(honest(), updates=(part.write({"k": pack(Entry(b"v", 1))}),)))


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        (forged_author(), "not signed"),
        (other_client(), "client"),
        (SignedDelta(encode(honest()), b"x" * 64), "not signed"),
        (SignedDelta(b"\x92\x64", b"x" * 64), "msgpack"),
        (signed(replace(honest(), mesh=b"another mesh")), "another mesh"),
        (signed(replace(honest(), document="nonsense")), "classes"),
        (signed(replace(honest(), after=2)), "ends at"),
        (signed(replace(honest(), updates=())), "ends at"),
        (signed(replace(honest(), updates=(b"",))), "cut off"),
        (signed(replace(honest(), updates=honest().updates * 2)), "clock"),
    ],
)
def test_a_delta_that_no_honest_node_sends_ends_the_link(delta: SignedDelta, reason: str) -> None:
    mesh = mesh_with_evil()
    send(mesh, StateDeltas((delta,)))
    assert reason in banned(mesh)
    assert mesh.value("a", "mine") == b"precious"
    assert mesh.value("a", "k") is None


def test_a_replay_changes_nothing_and_is_no_fault() -> None:
    mesh = mesh_with_evil()
    first = signed(honest())
    send(mesh, StateDeltas((first,)))
    digest = mesh.docs("a").holdings.documents[DOC].digest()
    for _ in range(5):
        send(mesh, StateDeltas((first,)))
    assert mesh.docs("a").holdings.documents[DOC].digest() == digest
    assert not banned(mesh)


def test_a_second_version_of_the_same_change_is_not_taken() -> None:
    mesh = mesh_with_evil()
    send(mesh, StateDeltas((signed(honest("k")),)))
    send(mesh, StateDeltas((signed(honest("other")),)))
    assert mesh.value("a", "other") is None


def test_what_overlaps_what_is_there_is_a_fault() -> None:
    mesh = mesh_with_evil()
    part = Part(PartKey(DOC, EVIL, 1 << 16))
    one = part.write({"k": pack(Entry(b"v", 1))})
    two = part.write({"l": pack(Entry(b"v", 1))})
    send(mesh, StateDeltas((signed(honest()),)))
    send(mesh, StateDeltas((signed(Delta(b"", EVIL, DOC, 1 << 16, 0, 2, (one, two))),)))
    assert "overlaps" in banned(mesh)


def test_nothing_follows_a_seal() -> None:
    mesh = mesh_with_evil()
    part = Part(PartKey(DOC, EVIL, 1 << 16))
    one = part.write({"k": pack(Entry(b"v", 1))})
    two = part.write({"k": pack(Entry(b"w", 2))})
    first = Delta(b"", EVIL, DOC, 1 << 16, 0, 1, (one,), sealed=True)
    send(mesh, StateDeltas((signed(first),)))
    send(mesh, StateDeltas((signed(Delta(b"", EVIL, DOC, 1 << 16, 1, 2, (two,))),)))
    assert "seal" in banned(mesh)
    assert mesh.value("a", "k") == b"v"


def test_a_key_made_twice_is_a_fault() -> None:
    mesh = mesh_with_evil()
    send(mesh, StateDeltas((signed(honest()),)))
    twice = Part(PartKey(DOC, EVIL, 1 << 16))
    twice.write({"x": pack(Entry(b"v", 1))})
    update = twice.write({"k": pack(Entry(b"w", 2))})
    send(mesh, StateDeltas((signed(Delta(b"", EVIL, DOC, 1 << 16, 1, 2, (update,))),)))
    assert "makes a key" in banned(mesh)


def test_writing_over_what_it_wrote_over_before_is_a_fault_and_the_part_is_read_again() -> None:
    mesh = mesh_with_evil()
    part = Part(PartKey(DOC, EVIL, 1 << 16))
    one = part.write({"k": pack(Entry(b"1", 1))})
    two = part.write({"k": pack(Entry(b"2", 2))})
    # The third follows on the first again, which the second has taken the place of.
    third = two.replace(b"\x01\xa8", b"\x02\xa8", 1)
    mesh_third = Delta(b"", EVIL, DOC, 1 << 16, 2, 3, (third,))
    send(mesh, StateDeltas((signed(Delta(b"", EVIL, DOC, 1 << 16, 0, 2, (one, two))),)))
    assert mesh.value("a", "k") == b"2"
    send(mesh, StateDeltas((signed(mesh_third),)))
    assert banned(mesh)
    assert mesh.value("a", "k") == b"2"


def test_a_flood_of_namespaces_is_refused_and_held_against_its_author(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_limits, "DOCUMENTS_PER_AUTHOR", 40)
    mesh = mesh_with_evil()
    for number in range(41):
        send(mesh, StateDeltas((signed(honest("k", f"memory/flood{number}")),)))
        mesh.pass_time(5)
    assert "40 documents" in banned(mesh)
    assert len(mesh.docs("a").names()) == 41
    assert mesh.put("a", "still", b"works").code is None


def test_a_flood_that_a_relay_hands_on_is_not_held_against_the_relay() -> None:
    mesh = mesh_with_evil()
    mesh.docs("a").holdings._count[NodeId("third")] = state_limits.DOCUMENTS_PER_AUTHOR
    part = Part(PartKey(DOC, NodeId("third"), 1))
    delta = Delta(b"", NodeId("third"), DOC, 1, 0, 1, (part.write({"t": pack(Entry(b"", 1))}),))
    send(mesh, StateDeltas((signed(delta, NodeId("third")),)))
    assert not banned(mesh)
    assert any(t.topic == "state.refused" for t in mesh.effects("a", Tell))


def test_a_bomb_of_zeros_is_not_unpacked() -> None:
    mesh = mesh_with_evil()
    bomb = zlib.compress(bytes(limits.MESSAGE_BYTES + 1), 9)
    send(mesh, StateDeltas(packed=bomb))
    assert "packed" in banned(mesh)


@pytest.mark.parametrize("nested", [StateDeltas(packed=b"x"), StateHave(())])
def test_packed_deltas_hold_deltas_and_nothing_else(nested: Message) -> None:
    mesh = mesh_with_evil()
    send(mesh, StateDeltas(packed=zlib.compress(encode(nested))))
    assert "something else" in banned(mesh)


def test_huge_state_vectors_bring_answers_smaller_than_themselves() -> None:
    mesh = mesh_with_evil()
    parts = tuple(PartClock(NodeId(f"n{n}"), 1, 2**53) for n in range(state_limits.PARTS))
    before = len(mesh.seen[A, EVIL])
    vector = StateVector(DOC, parts, want=True)
    for _ in range(20):
        send(mesh, vector)
    answers = sum(len(encode(message)) for message in mesh.seen[A, EVIL][before:])
    assert answers < len(encode(vector))
    mesh.put("a", "k", b"v")
    assert mesh.value("a", "k") == b"v"


def test_endless_digests_are_a_fault() -> None:
    mesh = mesh_with_evil()
    for number in range(40):
        digests = tuple(
            DocumentDigest(f"memory/d{number}-{place}", bytes(8), bytes(16))
            for place in range(state_limits.DIGESTS)
        )
        send(mesh, StateDigests(digests, more=True))
    assert "digests" in banned(mesh)


def test_a_delta_by_itself_is_no_message() -> None:
    mesh = mesh_with_evil()
    send(mesh, honest())
    assert "no message by itself" in banned(mesh)
