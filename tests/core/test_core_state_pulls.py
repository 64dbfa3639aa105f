"""How much of a peer is asked for at a time, how often again, and what it is answered at most."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import state_limits
from meshslm.core.events import AddressFound, BytesReceived, Send, StartTimer
from meshslm.core.outbox import Outbox
from meshslm.core.state_pulls import TIMER, StatePulls
from meshslm.ids import Instant, NodeId, after
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Message
from meshslm.wire.state import (
    DocumentDigest,
    StateCheck,
    StateDeltas,
    StateDigests,
    StateSummary,
    StateVector,
)
from tests.core.mesh import address_of
from tests.core.state_mesh import StateMesh

A, B, EVIL = NodeId("a"), NodeId("b"), NodeId("evil")
START = Instant(1_000_000)
PIECE = 50_000


def later(ms: float) -> Instant:
    return after(START, ms)


# --- what is asked for ----------------------------------------------------------------------------
def test_what_is_too_much_at_a_time_waits_in_order() -> None:
    pulls = StatePulls(Outbox())
    for number in range(state_limits.STATE_PULLS):
        pulls.begin(A, f"d{number}", START)
    assert pulls.full(A)
    assert not pulls.full(B)
    pulls.wait(A, "x", b"told")
    pulls.wait(A, "y")
    assert pulls.next(A) is None
    assert pulls.came(A, "d1", 0, later(10))
    assert pulls.next(A) == ("x", b"told")
    pulls.begin(A, "x", later(10))
    assert not pulls.came(B, "d2", 0, later(11)), "it was asked of somebody else"
    assert not pulls.came(A, "d1", 0, later(11)), "it was answered already"
    assert pulls.came(A, "d0", 0, later(11))
    assert pulls.next(A) == ("y", b"")
    pulls.check()


def test_what_is_under_way_elsewhere_keeps_its_place() -> None:
    pulls = StatePulls(Outbox())
    pulls.begin(B, "x", START)
    pulls.wait(A, "x")
    pulls.wait(A, "y")
    assert pulls.next(A) == ("y", b"")
    assert pulls.next(A) is None
    pulls.parted(B)
    assert pulls.next(A) == ("x", b"")


def tries(pulls: StatePulls, out: Outbox, until_ms: int, heard: Collection[int] = ()) -> list[int]:
    """When `d` is asked of a peer, which answers other things at `heard` alone, in ms."""
    found = [0]
    pulls.begin(A, "d", START)
    if heard:
        pulls.begin(A, "other", START)
    for ms in range(50, until_ms, 50):
        if ms in heard:
            pulls.came(A, "other", 0, later(ms))
            pulls.begin(A, "other", later(ms))
        pulls.look(later(ms))
        while (name := pulls.next(A)) is not None:
            pulls.begin(A, name[0], later(ms))
            found.append(ms)
        pulls.check()
    assert out.timer_runs(TIMER, "")
    return found


def test_it_is_asked_again_after_ever_longer_times_and_then_no_more() -> None:
    out = Outbox()
    found = tries(StatePulls(out), out, 200_000)
    waits = [late - soon for soon, late in pairwise(found)]
    assert waits == [500, 1_000, 2_000, 4_000, 8_000, 16_000]


def test_it_is_not_asked_again_while_other_answers_come_but_not_for_ever() -> None:
    out = Outbox()
    found = tries(StatePulls(out), out, 50_000, range(450, 100_000, 450))
    assert found[:2] == [0, state_limits.STATE_PULL_HELD_MS]


def test_patience_is_what_the_last_answer_took_three_times() -> None:
    pulls = StatePulls(Outbox())
    pulls.begin(A, "slow", START)
    assert pulls.came(A, "slow", 0, later(400))
    pulls.begin(A, "d", later(400))
    pulls.look(later(400 + 1_150))
    assert pulls.busy("d", A, later(1_550))
    pulls.look(later(400 + 1_200))
    assert not pulls.busy("d", A, later(1_600))


def test_a_slow_peer_makes_nobody_wait_for_another() -> None:
    out = Outbox()
    pulls = StatePulls(out)
    pulls.begin(A, "slow", START)
    assert pulls.came(A, "slow", 0, later(10_000))
    (first,) = out.take()
    assert isinstance(first, StartTimer)
    assert out.timer_is_current(first.key, first.generation)
    pulls.look(later(10_000))
    assert not out.timer_runs(TIMER, "")
    pulls.begin(A, "long", later(10_000))
    pulls.begin(B, "quick", later(10_100))
    woken = [e.after_ms for e in out.take() if isinstance(e, StartTimer) and e.key.kind == TIMER]
    at = 10_000 + woken[0]
    while pulls.next(B) is None:
        pulls.look(later(at))
        at += state_limits.STATE_PULL_MS
        assert at <= 10_100 + 3 * state_limits.STATE_PULL_MS, "it was asked, and is left alone"
    assert pulls.busy("long", A, later(at)), "the slow one has its time"


def test_another_peer_is_asked_where_no_answer_comes() -> None:
    pulls = StatePulls(Outbox())
    pulls.begin(A, "d", START)
    late = later(state_limits.STATE_PULL_MS)
    assert pulls.busy("d", B, later(state_limits.STATE_PULL_MS - 1))
    assert not pulls.busy("d", B, late)
    assert pulls.busy("d", A, late)
    pulls.begin(B, "d", late)
    pulls.check()
    assert not pulls.came(A, "d", 0, late)
    assert pulls.came(B, "d", 0, late)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), max_size=80))
def test_no_more_is_ever_under_way_than_may_be_and_nothing_is_lost(
    steps: list[tuple[int, int, int]],
) -> None:
    """Whatever comes, in whatever order; and who then answers is asked for all that waits."""
    out = Outbox()
    pulls, nodes, now = StatePulls(out), [NodeId(f"n{n}") for n in range(3)], START

    def go_on(node: NodeId) -> int:
        count = 0
        while (found := pulls.next(node)) is not None:
            pulls.begin(node, found[0], now)
            count += 1
        return count

    for what, who, which in steps:
        node, name = nodes[who], f"d{which}"
        if what == 0:
            pulls.wait(node, name)
        elif what == 1:
            pulls.came(node, name, which, now)
        elif what == 2:
            now = after(now, 100 * which)
            pulls.look(now)
        elif what == 3:
            pulls.parted(node)
        go_on(node)
        pulls.check()
    for _ in range(60):
        for node in nodes:
            for which in range(10):
                pulls.came(node, f"d{which}", 0, now)
            go_on(node)
    assert all(pulls.next(node) is None for node in nodes)
    assert not any(pulls.busy(f"d{which}", nodes[0], now) for which in range(10))


# --- what is answered -----------------------------------------------------------------------------
def laden(documents: int) -> StateMesh:
    """Node a has so many documents of 200 KB; the messages of evil are made up."""
    mesh, draw = StateMesh(), Random(1)
    mesh.join("a")
    for number in range(documents):
        for piece in range(4):
            name = f"memory/n{number}"
            assert mesh.put("a", f"k{piece}", draw.randbytes(PIECE), name).code is None
    mesh.join("evil", "a")
    mesh.cut.add(frozenset((A, EVIL)))  # it hears nothing, so it says nothing by itself
    return mesh


def told(mesh: StateMesh, since: int) -> list[StateDeltas]:
    sent = [e for e in mesh.effects("a", Send)[since:] if e.peer == EVIL]
    return [m for e in sent if isinstance(m := decode(e.message), StateDeltas)]


def queued(mesh: StateMesh, since: int) -> int:
    return sum(len(e.message) for e in mesh.effects("a", Send)[since:] if e.peer == EVIL)


def say(mesh: StateMesh, message: Message) -> None:
    mesh.give("a", BytesReceived(EVIL, encode(message)))


def test_who_pulls_everything_a_thousand_times_gets_no_more_than_a_lane_holds() -> None:
    mesh = laden(12)
    since = len(mesh.effects("a", Send))
    for number in range(1_000):
        guess = tuple(range(number * 16 + 1, number * 16 + 17))
        say(mesh, StateVector(f"memory/n{number % 12}", want=True, came=guess))
        if number % 100 == 99:
            mesh.now = after(mesh.now, 250)
    most = state_limits.STATE_ANSWERS_BYTES
    assert most / 2 < queued(mesh, since) < most + state_limits.STATE_SYNC_BYTES
    assert mesh.peer_state("a", "evil") == "alive"


def test_who_says_what_has_come_is_answered_on() -> None:
    mesh = laden(2)
    since = len(mesh.effects("a", Send))
    came: tuple[int, ...] = ()
    for _ in range(30):
        say(mesh, StateVector("memory/n0", want=True, came=came))
        came = (told(mesh, since)[-1].answer,)
    assert len(told(mesh, since)) == 30
    assert len({message.answer for message in told(mesh, since)}) == 30


def test_answers_that_nobody_says_came_hold_nothing_up_for_ever() -> None:
    mesh = laden(2)
    since = len(mesh.effects("a", Send))
    for _ in range(40):
        say(mesh, StateVector("memory/n0", want=True))
    before = len(told(mesh, since))
    assert before < 15
    mesh.now = after(mesh.now, state_limits.STATE_ANSWER_MS)
    say(mesh, StateVector("memory/n0", want=True))
    assert len(told(mesh, since)) == before + 1


def test_who_compares_without_end_is_told_so_many_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_limits, "DIGEST_BYTES", 16 * 1024)
    mesh = laden(4)
    since = len(mesh.effects("a", Send))
    for number in range(1_000):
        say(mesh, StateSummary(bytes(16)) if number % 2 else StateCheck(number))
    sent = [decode(e.message) for e in mesh.effects("a", Send)[since:] if e.peer == EVIL]
    burst = state_limits.DIGESTS_TOLD_BURST // (4 * 16 * 1024)
    told_of = sum(isinstance(message, StateDigests) for message in sent)
    assert burst / 2 < told_of <= burst
    mesh.now = after(mesh.now, 10_000)
    say(mesh, StateCheck(1_000))
    last = decode(mesh.effects("a", Send)[-1].message)
    assert isinstance(last, StateDigests)
    assert last.nonce == 1_000


def test_a_peer_that_tells_of_four_thousand_documents_is_asked_for_four() -> None:
    mesh = laden(0)
    since = len(mesh.effects("a", Send))
    for start in range(0, state_limits.DOCUMENTS, state_limits.DIGESTS):
        names = [f"memory/x{number}" for number in range(start, start + state_limits.DIGESTS)]
        more = start + state_limits.DIGESTS < state_limits.DOCUMENTS
        digests = tuple(DocumentDigest(name, bytes(8), bytes(16)) for name in names)
        say(mesh, StateDigests(digests, more))
    sent = [decode(e.message) for e in mesh.effects("a", Send)[since:] if e.peer == EVIL]
    asked = [m.document for m in sent if isinstance(m, StateVector) and m.want]
    assert asked == [f"memory/x{number}" for number in range(state_limits.STATE_PULLS)]
    say(mesh, StateDeltas(document="memory/x2"))
    sent = [decode(e.message) for e in mesh.effects("a", Send)[since:] if e.peer == EVIL]
    last = [m.document for m in sent if isinstance(m, StateVector) and m.want][-1]
    assert last == f"memory/x{state_limits.STATE_PULLS}"


def test_all_documents_come_and_the_asker_says_so() -> None:
    mesh, draw = StateMesh(), Random(1)
    mesh.join("a")
    for number in range(20):
        assert mesh.put("a", "k", draw.randbytes(PIECE), f"memory/n{number}").code is None
    mesh.join("b", "a")
    mesh.pass_time(100)
    assert mesh.agree("a", "b"), "nobody waits for a timer"
    assert any(isinstance(m, StateVector) and m.came for m in mesh.seen["b", "a"])


@pytest.mark.parametrize("known", [True, False])
def test_what_is_refused_is_not_asked_for_over_and_over(
    monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """Parts of a member that was put out, or is long gone, may be with others for ever."""
    mesh, draw = StateMesh(), Random(1)
    mesh.join("a")
    for number in range(3 * state_limits.STATE_SYNC_DELTAS):
        assert mesh.put("a", f"k{number}", draw.randbytes(100)).code is None
    mesh.join("b", "a")
    mesh.pass_time(2_000)
    assert mesh.agree("a", "b")
    mesh.kill("a")
    mesh.join("c")
    authors = mesh.boxes[NodeId("c")].core.state._authors
    if known:
        monkeypatch.setattr(authors, "may_write", lambda author, _document: author != A)
    else:
        monkeypatch.setattr(authors, "unknown", lambda author: author == A)
    mesh.give("c", AddressFound(address_of("b")))
    mesh.pass_time(3 * state_limits.STATE_SYNC_MOST_MS)
    asked = [m for m in mesh.seen["c", "b"] if isinstance(m, StateVector) and m.want]
    assert 1 <= len(asked) <= 20, "at each comparison"
