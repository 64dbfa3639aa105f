"""The table of a large mesh: what order cannot change, what is forged, and who coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import mesh_limits
from meshslm.adapters import signing
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.signing import SigningKey
from meshslm.chance import Chance
from meshslm.core.members import Members, Outcome
from meshslm.core.records import Charge, Fact, Forged, checked, source_of
from meshslm.core.rendezvous import Rendezvous, shares
from meshslm.ids import Instant, NodeId
from meshslm.sim.sealing import signature, signed_by
from meshslm.wire.admission import SIGNED_PREFIX, Signed
from meshslm.wire.codec import encode
from meshslm.wire.growth import Accusation, Prune, Record, Service

NOW = Instant(1_000_000)
NODES = tuple(NodeId(f"n{number}") for number in range(6))
ACCUSERS = tuple(NodeId(f"by{number}") for number in range(3))

Statement = Record | Accusation


def sealed(statement: Statement) -> Fact | Charge:
    payload = encode(statement)
    author = statement.node if isinstance(statement, Record) else statement.by
    signed = Signed(payload, signature(author, SIGNED_PREFIX + payload))
    return checked(signed, signed_by)


def record(node: str, counter: int = 1, *, boot: int = 1, life: int = 0, **more: Any) -> Fact:
    said = Record("m", NodeId(node), boot, counter, life, **more)
    fact = sealed(said)
    assert isinstance(fact, Fact)
    return fact


def charge(node: str, by: str, *, boot: int = 1, life: int = 0) -> Charge:
    said = sealed(Accusation(NodeId(node), boot, life, NodeId(by)))
    assert isinstance(said, Charge)
    return said


def table() -> Members:
    return Members(lambda _: None, lambda _: None)


def give(members: Members, statements: Iterable[Fact | Charge]) -> None:
    for statement in statements:
        if isinstance(statement, Fact):
            members.take(statement, NOW)
        else:
            members.charge(statement, NOW)
        members.check()


def held(members: Members) -> tuple[object, ...]:
    alive = sorted((f.record.node, f.version) for f in members.all())
    lost = sorted((node, entry.fact.version) for node, entry in members.lost.items())
    return members.root, members.digest(), alive, lost


records = st.builds(
    lambda node, boot, life, extra, left: record(
        node, 10 * life + extra, boot=boot, life=life, left=left
    ),
    st.sampled_from(NODES),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 3),
    st.booleans(),
)


@given(st.lists(records, max_size=12), st.randoms(use_true_random=False))
def test_records_give_the_same_table_in_whatever_order_and_however_often(
    statements: list[Fact], random: Random
) -> None:
    one, other = table(), table()
    give(one, statements)
    mixed = [*statements, *statements[: len(statements) // 2]]
    random.shuffle(mixed)
    give(other, mixed)
    assert held(one) == held(other)


@given(
    st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(ACCUSERS)), max_size=14),
    st.randoms(use_true_random=False),
)
def test_accusations_give_the_same_table_in_whatever_order_and_however_often(
    said: list[tuple[NodeId, NodeId]], random: Random
) -> None:
    known = [record(node) for node in (*NODES, *ACCUSERS)]
    charges = [charge(node, by) for node, by in said]
    one, other = table(), table()
    give(one, [*known, *charges])
    mixed = [*charges, *charges]
    random.shuffle(mixed)
    give(other, [*known, *mixed])
    assert {f.record.node for f in one.all()} == {f.record.node for f in other.all()}
    assert (one.root, one.digest()) == (other.root, other.digest())


@given(st.lists(records, max_size=10), st.lists(records, max_size=10))
def test_handing_each_other_everything_makes_two_tables_equal(
    mine: list[Fact], yours: list[Fact]
) -> None:
    one, other = table(), table()
    give(one, mine)
    give(other, yours)
    give(one, yours)
    give(other, mine)
    assert held(one) == held(other)


def test_whom_one_member_accuses_shows_in_the_sum_however_many_they_are() -> None:
    members = table()
    give(members, [record(node) for node in ("a", "b", "c", "d", "by")])
    seen = [members.root]
    for node in ("a", "b", "c", "d"):
        give(members, [charge(node, "by")])
        seen.append(members.root)
    assert len(set(seen)) == len(seen)


def test_a_copy_of_a_table_holds_the_same_and_goes_its_own_way() -> None:
    members = table()
    came: list[Fact] = []
    give(members, [record(node) for node in ("a", "b", "c")])
    copy = Members(came.append, lambda _: None)
    copy.adopt(members)
    assert held(copy) == held(members)
    assert [fact.record.node for fact in came] == ["a", "b", "c"]
    give(copy, [record("a", 2), record("b", 2, left=True), record("d")])
    copy.check()
    assert sorted(fact.record.node for fact in members.all()) == ["a", "b", "c"]
    assert held(copy) != held(members)


def test_an_older_record_is_stale_and_the_same_one_known() -> None:
    members = table()
    assert members.take(record("a", 2), NOW) is Outcome.NEWS
    assert members.take(record("a", 2), NOW) is Outcome.KNOWN
    assert members.take(record("a", 1), NOW) is Outcome.STALE
    assert members.take(record("a", 1, boot=2), NOW) is Outcome.NEWS


def test_one_accuser_is_not_believed_and_two_are() -> None:
    members = table()
    give(members, [record("a"), record("x"), record("y"), charge("a", "x"), charge("a", "x")])
    assert NodeId("a") in members
    give(members, [charge("a", "y")])
    assert NodeId("a") not in members


def test_one_accuser_is_believed_where_nobody_refutes_for_long() -> None:
    members = table()
    give(members, [record("a"), record("x"), charge("a", "x")])
    members.sweep(Instant(NOW + 1000 * mesh_limits.ACCUSED_MS - 1000))
    assert NodeId("a") in members
    members.sweep(Instant(NOW + 1000 * mesh_limits.ACCUSED_MS))
    assert NodeId("a") not in members


def test_another_life_refutes_and_old_accusations_do_not_count_against_it() -> None:
    members = table()
    give(members, [record("a"), record("x"), record("y"), charge("a", "x"), charge("a", "y")])
    assert members.take(record("a", 2, life=1), NOW) is Outcome.NEWS
    assert members.charge(charge("a", "x"), NOW) is Outcome.STALE
    assert NodeId("a") in members
    assert not members.is_accused(NodeId("a"))


def test_who_is_not_known_accuses_nobody() -> None:
    members = table()
    give(members, [record("a")])
    assert members.charge(charge("a", "x"), NOW) is Outcome.REFUSED


def test_who_leaves_is_gone_at_once() -> None:
    members = table()
    give(members, [record("a"), record("a", 2, left=True)])
    assert NodeId("a") not in members
    assert members.root == 0


def test_who_is_gone_for_long_is_forgotten() -> None:
    members = table()
    give(members, [record("a"), record("a", 2, left=True)])
    members.sweep(Instant(NOW + 1000 * mesh_limits.LOST_MS))
    assert not members.lost


def test_a_record_that_its_author_has_not_signed_is_forged() -> None:
    key, other = NodeKey.generate(), NodeKey.generate()
    payload = encode(Record("m", key.node_id, 1, 1))
    good, bad = SigningKey(key.secret).seal(payload), SigningKey(other.secret).seal(payload)
    assert isinstance(checked(good, signing.signed_by), Fact)
    with pytest.raises(Forged, match="has not signed"):
        checked(bad, signing.signed_by)
    with pytest.raises(Forged, match="has not signed"):
        checked(Signed(payload.replace(b"m", b"k"), good.signature), signing.signed_by)
    with pytest.raises(Forged, match="cannot be read"):
        checked(Signed(b"\xff", good.signature), signing.signed_by)
    with pytest.raises(Forged, match="no statement"):
        checked(SigningKey(key.secret).seal(encode(Prune())), signing.signed_by)


def test_a_signature_by_a_name_that_is_no_key_is_none() -> None:
    assert not signing.signed_by(NodeId("nobody"), b"data", bytes(64))


def test_a_thousand_identities_at_one_address_are_drawn_as_one() -> None:
    members = table()
    sybils = [record(f"s{n}", addresses=("/ip4/203.0.113.9/tcp/1",)) for n in range(500)]
    honest = [record(f"h{n}", addresses=(f"/ip4/192.0.2.{n}/tcp/1",)) for n in range(20)]
    give(members, [*sybils, *honest])
    chance = Chance.from_int(3)
    drawn = [members.draw(chance).record.node for _ in range(400)]
    assert sum(node.startswith("s") for node in drawn) < 100


def test_one_address_has_room_for_so_many_records_only() -> None:
    members = table()
    for number in range(mesh_limits.RECORDS_PER_SOURCE):
        members.take(record(f"s{number}", addresses=("/ip4/203.0.113.9/tcp/1",)), NOW)
    one_more = record("more", addresses=("/ip4/203.0.113.9/tcp/2",))
    assert members.take(one_more, NOW) is Outcome.REFUSED
    elsewhere = record("more", addresses=("/ip4/203.0.113.10/tcp/2",))
    assert members.take(elsewhere, NOW) is Outcome.NEWS


def test_a_source_is_a_machine_and_of_ipv6_a_network() -> None:
    assert source_of("/ip4/192.0.2.1/tcp/9") == source_of("/ip4/192.0.2.1/tcp/10")
    assert source_of("/ip6/2001:db8:1:2:3::1/tcp/9") == source_of("/ip6/2001:db8:1:2:9::9/tcp/9")
    assert source_of("/memory/a") == "/memory/a"


def test_topics_and_names_follow_what_members_host() -> None:
    members = table()
    code = Service("coder", "tiny", "d", "Q8_0", 2048, 1, ("code",))
    vectors = Service("e5", "e5", "d", "Q8_0", 512, 1, (), operations=("embed",))
    give(members, [record("a", services=(code, vectors)), record("b", services=(code,))])
    assert list(members.providers("code")) == ["a", "b"]
    assert list(members.providers("operation:embed")) == ["a"]
    assert "code" in members.topics_of_name("coder")
    give(members, [record("a", 2, services=()), record("b", 2, left=True)])
    assert not list(members.topics)
    assert members.topics_of_name("coder") == ()


@given(st.sets(st.integers(0, 200), min_size=4, max_size=60), st.data())
def test_one_that_goes_moves_nobody_else_and_one_that_comes_takes_one_place(
    numbers: set[int], data: st.DataObject
) -> None:
    nodes = [NodeId(f"n{number}") for number in sorted(numbers)]
    present = dict.fromkeys(nodes)
    rendezvous = Rendezvous(lambda: present)
    before = rendezvous.of("code")
    gone = data.draw(st.sampled_from(nodes))
    del present[gone]
    rendezvous.gone(gone)
    after = rendezvous.of("code")
    assert after == Rendezvous(lambda: present).of("code")
    left = [node for node in before if node != gone]
    assert list(after[: len(left)]) == left
    present[gone] = None
    rendezvous.came(gone)
    assert rendezvous.of("code") == before


def test_shares_double_when_they_are_full() -> None:
    assert [
        shares(n) for n in (0, mesh_limits.SHARE, mesh_limits.SHARE + 1, 5 * mesh_limits.SHARE)
    ] == [
        1,
        1,
        2,
        8,
    ]
