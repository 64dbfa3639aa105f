"""Strikes, bans that grow and end, and what an honest peer may send without any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.conduct import Conduct
from meshslm.core.events import BytesReceived, Dial, Disconnect, PeerConnected, PeerDisconnected
from meshslm.core.outbox import Outbox
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, TaskId, after
from meshslm.wire.codec import encode
from meshslm.wire.messages import CapabilityWanted, Hello, TaskDone
from tests.core.mesh import Mesh, address_of

PEER = NodeId("p")
HOUR_MS = 3_600_000


def flood(mesh: Mesh, count: int) -> None:
    for _ in range(count):
        mesh.give("a", BytesReceived(NodeId("x"), encode(CapabilityWanted())))


def stranger(mesh: Mesh) -> None:
    """`x`, of whom `a` knows nothing but what a test hands in, becomes a member."""
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    mesh.give("a", BytesReceived(NodeId("x"), encode(Hello(1, 1, "default", 1))))


# --- bans ---------------------------------------------------------------------------------------
def test_each_strike_keeps_a_peer_away_for_longer_up_to_an_hour() -> None:
    conduct, now = Conduct(Outbox()), Instant(0)
    away = []
    for _ in range(8):
        away.append(conduct.strike(PEER, "garbage", now))
        now = after(now, away[-1])
        assert conduct.refusal(PEER, now) == ""
    assert away[:4] == [1_000, 4_000, 16_000, 64_000]
    assert away[-2:] == [limits.BAN_MOST_MS] * 2


def test_good_conduct_is_counted_from_the_end_of_the_ban() -> None:
    conduct, away = Conduct(Outbox()), 0.0
    for _ in range(4):
        away = conduct.strike(PEER, "garbage", Instant(0))
    end = after(Instant(0), away)
    assert conduct.strike(PEER, "garbage", end) == 4 * away
    later = after(end, 4 * away + 5 * limits.BAN_FORGIVE_MS)
    assert conduct.strike(PEER, "garbage", later) == limits.BAN_MS


def test_who_is_banned_can_be_seen_with_the_reason() -> None:
    conduct = Conduct(Outbox())
    conduct.strike(PEER, "garbage", Instant(0))
    conduct.strike(NodeId("q"), "flood", Instant(0))
    conduct.strike(NodeId("q"), "flood again", Instant(0))
    first, second = conduct.banned(Instant(0))
    assert (first.node, first.reason, first.strikes, first.left_ms) == ("q", "flood again", 2, 4000)
    assert second.node == PEER
    assert "1 s more: garbage" in conduct.refusal(PEER, Instant(0))
    assert [ban.node for ban in conduct.banned(after(Instant(0), 1000))] == ["q"]


def test_the_memory_is_bounded_and_forgets_the_harmless_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CONDUCT_RECORDS", 3)
    conduct = Conduct(Outbox())
    conduct.strike(PEER, "garbage", Instant(0))
    for number in range(20):
        conduct.spend(NodeId(f"n{number}"), Instant(number))
        conduct.check()
    assert [ban.node for ban in conduct.banned(Instant(20))] == [PEER]


# --- floods -------------------------------------------------------------------------------------
def test_a_burst_passes_and_a_flood_does_not() -> None:
    conduct = Conduct(Outbox())
    for _ in range(limits.HOUSEKEEPING_BURST):
        conduct.spend(PEER, Instant(0))
    with pytest.raises(PeerFault, match="housekeeping"):
        conduct.spend(PEER, Instant(0))


@given(st.integers(1, 10 * limits.HOUSEKEEPING_PER_S))
def test_a_steady_rate_passes_exactly_up_to_the_bound(rate: int) -> None:
    conduct, passed = Conduct(Outbox()), 0
    seconds = 20
    try:
        for number in range(rate * seconds):
            conduct.spend(PEER, Instant(number * 1_000_000 // rate))
            passed += 1
    except PeerFault:
        assert passed >= limits.HOUSEKEEPING_BURST
        assert rate > limits.HOUSEKEEPING_PER_S
    else:
        spare = limits.HOUSEKEEPING_BURST + limits.HOUSEKEEPING_PER_S * seconds
        assert rate * seconds <= spare


def test_a_peer_that_floods_is_dropped_and_kept_away_for_a_time(mesh: Mesh) -> None:
    mesh.add("a")
    stranger(mesh)
    flood(mesh, limits.HOUSEKEEPING_BURST + 1)
    assert "housekeeping" in mesh.effects("a", Disconnect)[-1].reason
    mesh.give("a", PeerDisconnected(NodeId("x"), "dropped"))
    before = len(mesh.effects("a", Disconnect))
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    assert "banned" in mesh.effects("a", Disconnect)[before].reason
    mesh.give("a", PeerDisconnected(NodeId("x"), "banned"))
    assert mesh.peer_state("a", "x") == "unreachable"
    mesh.pass_time(limits.BAN_MS)
    stranger(mesh)
    assert mesh.peer_state("a", "x") == "alive"


def test_messages_of_tasks_are_no_flood(mesh: Mesh) -> None:
    mesh.add("a")
    stranger(mesh)
    done = encode(TaskDone(TaskId("no such task"), 0))
    for _ in range(2 * limits.HOUSEKEEPING_BURST):
        mesh.give("a", BytesReceived(NodeId("x"), done))
    assert mesh.peer_state("a", "x") == "alive"


def test_before_its_hello_nothing_of_a_peer_is_free(mesh: Mesh) -> None:
    mesh.add("a")
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    done = encode(TaskDone(TaskId("no such task"), 0))
    for _ in range(limits.HOUSEKEEPING_BURST + 1):
        mesh.give("a", BytesReceived(NodeId("x"), done))
    assert mesh.effects("a", Disconnect)


def test_messages_of_unknown_kinds_are_a_flood_too(mesh: Mesh) -> None:
    mesh.add("a")
    stranger(mesh)
    for _ in range(limits.HOUSEKEEPING_BURST):
        mesh.give("a", BytesReceived(NodeId("x"), b"\x92\x7e\x80"))
    assert mesh.effects("a", Disconnect)


# --- faults -------------------------------------------------------------------------------------
def test_garbage_from_a_member_is_a_strike(mesh: Mesh) -> None:
    core = mesh.add("a")
    stranger(mesh)
    mesh.give("a", BytesReceived(NodeId("x"), b"\xc1"))
    (ban,) = core.status(mesh.now).banned
    assert (ban.node, ban.strikes) == ("x", 1)


@pytest.mark.parametrize("fault", [True, False])
def test_a_link_that_ends_is_a_strike_only_where_the_peer_is_to_blame(
    mesh: Mesh, *, fault: bool
) -> None:
    core = mesh.add("a")
    stranger(mesh)
    mesh.give("a", PeerDisconnected(NodeId("x"), "gone", fault=fault))
    assert len(core.status(mesh.now).banned) == fault


def test_a_banned_member_is_dialled_ever_more_rarely_and_found_again(mesh: Mesh) -> None:
    mesh.add("b")
    core = mesh.add("a", bootstrap=("b",))
    for _ in range(4):
        mesh.links.discard(frozenset("ab"))
        mesh.give("b", PeerDisconnected(NodeId("a"), "dropped"))
        mesh.give("a", PeerDisconnected(NodeId("b"), "garbage", fault=True))
    before = len(mesh.effects("a", Dial))
    (ban,) = core.status(mesh.now).banned
    mesh.pass_time(ban.left_ms - 1)
    assert mesh.peer_state("a", "b") != "alive"
    assert len(mesh.effects("a", Dial)) - before <= 12
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    assert mesh.peer_state("a", "b") == "alive"
    assert address_of("b") in [view.address for view in core.status(mesh.now).bootstrap]
