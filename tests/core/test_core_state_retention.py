"""Past days: sealed by who wrote them, dropped by everybody, and not taken again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import state_limits
from meshslm.core.chronicle import DAY_MS, Sums, day_ms, day_of, usage
from meshslm.core.memory import BEHIND
from meshslm.core.state_events import Change, DayIs, StateWrite, StateWritten
from meshslm.core.state_retention import is_day
from meshslm.errors import FaultCode
from meshslm.ids import NodeId
from tests.core.state_mesh import StateMesh

DAY = "2027-01-15"
NOW = day_ms(DAY) + 1_000
OLD = f"ledger/{DAY}"
TABLE = f"t{BEHIND}m{BEHIND}1"


def later(days: int) -> DayIs:
    return DayIs(NOW + days * DAY_MS)


def sealed(mesh: StateMesh, name: str, author: str, document: str = OLD) -> bool:
    """What one node holds of another's seal."""
    return mesh.docs(name).holdings.documents[document].own(NodeId(author))[-1].sealed


@pytest.fixture
def mesh() -> StateMesh:
    made = StateMesh()
    made.join("a")
    made.join("b", "a")
    made.pass_time(200)
    for name in "ab":
        assert made.put(name, TABLE, b'{"requests":2}', OLD).code is None
    made.pass_time(200)
    return made


def test_a_day_is_sealed_when_tasks_of_it_have_ended(mesh: StateMesh) -> None:
    mesh.give("a", later(1))
    assert not sealed(mesh, "a", "a")
    mesh.give("a", later(2))
    mesh.pass_time(200)
    for name in "ab":
        assert sealed(mesh, name, "a")
        assert not sealed(mesh, name, "b"), "each seals its own"
    refused = mesh.put("a", "late", b"{}", OLD)
    assert refused.code is FaultCode.BAD_REQUEST
    assert "sealed" in refused.detail
    assert mesh.put("b", "late", b"{}", OLD).code is None
    used = [u.sums for u in usage(mesh.docs("b"), [DAY])]
    assert used == [Sums(2), Sums(2)], "a seal changes no sum"


def test_a_seal_is_put_once_and_survives_a_crash(mesh: StateMesh) -> None:
    mesh.give("a", later(2))
    part = mesh.docs("a").holdings.documents[OLD].own(NodeId("a"))[-1]
    clock = part.clock
    mesh.give("a", later(2))
    assert part.clock == clock
    mesh.pass_time(200)
    mesh.kill("a")
    mesh.join("a", "b")
    mesh.give("a", later(3))
    mesh.pass_time(2_000)
    assert sealed(mesh, "a", "a")
    assert len(mesh.docs("a").holdings.documents[OLD].own(NodeId("a"))) == 1


def test_a_part_of_an_earlier_life_is_sealed_too(mesh: StateMesh) -> None:
    mesh.kill("a")
    mesh.join("a", "b")
    mesh.pass_time(2_000)
    mesh.give("a", later(2))
    mesh.pass_time(200)
    assert sealed(mesh, "b", "a")
    assert [u.sums for u in usage(mesh.docs("b"), [DAY])] == [Sums(2), Sums(2)]


def test_a_rebuild_under_way_keeps_the_seal(mesh: StateMesh) -> None:
    value = b"x" * 50_000
    for number in range(60):
        assert mesh.put("a", f"k{number % 3}", value, OLD).code is None
    found = mesh.docs("a").holdings.documents[OLD]
    assert len(found.own(NodeId("a"))) == 2, "a rebuild has begun"
    mesh.give("a", later(2))
    mesh.pass_time(2_000)
    (part,) = found.own(NodeId("a"))
    assert part.base
    assert part.sealed
    mesh.kill("a")
    mesh.join("a", "b")
    mesh.pass_time(2_000)
    (again,) = mesh.docs("a").holdings.documents[OLD].own(NodeId("a"))
    assert (again.base, again.sealed) == (True, True)
    assert mesh.put("a", "late", b"{}", OLD).code is FaultCode.BAD_REQUEST
    assert mesh.agree("a", "b")


def test_old_days_are_dropped_and_not_taken_again(mesh: StateMesh) -> None:
    gone = later(state_limits.USAGE_DAYS + 1)
    mesh.put("a", "kept", b"v")
    mesh.give("a", gone)
    mesh.pass_time(40_000)
    assert mesh.docs("a").names() == ("memory/notes",)
    assert OLD in mesh.docs("b").names(), "it has not heard what day it is"
    assert {s.part.document for s in mesh.disks[NodeId("a")].parts()} == {"memory/notes"}
    refused = mesh.put("a", TABLE, b"{}", OLD)
    assert "not kept any more" in refused.detail
    mesh.give("b", gone)
    mesh.pass_time(40_000)
    assert mesh.agree("a", "b")
    assert mesh.docs("b").holdings.authored(NodeId("a")) == 1
    assert mesh.value("b", "kept") == b"v"


def test_journals_go_sooner_than_ledgers(mesh: StateMesh) -> None:
    mesh.put("a", "t", b"[]", f"journal/{DAY}")
    mesh.put("a", "t", b"[]", "journal/17")
    mesh.give("a", later(state_limits.JOURNAL_DAYS))
    assert f"journal/{DAY}" in mesh.docs("a").names()
    mesh.give("a", later(state_limits.JOURNAL_DAYS + 1))
    assert mesh.docs("a").names() == ("journal/17", OLD)


def test_what_waits_for_the_disk_goes_with_its_document(mesh: StateMesh) -> None:
    mesh.make_slow("a")
    for number in range(3):
        mesh.give("a", StateWrite(900 + number, OLD, (Change(f"k{number}", b"{}"),), NOW))
    mesh.give("a", later(state_limits.USAGE_DAYS + 1))
    mesh.finish("a")
    mesh.pass_time(2_000)
    assert OLD not in mesh.docs("a").names()
    answered = {w.request: w.code for w in mesh.effects("a", StateWritten)}
    assert [answered[900 + number] for number in range(3)] == [None, None, None]
    assert OLD not in {s.part.document for s in mesh.disks[NodeId("a")].parts()}


def test_a_clock_that_was_wrong_costs_no_ledger(mesh: StateMesh) -> None:
    mesh.give("a", later(4_000))
    assert OLD not in mesh.docs("a").names()
    mesh.give("a", later(0))
    mesh.pass_time(60_000)
    assert mesh.agree("a", "b")
    assert [u.sums for u in usage(mesh.docs("a"), [DAY])] == [Sums(2), Sums(2)]


@given(st.integers(0, 40_000).map(lambda day: day_of(day * DAY_MS)))
def test_every_day_is_one(day: str) -> None:
    assert is_day(day)


@pytest.mark.parametrize(
    "text",
    ["", "17", "2027-1-15", "2027-02-30", "2027-13-01", "2027-01-15 ", "1969-12-31", "x-y-z"],
)
def test_what_is_no_day(text: str) -> None:
    assert not is_day(text)
