"""The choice of who answers: its laws, its strategies, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Refusal, Verdict
from meshslm.core.choosing import Choosing
from meshslm.core.classify import Classifier
from meshslm.core.conversations import Conversations
from meshslm.core.events import (
    EmitChunk,
    FailTask,
    FinishTask,
    RouteChosen,
    StartRun,
    TaskArrived,
)
from meshslm.core.prefix import digest, marks
from meshslm.core.route import Known, choose, decide
from meshslm.core.runs import EngineState, Run
from meshslm.core.strategies import STRATEGIES
from meshslm.core.task import Task
from meshslm.core.track_record import TrackRecord
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, RunId, TaskId, after
from meshslm.strategies import STRATEGIES as NAMES
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    EngineLoad,
    Hardware,
    TaskRequest,
    TaskSubmit,
    Timings,
    Usage,
)
from meshslm.wire.routing import Routing
from tests.core.mesh import Mesh, specialist

START = Instant(1_000_000)
CLASSIFIER = Classifier(())
REQUEST = TaskRequest("coder", (ChatMessage("user", "x" * 400),), max_tokens=64)


def candidate(
    node: str,
    *,
    rtt: float = 2.0,
    queued: int = 0,
    free: int = 2,
    tps: float = 40.0,
    hardware: Hardware | None = None,
    price: float = 0.0,
    domains: tuple[str, ...] = ("code",),
    size: int = 0,
    **more: object,
) -> Candidate:
    """A specialist that is ready."""
    known = replace(specialist("coder", *domains), price=price, size_mib=size)
    load = EngineLoad(known.model, True, 2 - free, queued, free, 10 * tps, tps)
    return Candidate(NodeId(node), node, known, load, rtt, hardware=hardware or Hardware(), **more)  # type: ignore[arg-type]  # fields by name


def chosen(found: Verdict | Refusal) -> str:
    assert isinstance(found, Verdict), found
    return found.candidate.node


def pick(
    candidates: list[Candidate],
    request: TaskRequest = REQUEST,
    known: Known | None = None,
    seed: int = 1,
) -> str:
    chance = Chance.from_int(seed)
    return chosen(choose(request, candidates, [], CLASSIFIER, chance, known or Known()))


# --- laws ---------------------------------------------------------------------------------------
drawn = st.builds(
    candidate,
    node=st.sampled_from("abcdefgh"),
    rtt=st.floats(0, 500),
    queued=st.integers(0, 20),
    free=st.integers(0, 2),
    tps=st.floats(1, 200),
    price=st.floats(0, 100),
    size=st.integers(0, 8000),
)
meshes = st.lists(drawn, min_size=1, max_size=8, unique_by=lambda c: c.node)
WORSE = ("rtt", "queued", "tps", "price", "battery")


def worsened(one: Candidate, how: str) -> Candidate:
    """The same, but worse in one thing."""
    assert one.load is not None
    node = NodeId(one.node + "-worse")
    match how:
        case "rtt":
            return replace(one, node=node, rtt_ms=(one.rtt_ms or 0.0) + 100.0)
        case "queued":
            return replace(one, node=node, load=replace(one.load, queued=one.load.queued + 3))
        case "tps":
            slower = replace(one.load, decode_tps=one.load.decode_tps / 2)
            return replace(one, node=node, load=slower)
        case "price":
            dearer = replace(one.specialist, price=one.specialist.price + 5.0)
            return replace(one, node=node, specialist=dearer)
        case _:
            return replace(one, node=node, hardware=Hardware(on_battery=True, battery=0.1))


@given(meshes, st.sampled_from(WORSE), st.integers(0, 2**32))
def test_who_is_better_in_something_and_worse_in_nothing_never_ranks_below(
    mesh: list[Candidate], how: str, seed: int
) -> None:
    one = mesh[0]
    everybody = [*mesh, worsened(one, how)]
    found = decide(REQUEST, everybody, [], CLASSIFIER, Chance.from_int(seed))
    ranks = {a.candidate.node: a.rank for a in found.assessments if a.terms is not None}
    if one.node + "-worse" in ranks:
        assert ranks[one.node] < ranks[NodeId(one.node + "-worse")]


@given(meshes, st.sampled_from(NAMES), st.integers(0, 2**32), st.integers(0, 7))
def test_what_is_explained_is_what_is_done(
    mesh: list[Candidate], strategy: str, seed: int, tried: int
) -> None:
    request = replace(REQUEST, routing=Routing(strategy))
    gone = [c.node for c in mesh[:tried]]
    does = choose(request, mesh, gone, CLASSIFIER, Chance.from_int(seed))
    told = decide(request, mesh, gone, CLASSIFIER, Chance.from_int(seed))
    assert told.outcome == does
    assert told.strategy == strategy
    assert {a.candidate.node for a in told.assessments} == {c.node for c in mesh}
    for assessment in told.assessments:
        assert bool(assessment.dropped) == (assessment.terms is None) == (assessment.rank == 0)


@given(
    drawn,
    st.integers(0, 5000),
    st.integers(1, limits.DEADLINE_MS),
    st.sampled_from([None, 0.0, 0.5, 0.9]),
)
def test_an_only_match_is_asked_or_its_refusal_says_why(
    only: Candidate, characters: int, deadline_ms: int, complexity: float | None
) -> None:
    request = replace(
        REQUEST, messages=(ChatMessage("user", "x" * characters),), deadline_ms=deadline_ms
    )
    found = choose(
        request, [only], [], CLASSIFIER, Chance.from_int(1), Known(complexity=complexity)
    )
    assert isinstance(found, Verdict)
    assert found.candidate is only


@given(meshes, st.integers(0, 2**32))
def test_nobody_who_costs_much_more_is_drawn(mesh: list[Candidate], seed: int) -> None:
    told = decide(REQUEST, mesh, [], CLASSIFIER, Chance.from_int(seed))
    totals = {a.candidate.node: a.terms.total for a in told.assessments if a.terms}
    assert isinstance(told.outcome, Verdict)
    least = min(totals.values())
    assert totals[told.outcome.candidate.node] <= max(least * 1.1, least + 5.0) + 1e-6


# --- strategies ---------------------------------------------------------------------------------
def test_the_strategies_have_the_names_that_clients_may_give() -> None:
    assert tuple(STRATEGIES) == NAMES


def by(strategy: str) -> TaskRequest:
    return replace(REQUEST, routing=Routing(strategy))


def test_each_strategy_asks_whom_it_is_named_for() -> None:
    busy_near = candidate("near", rtt=0.0, free=0, queued=5, local=True)
    idle_slow = candidate("slow", rtt=90.0, free=2, tps=4.0)
    full_fast = candidate("fast", rtt=5.0, free=1, tps=90.0, price=3.0)
    everybody = [busy_near, idle_slow, full_fast]
    assert pick(everybody, by("local-first")) == "near"
    assert pick(everybody, by("least-connections")) == "slow"
    assert pick(everybody, by("capacity")) == "fast"
    assert pick([idle_slow, full_fast], by("cost")) == "slow"
    assert pick([idle_slow, full_fast], by("auto")) == "fast"


def test_prefix_asks_who_has_the_beginning_warm() -> None:
    warm = candidate("warm", rtt=100.0, tps=20.0)
    assert warm.load is not None
    warm = replace(warm, load=replace(warm.load, prefixes=digest([marks(REQUEST)])))
    assert pick([candidate("cold"), warm], by("prefix")) == "warm"


def test_round_robin_and_response_time_go_by_what_happened_here() -> None:
    record = TrackRecord()
    everybody = [candidate("a"), candidate("b"), candidate("c")]
    seen = []
    for number in range(6):
        known = Known("round-robin", record.at(after(START, number)))
        found = choose(REQUEST, everybody, [], CLASSIFIER, Chance.from_int(number), known)
        seen.append(chosen(found))
        serve(record, seen[-1], str(number), after(START, number), took_ms=1.0)
    assert sorted(seen[:3]) == sorted(seen[3:]) == ["a", "b", "c"]
    record = TrackRecord()
    for place, node in enumerate("abc"):
        serve(record, node, node, START, took_ms=100.0 * (3 - place))
    assert pick(everybody, by("response-time"), Known(measured=record.at(START))) == "c"


# --- what is learnt -----------------------------------------------------------------------------
def serve(
    record: TrackRecord,
    node: str,
    task: str,
    now: Instant,
    *,
    took_ms: float,
    expected_ms: float = 0.0,
    tokens: int = 10,
) -> None:
    """An answer of a node: half of the time to the first token."""
    route = RouteChosen(TaskId(task), NodeId(node), node, "coder", "tiny", "", "", 1)
    verdict = Verdict(candidate(node), "", expected_ms)
    record.chosen(route, verdict, (), now)
    record.item(EmitChunk(TaskId(task), Chunk(0, (1,), "a")), after(now, took_ms / 2))
    rest = Chunk(0, (1,) * (tokens - 1), "b")
    record.item(EmitChunk(TaskId(task), rest), after(now, took_ms))
    record.ended(TaskId(task), after(now, took_ms))


def test_a_liar_ends_with_little_traffic() -> None:
    """It says that it is idle and ten times as fast as the others, and is ten times as slow."""
    record = TrackRecord()
    now = START
    counts = {"honest": 0, "fair": 0, "liar": 0}
    for number in range(200):
        mesh = [
            replace(c, told=now)
            for c in (candidate("honest"), candidate("fair"), candidate("liar", tps=400.0))
        ]
        known = Known(measured=record.at(now))
        found = choose(REQUEST, mesh, [], CLASSIFIER, Chance.from_int(number), known)
        assert isinstance(found, Verdict)
        node = found.candidate.node
        counts[node] += 1
        took = 20_000.0 if node == "liar" else 2_500.0
        expected = found.first_ms
        serve(record, node, str(number), now, took_ms=took, expected_ms=expected, tokens=64)
        now = after(now, took)
        record.check()
    assert counts["liar"] <= 10
    assert counts["honest"] > 40
    assert counts["fair"] > 40


def test_who_promised_what_he_keeps_is_not_blamed() -> None:
    record = TrackRecord()
    for number in range(20):
        serve(record, "a", str(number), START, took_ms=1000.0, expected_ms=600.0)
    assert record.at(START).late_ms(candidate("a")) == 0.0
    assert record.failing(candidate("a")) == 0.0


def test_a_client_that_leaves_says_nothing_of_who_answers() -> None:
    record = TrackRecord()
    for number in range(5):
        task = TaskId(str(number))
        route = RouteChosen(task, NodeId("a"), "a", "coder", "tiny", "", "", 1)
        record.chosen(route, None, (), START)
        record.dropped(task)
    assert record.failing(candidate("a")) == 0.0


def test_who_fails_again_and_again_costs_more_and_is_forgiven_in_time() -> None:
    record = TrackRecord()
    for number in range(5):
        task = TaskId(str(number))
        route = RouteChosen(task, NodeId("a"), "a", "coder", "tiny", "", "", 1)
        record.chosen(route, None, (), START)
        record.failed(FailTask(task, FaultCode.WORKER_LOST, ""), START)
    assert record.at(START).failing(candidate("a")) > 0.5
    assert pick([candidate("a"), candidate("b", rtt=400.0)], known=Known(measured=record)) == "b"
    later = after(START, 3_600_000)
    assert record.at(later).failing(candidate("a")) == 0.0


def test_what_was_sent_counts_until_the_load_tells_of_it() -> None:
    record = TrackRecord()
    there = candidate("a")
    for number in range(3):
        task = TaskId(str(number))
        route = RouteChosen(task, NodeId("a"), "a", "coder", "tiny", "", "", 1)
        record.chosen(route, None, (), after(START, number))
    assert record.pending(replace(there, told=START)) == 3
    assert record.pending(replace(there, told=after(START, 5000))) == 0


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=50))
def test_tables_are_bounded(nodes: list[int]) -> None:
    record, stays = TrackRecord(), Conversations()
    for number in nodes:
        request = replace(REQUEST, prompt="", messages=(ChatMessage("user", str(number)),))
        serve(record, f"n{number}", str(number), START, took_ms=5.0)
        stays.answered(request, f"n{number}", "coder", "")
    record.check()
    stays.check()


# --- conversations ------------------------------------------------------------------------------
def turn(*texts: str) -> TaskRequest:
    roles = ("user", "assistant")
    said = tuple(ChatMessage(roles[n % 2], text) for n, text in enumerate(texts))
    return TaskRequest("coder", said, max_tokens=16)


def test_a_conversation_stays_and_moves_when_waiting_costs_more() -> None:
    stays = Conversations()
    first = turn("tell me a story " * 50)
    stays.answered(first, "a", "coder", "code")
    second = turn("tell me a story " * 50, "once", "and then?")
    stay = stays.of(second)
    assert stay is not None
    known = Known(stay=stay)
    assert pick([candidate("a"), candidate("b")], second, known) == "a"
    full = candidate("a", free=0, queued=12)
    assert pick([full, candidate("b")], second, known) == "b"


def test_a_conversation_stays_although_others_cost_about_the_same() -> None:
    first = turn("tell me a story " * 50)
    stays = Conversations()
    stays.answered(first, "n3", "coder", "code")
    second = replace(turn("tell me a story " * 50, "once", "and then?"), max_tokens=512)
    known = Known(stay=stays.of(second))
    assert known.stay is not None
    # Each measures a little faster than it; that is what noise looks like.
    others = [candidate(f"n{n}", tps=51.0 if n != 3 else 50.0) for n in range(20)]
    asked = {pick(others, second, known, seed) for seed in range(30)}
    assert asked == {"n3"}
    asked = {pick(others, second, Known(), seed) for seed in range(30)}
    assert len(asked) > 3
    slow = [candidate("n3", tps=5.0), *(c for c in others if c.node != "n3")]
    assert "n3" not in {pick(slow, second, known, seed) for seed in range(30)}


def test_a_conversation_is_known_by_its_name_too() -> None:
    stays = Conversations()
    named = Routing(conversation="talk")
    stays.answered(replace(turn("hello"), routing=named), "a", "coder", "")
    stay = stays.of(replace(turn("something else"), routing=named))
    assert stay is not None
    assert stay.node == "a"
    assert stays.of(turn("something else")) is None


# --- filters ------------------------------------------------------------------------------------
def test_a_model_nobody_has_is_refused_with_what_there_is() -> None:
    found = choose(
        replace(REQUEST, selector="gpt-9"), [candidate("a")], [], CLASSIFIER, Chance.from_int(1)
    )
    assert isinstance(found, Refusal)
    assert found.code is FaultCode.UNKNOWN_MODEL
    assert "coder" in found.detail


def test_a_domain_may_be_named_in_any_script() -> None:
    there = candidate("a", domains=("кулинария", "料理"))
    found = choose(
        replace(REQUEST, selector="domain:料理"), [there], [], CLASSIFIER, Chance.from_int(1)
    )
    assert chosen(found) == "a"
    assert isinstance(found, Verdict)
    assert found.reason.isascii()


def test_a_harder_request_goes_to_a_larger_model() -> None:
    small, large = candidate("small", size=100), candidate("large", size=900, tps=20.0)
    assert pick([small, large], known=Known(complexity=0.1)) == "small"
    assert pick([small, large], known=Known(complexity=0.5)) == "large"


def test_who_would_be_too_late_is_not_asked_where_another_is_in_time() -> None:
    slow, dear = candidate("slow", tps=5.0), candidate("dear", tps=90.0, price=10_000.0)
    assert pick([slow, dear]) == "slow"
    assert pick([slow, dear], replace(REQUEST, deadline_ms=3000)) == "dear"
    assert pick([slow], replace(REQUEST, deadline_ms=100)) == "slow"


# --- in a mesh ----------------------------------------------------------------------------------
def test_explaining_runs_and_changes_nothing(twins: Mesh) -> None:
    core = twins.boxes[NodeId("a")].core
    done = len(twins.boxes[NodeId("a")].done)
    told = core.explain(replace(REQUEST, selector="domain:code"), twins.now)
    assert isinstance(told.outcome, Verdict)
    assert {a.candidate.node for a in told.assessments} == {"b", "c"}
    again = core.explain(replace(REQUEST, selector="domain:code"), twins.now)
    assert again == told
    assert len(twins.boxes[NodeId("a")].done) == done


def queued_run(number: int, most: int, said: int = 0) -> Run:
    key = (NodeId("a"), TaskId(str(number)), 1)
    request = replace(REQUEST, max_tokens=most)
    run = Run(RunId(number), key, TaskSubmit(key[1], 1, "coder", request, 1000), "tiny", 1)
    run.said = said
    return run


def test_a_node_knows_what_its_runs_have_still_to_do() -> None:
    engine = EngineState("tiny", slots=2, prefill_tps=400.0, decode_tps=10.0)
    assert engine.wait_ms(1) == 0.0
    for number in range(20):
        ended = queued_run(number, 64, said=50)
        engine.took(ended, Timings(0.0, 250.0, 5000.0), 9000.0)
    assert engine.run_ms == pytest.approx(5250.0)
    for number, said in ((31, 40), (32, 20)):
        engine.running[RunId(number)] = queued_run(number, 64, said)
        engine.weight += 1
    soon = engine.wait_ms(1)
    assert soon == pytest.approx(1000.0, rel=0.15)
    assert engine.wait_ms(2) == pytest.approx(3000.0, rel=0.15)
    engine.queue.add(queued_run(33, 64), "")
    assert engine.wait_ms(1) == pytest.approx(3000.0, rel=0.15)


def test_who_would_wait_longer_than_elsewhere_is_sent_on(twins: Mesh) -> None:
    first = twins.boxes[NodeId("a")].core
    for number in range(12):
        task = TaskId(f"{number:032d}")
        twins.give("a", TaskArrived(task, replace(REQUEST, selector="domain:code")))
    told = [e for e in twins.effects("a", RouteChosen) if e.attempt > 1]
    served = {box: len(twins.effects(box, StartRun)) for box in ("b", "c")}
    first.check()
    assert served["b"] >= 2
    assert served["c"] >= 2
    assert not twins.effects("a", FailTask), told


def test_an_end_without_a_beginning_is_ignored() -> None:
    record = TrackRecord()
    record.ended(TaskId("x"), START)
    record.item(EmitChunk(TaskId("x"), Chunk(0, (1,), "a")), START)
    record.failed(FailTask(TaskId("x"), FaultCode.INTERNAL, ""), START)
    record.check()
    assert FinishTask(TaskId("x"), Usage(), Timings()).task == "x"


def test_a_later_attempt_has_to_be_done_in_what_is_left_of_the_time() -> None:
    cheap, fast = candidate("cheap", tps=16.0), candidate("fast", tps=80.0, price=9.0)
    request = replace(REQUEST, routing=Routing(strategy="cost"), deadline_ms=8_000)
    task = Task(TaskId("t"), request, after(START, request.deadline_ms))
    choosing = Choosing(
        lambda: [cheap, fast],
        lambda asked, tried, known: choose(
            asked, known, tried, CLASSIFIER, Chance.from_int(1), Known()
        ),
        lambda _task, _by, _wait_ms, _now: None,
    )
    assert chosen(choosing.best(task, START)) == "cheap"
    task.attempt = 1
    assert chosen(choosing.best(task, after(START, 5_000))) == "fast"
