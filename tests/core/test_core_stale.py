"""What is done about loads that are old or were never measured, in meshes of partial views."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Refusal, Verdict
from meshslm.core.choosing import Choosing
from meshslm.core.classify import Classifier
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.events import BytesReceived, Send, StartTimer, TaskArrived
from meshslm.core.finding import likely_tokens
from meshslm.core.offers import ANSWER_TOKENS, OLD_MS, busy, soonest_first, usual_decode_tps
from meshslm.core.outbox import Outbox
from meshslm.core.route import Known, choose, decide
from meshslm.core.route_costs import usual_speeds
from meshslm.core.route_facts import Stay
from meshslm.core.route_filters import STALE_MS
from meshslm.core.task import Fault, Task
from meshslm.core.telling import Telling
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, TaskId, after
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import (
    Capability,
    ChatMessage,
    EngineLoad,
    Presence,
    Specialist,
    TaskRefused,
    TaskRequest,
    TaskSubmit,
)
from tests.core.mesh import Mesh

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


def test_coordinators_take_who_measured_nothing_for_one_like_the_others() -> None:
    fast, slow, stranger = (
        (NodeId(name), Capability(1, 1), Presence(1, 1, (replace(IDLE, decode_tps=tps),)), NOW)
        for name, tps in (("fast", 30.0), ("slow", 2.0), ("stranger", 0.0))
    )
    ranked = [who for who, *_ in soonest_first([stranger, slow, fast], 0, NOW)]
    assert ranked == ["fast", "stranger", "slow"]
    assert usual_decode_tps([fast[2].loads, slow[2].loads, stranger[2].loads]) == 3.75


def test_a_stranger_is_as_fast_as_others_of_its_profile() -> None:
    def who(node: str, prefill_tps: float, decode_tps: float) -> Candidate:
        return candidate(node, NOW, EngineLoad("m", True, 0, 0, 2, prefill_tps, decode_tps))

    fast, slow, stranger = who("fast", 400.0, 10.0), who("slow", 100.0, 2.0), who("new", 0.0, 0.0)
    known, chance = Known(now=NOW), Chance(b"stale")
    told = decide(REQUEST, [stranger, slow, fast], [], Classifier(()), chance, known)
    terms = {a.candidate.node: a.terms for a in told.assessments if a.terms is not None}
    assert [a.candidate.node for a in told.assessments] == ["fast", "new", "slow"]
    tokens = terms[fast.node].decode / 1000.0 * 10.0
    assert terms[stranger.node].decode / 1000.0 == pytest.approx(tokens * (1 / 10 + 1 / 2) / 2)
    assert terms[stranger.node].prefill == pytest.approx(
        (terms[fast.node].prefill + terms[slow.node].prefill) / 2
    )
    other = replace(stranger, specialist=replace(stranger.specialist, profile="other"))
    assert usual_speeds([other, slow, fast])["p"] == pytest.approx((160.0, 10 / 3))


def test_where_nobody_measured_anything_all_are_alike() -> None:
    nobody = [candidate(node, NOW, replace(IDLE, decode_tps=0.0)) for node in "ab"]
    assert usual_speeds(nobody) == {}
    found = decide(REQUEST, nobody, [], Classifier(()), Chance(b"stale"), Known(now=NOW))
    one, other = (a.terms for a in found.assessments)
    assert one == other


def test_offers_are_for_an_answer_of_the_length_that_is_looked_for() -> None:
    slow, queue = replace(IDLE, decode_tps=10.0), replace(BUSY, wait_ms=4_000.0, decode_tps=40.0)
    known = [
        (NodeId(name), Capability(1, 1), Presence(1, 1, (load,)), NOW)
        for name, load in (("slow", slow), ("queue", queue))
    ]
    assert soonest_first(known, 16, NOW)[0][0] == "slow"
    assert soonest_first(known, 256, NOW)[0][0] == "queue"
    assert soonest_first(known, 0, NOW) == soonest_first(known, ANSWER_TOKENS, NOW)


@pytest.mark.parametrize(("most", "asked"), [(0, 256), (1, 1), (40, 64), (64, 64), (10**6, 256)])
def test_questions_for_answers_of_about_the_same_length_are_the_same(most: int, asked: int) -> None:
    assert likely_tokens(replace(REQUEST, max_tokens=most)) == asked
    assert likely_tokens(replace(REQUEST, operation="embed", max_tokens=most)) == 0


# --- a node that would let a task wait ----------------------------------------------------------
class SentOn:
    """An origin's choosing, with one task that is at a node."""

    def __init__(self, patience_ms: int = 500) -> None:
        self.told: list[float] = []
        self.choosing = Choosing(
            list,
            lambda *_: Refusal(FaultCode.NOT_READY, ""),
            lambda _task, _by, wait_ms, _now: self.told.append(wait_ms),
        )
        self.task = Task(TaskId("t"), REQUEST, NOW)
        self.task.former = candidate("n", NOW, IDLE)
        self.task.node = NodeId("n")
        self.task.submit = TaskSubmit(TaskId("t"), 1, "p", REQUEST, 1_000, patience_ms)

    def refused(self, wait_ms: float) -> None:
        self.choosing.over(self.task, Fault(FaultCode.OVERLOADED, "", wait_ms=wait_ms), NOW)


def test_who_sends_a_task_on_is_believed_once_and_has_not_failed() -> None:
    one = SentOn()
    one.refused(900.0)
    assert (one.told, one.task.tried) == ([900.0], [])
    one.refused(900.0)
    assert (one.told, one.task.tried) == ([900.0], ["n"])


@pytest.mark.parametrize(("patience_ms", "wait_ms"), [(0, 900.0), (500, 400.0), (500, 0.0)])
def test_who_refuses_what_it_may_not_is_not_asked_again(patience_ms: int, wait_ms: float) -> None:
    one = SentOn(patience_ms)
    one.refused(wait_ms)
    assert (one.told, one.task.tried) == ([], ["n"])


def test_how_long_it_would_wait_there_is_known_until_something_newer_is() -> None:
    node = NodeId("n")
    linked = Peer(node, PeerState.ALIVE, capability=Capability(1, 1), loads=(IDLE,))
    other = replace(IDLE, model="other")
    reported = replace(linked, loads=(IDLE, other), told=after(LONG_AGO, 100))
    directory = Directory({node: linked}, reported={node: reported})
    directory.waits(node, "m", 700.0, NOW)
    waits = replace(IDLE, free_slots=0, wait_ms=700.0)
    assert (linked.loads, reported.loads) == ((waits,), (waits, other))
    assert linked.told == reported.told == NOW
    directory.waits(NodeId("gone"), "m", 700.0, NOW)


def test_a_node_that_sends_on_tells_for_how_long(twins: Mesh) -> None:
    for number in range(6):
        own = replace(REQUEST, selector="coder@b")
        twins.give("b", TaskArrived(TaskId(f"{number:032d}"), own))
    submit = TaskSubmit(TaskId("a" * 32), 1, "coder", REQUEST, 60_000, 10)
    twins.give("b", BytesReceived(NodeId("a"), encode(submit)))
    told = [decode(e.message) for e in twins.effects("b", Send)]
    (refused,) = [message for message in told if isinstance(message, TaskRefused)]
    assert refused.code == FaultCode.OVERLOADED
    assert refused.wait_ms > submit.patience_ms


# --- who tells, and when ------------------------------------------------------------------------
class Host:
    """A node that hosts something, and its coordinator."""

    def __init__(self) -> None:
        self.out, self.loads = Outbox(), (IDLE,)
        peers = {name: Peer(name, PeerState.ALIVE) for name in (NodeId("c"), NodeId("d"))}
        self.telling = Telling(Directory(peers), self.out, self.own)

    def own(self) -> tuple[Capability, Presence]:
        return Capability(1, 1), Presence(1, 1, self.loads)

    def told(self) -> list[NodeId]:
        return [e.peer for e in self.out.take() if isinstance(e, Send)]


def test_a_load_that_changed_is_told_soon_and_not_too_often() -> None:
    host, coordinator = Host(), NodeId("c")
    host.telling.to({coordinator: None}, host.own()[1], NOW)
    assert host.told() == [coordinator]
    host.loads = (BUSY,)
    for _ in range(3):
        host.telling.changed()
    timers = [e for e in host.out.take() if isinstance(e, StartTimer)]
    assert [timer.after_ms for timer in timers] == [mesh_limits.TELL_MS]
    soon = after(NOW, mesh_limits.TELL_MS)
    host.telling.tell(soon)
    assert host.told() == [coordinator]
    host.telling.tell(soon)
    assert not host.told()
    host.telling.to({coordinator: None}, host.own()[1], after(soon, mesh_limits.IDLE_PRESENCE_MS))
    assert host.told() == [coordinator]


def test_in_a_small_mesh_nothing_is_told_to_coordinators() -> None:
    host = Host()
    host.telling.changed()
    host.telling.tell(NOW)
    assert not host.out.take()
    host.telling.to({NodeId("c"): None}, host.own()[1], NOW)
    host.telling.changed()
    host.telling.release()
    host.out.take()
    host.telling.tell(NOW)
    assert not host.out.take()


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
