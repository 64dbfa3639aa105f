"""Where others listen is told in their own signed words, and what is forged or old is not heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import (
    AddressesChanged,
    BytesReceived,
    Dial,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.core.growth_events import SealStatement
from meshslm.ids import NodeId
from meshslm.sim.sealing import sealed
from meshslm.wire.admission import Signed
from meshslm.wire.codec import decode, encode
from meshslm.wire.growth import Accusation, Record
from meshslm.wire.messages import Hello, Message, PeerAddress, Peers
from meshslm.wire.whereabouts import Introduce, Whereabouts
from tests.core.mesh import Mesh, address_of
from tests.core.private_mesh import PrivateMesh, credential


def signing(*names: str) -> Mesh:
    """Nodes that know each other."""
    mesh = Mesh()
    mesh.signs = True
    for name in names:
        mesh.add(name, bootstrap=tuple(names[:1]))
    mesh.pass_time(2_000)
    for name in names:
        assert mesh.boxes[NodeId(name)].core.status(mesh.now).peers_alive == len(names) - 1
    mesh.seen.clear()
    return mesh


def record(node: str, counter: int = 1, at: str = "there", mesh: str = "default") -> Record:
    return Record(mesh, NodeId(node), 1, counter, addresses=(f"/memory/{at}",))


def signed(said: Record | Accusation, by: str) -> Signed:
    return sealed(NodeId(by), SealStatement(encode(said))).signed


def hear(mesh: Mesh, name: str, teller: str, message: Message) -> None:
    mesh.give(name, BytesReceived(NodeId(teller), encode(message)))


def tell(mesh: Mesh, *records: Signed) -> None:
    """To `a`, by `b`."""
    hear(mesh, "a", "b", Whereabouts(records))


def dials(mesh: Mesh, name: str) -> list[str]:
    return [dial.address for dial in mesh.effects(name, Dial)]


def banned(mesh: Mesh, name: str) -> list[str]:
    return [ban.node for ban in mesh.boxes[NodeId(name)].core.status(mesh.now).banned]


def said(mesh: Mesh, kind: type[Message]) -> list[Message]:
    return [m for messages in mesh.seen.values() for m in messages if isinstance(m, kind)]


def meet_through_b(mesh: Mesh, add: Callable[..., object]) -> None:
    """`a` and `c` know `b` alone, and find each other."""
    mesh.signs = True
    add("b")
    add("a", bootstrap=("b",))
    add("c", bootstrap=("b",))
    mesh.pass_time(100)
    assert mesh.peer_state("a", "c") == mesh.peer_state("c", "a") == "alive"


def test_two_nodes_learn_of_a_third_in_its_own_words() -> None:
    mesh = Mesh()
    meet_through_b(mesh, mesh.add)
    assert said(mesh, Peers) == []
    assert any(isinstance(m, Whereabouts) for m in mesh.seen["b", "c"])


def test_who_knows_everybody_is_told_nothing() -> None:
    mesh = signing(*"abcd")
    mesh.pass_time(limits.PRESENCE_MS * (limits.EXCHANGES_OF_NEWS + 2 * limits.EXCHANGE_EVERY))
    assert said(mesh, Introduce) != []
    assert said(mesh, Whereabouts) == []


def test_a_record_under_anothers_signature_is_refused_and_its_teller_banned() -> None:
    mesh = signing(*"abc")
    tell(mesh, signed(record("z"), by="b"))
    assert banned(mesh, "a") == ["b"]
    assert not [address for address in dials(mesh, "a") if "/p2p/z" in address]
    assert mesh.peer_state("a", "c") == "alive"


def test_what_is_no_record_or_cannot_be_read_is_a_fault() -> None:
    accusation = signed(Accusation(NodeId("c"), 1, 0, NodeId("b")), by="b")
    for nonsense in (accusation, Signed(b"", b""), Signed(encode(Introduce()), b"x" * 64)):
        mesh = signing(*"ab")
        tell(mesh, nonsense)
        assert banned(mesh, "a") == ["b"]


def test_an_old_record_is_not_believed_and_costs_its_teller() -> None:
    mesh = signing(*"ab")
    old, new = signed(record("z", 1, "old"), by="z"), signed(record("z", 2, "new"), by="z")
    tell(mesh, new)
    tell(mesh, old)
    assert dials(mesh, "a")[-1] == "/memory/new/p2p/z"
    assert "/memory/old/p2p/z" not in dials(mesh, "a")
    assert banned(mesh, "a") == []
    for _ in range(limits.HOUSEKEEPING_BURST // limits.PEERS_PER_EXCHANGE + 1):
        tell(mesh, *([old] * limits.PEERS_PER_EXCHANGE))
    assert banned(mesh, "a") == ["b"]


def test_a_newer_record_takes_the_place_of_addresses_that_hold_no_more() -> None:
    mesh = signing(*"ab")
    tell(mesh, signed(record("z", 1, "old"), by="z"))
    tell(mesh, signed(record("z", 2, "new"), by="z"))
    tried = len(dials(mesh, "a"))
    mesh.pass_time(4 * limits.DIAL_BACKOFF_MS)
    assert dict.fromkeys(dials(mesh, "a")[tried:]) == {"/memory/new/p2p/z": None}


def test_a_record_of_another_mesh_is_not_dialled() -> None:
    mesh = signing(*"ab")
    tell(mesh, signed(record("z", mesh="elsewhere"), by="z"))
    assert not [address for address in dials(mesh, "a") if "/p2p/z" in address]
    assert banned(mesh, "a") == []


def test_one_member_fills_no_more_than_it_may_with_identities_of_its_own() -> None:
    mesh = signing(*"abc")
    for number in range(limits.HEARSAY + 50):
        tell(mesh, signed(record(f"s{number}"), by=f"s{number}"))
    strangers = dict.fromkeys(a for a in dials(mesh, "a") if "/p2p/s" in a)
    assert len(strangers) == limits.HEARSAY
    hear(mesh, "a", "c", Whereabouts((signed(record("z"), by="z"),)))
    assert dials(mesh, "a")[-1] == "/memory/there/p2p/z"


def test_who_moves_tells_all_and_they_hand_on_the_new_address() -> None:
    mesh = signing(*"abc")
    mesh.give("c", AddressesChanged(("/memory/elsewhere/p2p/c",)))
    (to_a,) = [m for m in mesh.seen["c", "a"] if isinstance(m, Whereabouts)]
    mesh.seen.clear()
    hear(mesh, "a", "b", Introduce())
    (told,) = [m for m in mesh.seen["a", "b"] if isinstance(m, Whereabouts)]
    assert told.records == to_a.records


def test_its_own_record_of_a_forgotten_life_lets_a_node_count_on_from_there() -> None:
    mesh = signing(*"ab")
    tell(mesh, signed(Record("default", NodeId("a"), 9, 7), by="a"))
    now = decode(mesh.effects("a", SealStatement)[-1].payload)
    assert isinstance(now, Record)
    assert (now.boot, now.counter, now.addresses) == (9, 8, ("/memory/a",))
    assert banned(mesh, "a") == []


def test_in_a_private_mesh_only_members_are_dialled() -> None:
    mesh = PrivateMesh()
    meet_through_b(mesh, mesh.enter)
    for name, shown in (("y", None), ("z", credential("y")), ("w", credential("w"))):
        tell(mesh, signed(replace(record(name), credential=shown), by=name))
    assert [a for a in dials(mesh, "a") if "there" in a] == ["/memory/there/p2p/w"]
    assert banned(mesh, "a") == []


# --- older peers --------------------------------------------------------------------------------
def with_an_old_peer() -> Mesh:
    """`a` and `b`, which sign, and `x`, which has dialled `a` and speaks version 1."""
    mesh = signing(*"ab")
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    hear(mesh, "a", "x", Hello(1, 1, "default", 1))
    assert mesh.peer_state("a", "x") == "alive"
    return mesh


def test_a_peer_of_the_first_version_is_told_and_heard_as_ever() -> None:
    mesh = with_an_old_peer()
    assert Peers((PeerAddress(NodeId("b"), (address_of("b"),)),)) in mesh.seen["a", "x"]
    assert not [m for m in mesh.seen["a", "x"] if isinstance(m, Whereabouts | Introduce)]
    hear(mesh, "a", "x", Peers((PeerAddress(NodeId("z"), (address_of("z"),)),)))
    assert dials(mesh, "a")[-1] == address_of("z")
    assert banned(mesh, "a") == []


def test_a_peer_that_could_tell_in_signed_words_must() -> None:
    mesh = signing(*"ab")
    hear(mesh, "a", "b", Peers((PeerAddress(NodeId("z"), (address_of("z"),)),)))
    assert banned(mesh, "a") == ["b"]
    assert address_of("z") not in dials(mesh, "a")


def test_hearsay_does_not_stand_against_a_members_own_word() -> None:
    mesh = with_an_old_peer()
    mesh.give("a", PeerDisconnected(NodeId("b"), "cable"))
    forged = "/memory/trap/p2p/b"
    hear(mesh, "a", "x", Peers((PeerAddress(NodeId("b"), (forged,)),)))
    mesh.pass_time(10_000)
    assert forged not in dials(mesh, "a")


def test_a_node_that_cannot_check_speaks_the_first_version() -> None:
    mesh = Mesh()
    mesh.add("b")
    mesh.signs = True
    mesh.add("a", bootstrap=("b",))
    mesh.add("c", bootstrap=("a",))
    mesh.pass_time(12_000)
    for here, there in ("ab", "bc", "ca"):
        assert mesh.peer_state(here, there) == "alive"
    assert not [m for m in mesh.seen["a", "b"] if isinstance(m, Whereabouts | Introduce)]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40).map(Introduce),
            st.lists(
                st.builds(Signed, st.binary(max_size=80), st.binary(max_size=64)), max_size=3
            ).map(lambda records: Whereabouts(tuple(records))),
        ),
        max_size=6,
    )
)
def test_whatever_is_said_nothing_is_raised(messages: list[Message]) -> None:
    mesh = signing(*"abc")
    for message in messages:
        hear(mesh, "a", "b", message)
    assert mesh.peer_state("a", "c") == "alive"


@pytest.mark.parametrize("known", [b"", b"xyz", b"\0" * 4 * limits.PEERS])
def test_whoever_asks_is_told_of_those_it_does_not_name(known: bytes) -> None:
    mesh = signing(*"abc")
    hear(mesh, "a", "b", Introduce(known))
    (told,) = [m for m in mesh.seen["a", "b"] if isinstance(m, Whereabouts)]
    assert len(told.records) == 1
