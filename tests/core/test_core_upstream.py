"""An endpoint outside the mesh in the choice of who answers, and what becomes of its failures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Refusal, Verdict
from meshslm.core.classify import Classifier
from meshslm.core.continuation import Delivered, successor
from meshslm.core.events import (
    BytesReceived,
    EngineReady,
    FailTask,
    FinishTask,
    HostingChanged,
    RouteChosen,
    RunEnded,
    RunFailed,
    RunProduced,
    StartRun,
    TaskArrived,
)
from meshslm.core.route import Known, choose
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, TaskId
from meshslm.wire.codec import encode
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Constraint,
    EngineLoad,
    Hardware,
    Presence,
    Sampling,
    TaskRequest,
    TaskSubmit,
    Timings,
    TokenBias,
    Tool,
    Usage,
)
from meshslm.wire.routing import Routing
from tests.core.mesh import Mesh, specialist

CLASSIFIER = Classifier(())
REQUEST = TaskRequest("coder", (ChatMessage("user", "x" * 400),), max_tokens=64)


def candidate(node: str, *domains: str, tps: float = 40.0, **more: object) -> Candidate:
    """A specialist that is ready."""
    known = specialist("coder", *domains)
    load = EngineLoad(known.model, True, 0, 0, 2, 10 * tps, tps)
    return Candidate(NodeId(node), node, known, load, 2.0, **more)  # type: ignore[arg-type]  # fields by name


def pick(
    candidates: list[Candidate], request: TaskRequest = REQUEST, known: Known | None = None
) -> str:
    chance = Chance.from_int(1)
    found = choose(request, candidates, [], CLASSIFIER, chance, known or Known())
    assert isinstance(found, Verdict), found
    return found.candidate.node


def upstream() -> Candidate:
    return candidate("me", tps=500.0, local=True, upstream=True)


def test_an_upstream_is_for_hard_requests_and_never_for_private_ones() -> None:
    mesh = [candidate("a", "code"), upstream()]
    auto = replace(REQUEST, selector="auto")
    assert pick(mesh, auto, Known(complexity=0.2)) == "a"
    assert pick(mesh, auto, Known(complexity=0.5)) == "a"
    assert pick(mesh, auto, Known(complexity=0.8)) == "me"
    secret = replace(auto, routing=Routing(private=True))
    assert pick(mesh, secret, Known(complexity=0.8)) == "a"


def test_an_upstream_that_is_named_is_asked_unless_that_contradicts_itself() -> None:
    outside = upstream()
    outside = replace(outside, specialist=replace(outside.specialist, profile="upstream"))
    request = replace(REQUEST, selector="upstream")
    assert pick([candidate("a", "code"), outside], request) == "me"
    secret = replace(request, routing=Routing(private=True))
    found = choose(secret, [candidate("a", "code"), outside], [], CLASSIFIER, Chance.from_int(1))
    assert isinstance(found, Refusal)
    assert found.code is FaultCode.BAD_REQUEST
    assert "private" in found.detail


@pytest.mark.parametrize(
    "special",
    [
        replace(REQUEST, sampling=Sampling(top_k=5)),
        replace(REQUEST, sampling=Sampling(min_p=0.1)),
        replace(REQUEST, sampling=Sampling(repeat_penalty=1.1)),
        replace(REQUEST, sampling=Sampling(logit_bias=(TokenBias(1, 5.0),))),
        replace(REQUEST, constraint=Constraint("json_object")),
        replace(REQUEST, choices=2),
        replace(REQUEST, logprobs=0),
        replace(REQUEST, tools=(Tool("f", "", "{}"),)),
        TaskRequest("auto", prompt="Once", max_tokens=64),
    ],
)
def test_what_an_upstream_may_not_understand_is_not_sent_to_it(special: TaskRequest) -> None:
    outside = upstream()
    outside = replace(outside, specialist=replace(outside.specialist, profile="upstream"))
    hard = Known(complexity=0.8)
    assert pick([candidate("a", "code"), outside], replace(REQUEST, selector="auto"), hard) == "me"
    assert pick([candidate("a", "code"), outside], replace(special, selector="auto"), hard) == "a"
    named = replace(special, selector="upstream")
    found = choose(named, [candidate("a", "code"), outside], [], CLASSIFIER, Chance.from_int(1))
    assert isinstance(found, Refusal)
    assert found.code is FaultCode.BAD_REQUEST
    assert "plain answer" in found.detail


def test_an_upstream_that_failed_leaves_its_node_in_the_choice() -> None:
    mine = candidate("me", "code", local=True)
    outside = upstream()
    tried = [outside.tried_as]
    known = Known(complexity=0.9)
    found = choose(
        replace(REQUEST, selector="auto"),
        [mine, outside],
        tried,
        CLASSIFIER,
        Chance.from_int(1),
        known,
    )
    assert isinstance(found, Verdict)
    assert found.candidate.node == "me"
    assert not found.candidate.upstream


def test_an_upstream_never_goes_on_behind_what_was_said() -> None:
    """It would begin anew."""
    delivered = Delivered(REQUEST)
    delivered.add(Chunk(0, (1,), "Once"))
    asked: list[list[Candidate]] = []

    def choose_of(fit: list[Candidate]) -> Refusal:
        asked.append(fit)
        return Refusal(FaultCode.PEER_LOST, "nobody")

    former = candidate("a", "code")
    outside = upstream()
    same = replace(outside, specialist=former.specialist)
    found = successor(delivered, former, [outside, same, candidate("b", "code")], choose_of)
    assert isinstance(found, Refusal)
    assert [[one.node for one in fit] for fit in asked] == [["b"], ["b"]]


# --- in a mesh ----------------------------------------------------------------------------------
def outside_of(mesh: Mesh, name: str) -> None:
    """A node gets an upstream, which is ready at once."""
    endpoint = replace(specialist("upstream", model="upstream/big"), digest="")
    mesh.give(name, HostingChanged((), Hardware(), upstream=(endpoint,)))
    mesh.give(name, EngineReady("upstream/big", 2))


def test_an_upstream_is_this_nodes_own_affair(pair: Mesh) -> None:
    outside_of(pair, "a")
    pair.pass_time(3000)
    told = pair.boxes[NodeId("b")].core.explain(REQUEST, pair.now)
    assert {a.candidate.node for a in told.assessments} == {"b"}
    heard = [m for m in pair.seen["a", "b"] if isinstance(m, Presence)][-1]
    assert not heard.loads
    before = len(pair.effects("a", StartRun))
    submit = TaskSubmit(TaskId("0" * 32), 1, "upstream", REQUEST, 1000)
    pair.give("a", BytesReceived(NodeId("b"), encode(submit)))
    assert len(pair.effects("a", StartRun)) == before


def test_an_upstream_answers_where_it_is_named(pair: Mesh) -> None:
    outside_of(pair, "a")
    request = replace(REQUEST, selector="upstream")
    pair.give("a", TaskArrived(TaskId("1" * 32), request))
    (run,) = pair.effects("a", StartRun)
    assert run.model == "upstream/big"
    pair.give("a", RunProduced(run.run, Chunk(0, (), "hi", finish="stop")))
    pair.give("a", RunEnded(run.run, Usage(3, 1), Timings()))
    assert [e.task for e in pair.effects("a", FinishTask)] == [TaskId("1" * 32)]


@pytest.mark.parametrize(
    ("code", "times"),
    [(FaultCode.NOT_READY, 1), (FaultCode.OVERLOADED, 1), (FaultCode.WORKER_LOST, 3)],
)
def test_an_upstream_that_fails_is_not_asked_for_minutes(
    pair: Mesh, code: FaultCode, times: int
) -> None:
    outside_of(pair, "a")
    pair.give("a", TaskArrived(TaskId("3" * 32), replace(REQUEST, selector="upstream")))
    for _ in range(limits.ATTEMPTS):
        if pair.effects("a", FailTask):
            break
        run = pair.effects("a", StartRun)[-1]
        pair.give("a", RunFailed(run.run, code, "it is so", retry_after_ms=7000))
        pair.pass_time(2000)
    (failed,) = pair.effects("a", FailTask)
    assert (failed.code, failed.detail, failed.retry_after_ms) == (code, "it is so", 7000)
    assert len(pair.effects("a", StartRun)) == times


def test_what_an_upstream_breaks_off_the_mesh_makes_good(
    pair: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside_of(pair, "a")
    hard = replace(REQUEST, selector="auto")
    router = pair.boxes[NodeId("a")].core._router
    usual = router._known
    monkeypatch.setattr(router, "_known", lambda r: replace(usual(r), complexity=0.9))
    pair.give("a", TaskArrived(TaskId("2" * 32), hard))
    (run,) = pair.effects("a", StartRun)
    pair.give("a", RunProduced(run.run, Chunk(0, (), "Once upon")))
    pair.give("a", RunFailed(run.run, FaultCode.WORKER_LOST, "it broke off"))
    assert [e.node for e in pair.effects("a", RouteChosen)] == ["a", "b"]
    assert pair.effects("a", RouteChosen)[-1].continued == "text"
    (begun,) = pair.effects("b", StartRun)
    assert begun.request.begun == "Once upon"
