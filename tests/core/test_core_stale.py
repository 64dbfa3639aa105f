"""What is done about loads that are old or were never measured, in meshes of partial views."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Verdict
from meshslm.core.classify import Classifier
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.offers import OLD_MS, busy
from meshslm.core.route import Known, choose
from meshslm.core.route_facts import Stay
from meshslm.core.route_filters import STALE_MS
from meshslm.ids import Instant, NodeId, after
from meshslm.wire.messages import Capability, ChatMessage, EngineLoad, Specialist, TaskRequest

NOW = Instant(100_000_000)
LONG_AGO = Instant(NOW - int(STALE_MS + 1) * 1000)
REQUEST = TaskRequest("auto", (ChatMessage("user", "x" * 400),), max_tokens=64)
IDLE = EngineLoad("m", True, 0, 0, 2, 400.0, 50.0)
BUSY = EngineLoad("m", True, 2, 2, 0, 400.0, 20.0, run_ms=2_000.0)


def candidate(node: str, told: Instant, load: EngineLoad | None) -> Candidate:
    known = Specialist("p", "m", "d", "Q8_0", 2048, 2)
    return Candidate(NodeId(node), node, known, load, 2.0, told=told)


def chosen(*candidates: Candidate, known: Known | None = None) -> str:
    known = known or Known(now=NOW)
    verdict = choose(REQUEST, candidates, [], Classifier(()), Chance(b"stale"), known)
    assert isinstance(verdict, Verdict)
    return verdict.candidate.node


def test_who_was_idle_long_ago_does_not_count_as_idle() -> None:
    old, fresh = candidate("old", LONG_AGO, IDLE), candidate("fresh", NOW, BUSY)
    assert chosen(old, fresh) == "fresh"
    assert chosen(replace(old, told=NOW), fresh) == "old"


def test_where_nothing_newer_is_known_what_is_old_has_to_do() -> None:
    old, older = candidate("old", LONG_AGO, IDLE), candidate("older", Instant(0), BUSY)
    assert chosen(old, older) == "old"


def test_this_node_knows_its_own_load() -> None:
    own = replace(candidate("own", Instant(0), IDLE), local=True)
    assert chosen(own, candidate("fresh", NOW, BUSY)) == "own"


def test_a_conversation_stays_where_it_is() -> None:
    old, fresh = candidate("old", LONG_AGO, IDLE), candidate("fresh", NOW, BUSY)
    known = Known(now=NOW, stay=Stay("old", "p", 400))
    assert chosen(old, fresh, known=known) == "old"


@pytest.mark.parametrize(("linked_told", "newer"), [(NOW, "linked"), (LONG_AGO, "reported")])
def test_of_what_a_peer_told_and_what_was_told_of_it_the_newer_counts(
    linked_told: Instant, newer: str
) -> None:
    node = NodeId("n")
    linked = Peer(node, PeerState.ALIVE, name="linked", capability=Capability(1, 1))
    linked.told = linked_told
    reported = replace(linked, name="reported", told=after(LONG_AGO, 100))
    directory = Directory({node: linked}, reported={node: reported})
    assert [peer.name for peer in directory.askable()] == [newer]


# --- what coordinators offer --------------------------------------------------------------------
def test_offers_are_those_who_would_be_done_first() -> None:
    slow = replace(IDLE, decode_tps=5.0)
    waiting = replace(IDLE, queued=0, free_slots=0, wait_ms=500.0)
    ranked = sorted([(slow,), (BUSY,), (waiting,), (IDLE,)], key=busy)
    assert ranked == [(IDLE,), (waiting,), (BUSY,), (slow,)]


def test_an_engine_that_measured_nothing_is_not_taken_for_a_fast_one() -> None:
    unmeasured = replace(IDLE, decode_tps=0.0)
    assert busy((IDLE,)) < busy((unmeasured,)) < busy((replace(IDLE, decode_tps=5.0),))


def test_old_loads_and_engines_that_are_not_ready_come_last() -> None:
    unready = replace(BUSY, ready=False)
    assert busy((BUSY,)) < busy((unready,)) < busy((IDLE,), OLD_MS + 1)
    assert busy((IDLE,)) < busy(())


@given(
    st.integers(0, 8),
    st.integers(0, 50),
    st.floats(1, 200),
    st.floats(0, 10_000),
    st.floats(0, 1e4),
)
def test_who_is_busier_is_never_offered_before(
    free: int, queued: int, tps: float, run_ms: float, more_ms: float
) -> None:
    load = EngineLoad("m", True, 1, queued, free, 400.0, tps, run_ms=run_ms)
    assert busy((load,)) <= busy((replace(load, queued=queued + 1),))
    assert busy((load,)) <= busy((replace(load, free_slots=0),))
    assert busy((load,)) <= busy((replace(load, decode_tps=tps / 2),))
    waits = replace(load, free_slots=0, wait_ms=1 + more_ms)
    assert busy((waits,)) <= busy((replace(waits, wait_ms=2 + more_ms),))
    assert busy((load,)) <= busy((load,), more_ms)
