"""The registry: what is written, when, and what is believed of it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from meshslm import state_limits
from meshslm.core.registry import REGISTRY, Facts, due, facts_of, members
from meshslm.core.state_events import Change, StateWrite
from meshslm.core.views import PeerView
from meshslm.ids import NodeId
from meshslm.wire.messages import DomainCard, Hardware, Specialist
from tests.core.state_mesh import StateMesh

NOW = 1_800_000_000_000
A, B = NodeId("a"), NodeId("b")


def view(hosts: int = 1, words: str = "law") -> PeerView:
    """A node about itself."""
    found = Specialist("p", "m", "d" * 64, "Q8_0", 4096, 4, (DomainCard(words, "s", ("e",)),))
    hardware = Hardware(4, 8_000, on_battery=True, battery=0.5)
    return PeerView(
        A, "alpha", "self", "meshslm/1", "/x", 0.0, 0.0, (found,) * hosts, hardware, (), ("/x",)
    )


FACTS = facts_of(view())


def tell(mesh: StateMesh, name: str, facts: Facts, at: int) -> bool:
    """A node's registrar looks; whether it wrote."""
    change = due(mesh.docs(name), NodeId(name), facts, at)
    if change is not None:
        write(mesh, name, change, at)
    return change is not None


def write(mesh: StateMesh, name: str, change: Change, at: int) -> None:
    mesh.requests += 1
    mesh.give(name, StateWrite(mesh.requests, REGISTRY, (change,), at))
    mesh.pass_time(200)


@pytest.fixture
def mesh() -> StateMesh:
    made = StateMesh()
    made.join("a")
    made.join("b", "a")
    made.pass_time(200)
    return made


def test_a_node_writes_when_something_changes_and_not_too_often(mesh: StateMesh) -> None:
    assert tell(mesh, "a", FACTS, NOW)
    assert not tell(mesh, "a", FACTS, NOW + state_limits.REGISTRY_MS)
    other = msgspec.structs.replace(FACTS, name="renamed")
    assert not tell(mesh, "a", other, NOW + state_limits.REGISTRY_MS - 1)
    assert tell(mesh, "a", other, NOW + state_limits.REGISTRY_MS)
    (known,) = members(mesh.docs("b"), NOW)
    assert (known.node, known.facts.name) == (A, "renamed")


def test_what_has_not_changed_is_renewed_after_hours(mesh: StateMesh) -> None:
    assert tell(mesh, "a", FACTS, NOW)
    assert not tell(mesh, "a", FACTS, NOW + state_limits.REGISTRY_RENEW_MS - 1)
    assert tell(mesh, "a", FACTS, NOW + state_limits.REGISTRY_RENEW_MS)


def test_a_clock_that_was_set_back_keeps_nobody_from_writing(mesh: StateMesh) -> None:
    assert tell(mesh, "a", FACTS, NOW)
    assert tell(mesh, "a", FACTS, NOW - 86_400_000)


def test_what_changes_with_load_is_not_in_it() -> None:
    busy = replace(view(), hardware=Hardware(4, 8_000, temperature_c=80.0), rtt_ms=7.0)
    assert facts_of(busy) == FACTS
    assert FACTS.hosts[0].domains == ("law",)


def test_an_entry_is_bounded() -> None:
    facts = facts_of(view(hosts=99, words="x" * 4_000))
    assert 0 < len(facts.hosts) < 5
    assert len(msgspec.json.encode(facts)) <= state_limits.REGISTRY_BYTES


def test_members_that_are_long_gone_are_not_shown(mesh: StateMesh) -> None:
    tell(mesh, "a", FACTS, NOW)
    mesh.kill("a")
    documents = mesh.docs("b")
    assert [k.node for k in members(documents, NOW + 86_400_000)] == [A]
    assert list(members(documents, NOW + state_limits.REGISTRY_MEMBER_MS)) == []


def test_nobody_speaks_for_another(mesh: StateMesh) -> None:
    tell(mesh, "a", FACTS, NOW)
    forged = msgspec.json.encode(msgspec.structs.replace(FACTS, name="forged"))
    for _ in range(3):
        write(mesh, "b", Change(A, forged), NOW)
    assert mesh.docs("a").author(REGISTRY, A) == B
    for name in "ab":
        assert [k.facts.name for k in members(mesh.docs(name), NOW)] == ["alpha"]
    assert tell(mesh, "a", msgspec.structs.replace(FACTS, name="new"), NOW + 60_000)
    assert [k.facts.name for k in members(mesh.docs("b"), NOW)] == ["new"]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"name": 7}',
        b'{"x":' + b"[" * 1_500,
        b'{"name": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_what_is_no_entry_is_passed_over(mesh: StateMesh, value: bytes) -> None:
    tell(mesh, "a", FACTS, NOW)
    write(mesh, "b", Change(B, value), NOW)
    assert [k.node for k in members(mesh.docs("a"), NOW)] == [A]


def test_an_entry_from_the_future_is_of_now(mesh: StateMesh) -> None:
    tell(mesh, "a", FACTS, NOW + 60_000)
    assert [k.written_ms for k in members(mesh.docs("b"), NOW)] == [NOW]


def test_a_life_after_a_crash_is_believed_over_the_one_before(mesh: StateMesh) -> None:
    write(mesh, "b", Change(A, b"x"), NOW)
    tell(mesh, "a", FACTS, NOW)
    mesh.kill("a")
    mesh.join("a", "b")
    mesh.pass_time(2_000)
    assert tell(mesh, "a", msgspec.structs.replace(FACTS, name="again"), NOW + 60_000)
    assert len(mesh.docs("b").holdings.documents[REGISTRY].own(A)) == 2
    assert [k.facts.name for k in members(mesh.docs("b"), NOW)] == ["again"]
