"""Presences of near nodes come together, and probes are spared where presences tell as much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits, mesh_limits
from meshslm.core.events import BytesReceived, StartTimer, TimerKey
from meshslm.core.outbox import Outbox
from meshslm.core.rhythm import NEAR_MS, TICK, Rhythm
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.codec import encode
from meshslm.wire.detection import Gossip, News, Ping
from tests.core.mesh import Mesh

TIMER = TimerKey(TICK, "")


def crowd() -> Mesh:
    mesh = Mesh()
    for number in range(6):
        mesh.add(f"n{number}", bootstrap=("n0",))
    mesh.pass_time(limits.HELLO_MS)
    return mesh


def pings(mesh: Mesh) -> int:
    return sum(isinstance(m, Ping) for messages in mesh.seen.values() for m in messages)


def test_near_nodes_tell_their_presence_at_one_time() -> None:
    mesh = crowd()
    mesh.pass_time(6 * limits.PRESENCE_MS)
    due = [box.timers[TIMER][0] for box in mesh.boxes.values()]
    assert ms_between(min(due), max(due)) <= 10


def test_a_rhythm_is_not_taken_from_far_away_or_from_who_is_not_measured() -> None:
    out = Outbox()
    rhythm = Rhythm(out)
    rhythm.plan(400, Instant(0))
    out.take()
    for rtt in (None, NEAR_MS + 1):
        rhythm.fall_in(rtt, Instant(100_000))
        assert out.take() == []
    rhythm.fall_in(NEAR_MS, Instant(100_000))
    assert [e.after_ms for e in out.take() if isinstance(e, StartTimer)] == [0]


@given(st.lists(st.integers(0, 1_000), max_size=80))
def test_whatever_peers_do_a_tick_comes_after_half_a_beat_to_a_whole_one(gaps: list[int]) -> None:
    out, now = Outbox(), Instant(0)
    rhythm = Rhythm(out)
    rhythm.plan(limits.PRESENCE_MS, now)
    ticked, due = now, after(now, limits.PRESENCE_MS)
    out.take()
    for gap in gaps:
        now = max(now, after(now, gap))
        if due <= now:
            now = due
            assert limits.PRESENCE_MS / 2 <= ms_between(ticked, now) <= limits.PRESENCE_MS
            ticked = now
            rhythm.plan(limits.PRESENCE_MS, now)
        else:
            rhythm.fall_in(1.0, now)
        for effect in out.take():
            assert isinstance(effect, StartTimer)
            due = after(now, effect.after_ms)


def test_pings_are_spared_while_presences_come_and_there_is_no_news() -> None:
    mesh = crowd()
    mesh.seen.clear()
    mesh.pass_time(10_000)
    each = 10_000 / mesh_limits.PROBE_MS / mesh_limits.PROBES_SPARED
    assert 0.5 * 6 * each <= pings(mesh) <= 1.2 * 6 * each
    quiet = pings(mesh)
    mesh.seen.clear()
    for second in range(10):
        news = News(NodeId("n1"), "alive", 1, second + 1)
        mesh.give("n0", BytesReceived(NodeId("n1"), encode(Gossip((news,)))))
        mesh.pass_time(1_000)
    assert pings(mesh) > 1.5 * quiet
