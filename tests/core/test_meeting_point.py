"""The place where members meet, and the seals of what they leave there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.meeting_point import DAY_S, day_of, meeting_point, seal, sealed_by_member
from meshslm.ids import NodeId

MESH = bytes(range(32))
NODE = NodeId("12D3KooWHGzyzjCy9wJd5bB6SqPqQdoXr6BXvNPPWy9kYwkx2cMQ")
ADDRESS = "/ip4/192.0.2.7/tcp/7415"


def test_nodes_of_all_versions_meet_at_the_same_place() -> None:
    assert (
        meeting_point(MESH, 20_000).hex()
        == "1220564b1fa2ab988b11f323ce641b1838d7a463483a90b68a79f92ea17e17683f49"
    )
    assert (
        seal(MESH, 20_000, NODE, ADDRESS).hex()
        == "1220428b2add7d020ca2d43dc6755b1680c9784678d8748c4c567b9560eef6e6b167"
    )


def test_a_day_is_one_in_utc() -> None:
    assert [day_of(t) for t in (0, DAY_S - 0.5, DAY_S, 20_000.5 * DAY_S)] == [0, 0, 1, 20_000]


@given(st.binary(min_size=32, max_size=32), st.integers(0, 10**6), st.text(), st.text())
def test_a_seal_holds_for_what_it_was_made_for_alone(
    mesh: bytes, day: int, node: str, address: str
) -> None:
    given_seal = seal(mesh, day, NodeId(node), address)
    assert sealed_by_member(mesh, day, NodeId(node), address, given_seal)
    assert not sealed_by_member(MESH[::-1], day, NodeId(node), address, given_seal)
    assert not sealed_by_member(mesh, day + 1, NodeId(node), address, given_seal)
    assert not sealed_by_member(mesh, day, NodeId(f"{node}x"), address, given_seal)
    assert not sealed_by_member(mesh, day, NodeId(node), f"{address}x", given_seal)
    assert not sealed_by_member(mesh, day, NodeId(node), address, b"")
    assert meeting_point(mesh, day) != meeting_point(mesh, day + 1)
