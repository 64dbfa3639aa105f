"""What an explanation says of those that are left out before the choice, and of private domains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Decision, Verdict
from meshslm.core.cascade import ladder
from meshslm.core.classify import Score
from meshslm.core.config import CoreConfig
from meshslm.core.events import EngineReady, HostingChanged, RunFailed, Started, TaskArrived
from meshslm.core.node import NodeCore
from meshslm.core.records import outlined
from meshslm.core.route import Known, decide
from meshslm.core.route_facts import Stay
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, RunId, TaskId
from meshslm.wire.messages import ChatMessage, EngineLoad, Hardware, TaskRequest
from tests.core.mesh import SLOTS, Mesh, specialist

REQUEST = TaskRequest("auto", (ChatMessage("user", "tell me"),), max_tokens=64)
HARD = Known(complexity=0.9)
LOAD = EngineLoad("tiny", True, 0, 0, SLOTS, 400.0, 40.0)


class Judged:
    """Says what it was told to say."""

    unsure_below = 0.3

    def __init__(self, **scores: float) -> None:
        self._scores = [Score(domain, score) for domain, score in scores.items()]

    def classify(self, _text: str) -> list[Score]:
        return self._scores


def inside(node: str, domain: str, *, private: bool = False) -> Candidate:
    known = replace(specialist(f"{domain}-model", domain), private=private, size_mib=100)
    return Candidate(NodeId(node), node, known, LOAD, 1.0)


def outside() -> Candidate:
    known = replace(specialist("upstream", model="upstream/big"), digest="")
    return Candidate(NodeId("me"), "me", known, None, 0.0, local=True, upstream=True)


def explained(
    mesh: Mesh, selector: str = "coder", refused: dict[str, str] | None = None
) -> Decision:
    core = mesh.boxes[NodeId("a")].core
    return core.explain(replace(REQUEST, selector=selector), mesh.now, refused)


def chosen(decision: Decision) -> str:
    assert isinstance(decision.outcome, Verdict)
    return decision.outcome.candidate.specialist.profile


def dropped(decision: Decision) -> dict[str, str]:
    return {a.candidate.node_name: a.dropped for a in decision.assessments if a.dropped}


# --- who is left out before the choice ----------------------------------------------------------
def test_where_all_cool_all_are_in_the_choice(twins: Mesh) -> None:
    for number in range(2):
        twins.give("a", TaskArrived(TaskId(f"t{number}"), replace(REQUEST, selector="coder")))
    for name in ("b", "c"):
        for run in range(1, 4):
            twins.give(name, RunFailed(RunId(run), FaultCode.WORKER_LOST, "killed"))
    told = explained(twins)
    assert isinstance(told.outcome, Verdict)
    assert dropped(told) == {}


def test_one_that_cools_is_left_out_where_another_can_do_it(twins: Mesh) -> None:
    twins.give("a", TaskArrived(TaskId("t1"), replace(REQUEST, selector="coder")))
    first = explained(twins)
    for name in ("b", "c"):
        before = explained(twins)
        twins.give(name, RunFailed(RunId(1), FaultCode.WORKER_LOST, "killed"))
        after = explained(twins)
        if len(dropped(after)) == 1:
            ((node, why),) = dropped(after).items()
            assert node == name
            assert why == "it failed, and is left alone for 1.0 s"
            assert isinstance(after.outcome, Verdict)
            assert after.outcome.candidate.node_name != name
            assert len(after.assessments) == len(before.assessments) == len(first.assessments)
            return
    raise AssertionError("nobody was left alone")


def test_what_an_upstream_would_refuse_is_shown_and_somebody_else_chosen(pair: Mesh) -> None:
    endpoint = replace(specialist("upstream", model="upstream/big"), digest="")
    pair.give("a", HostingChanged((), Hardware(), upstream=(endpoint,)))
    pair.give("a", EngineReady("upstream/big", 2))
    assert chosen(explained(pair, "upstream")) == "upstream"
    why = "3 requests a minute are allowed to the upstream, and were sent"
    told = explained(pair, "auto", {"upstream/big": why})
    assert why in [a.dropped for a in told.assessments]
    assert chosen(told) != "upstream"
    assert not isinstance(explained(pair, "upstream", {"upstream/big": why}).outcome, Verdict)


def test_it_says_why_a_request_counts_as_hard() -> None:
    core = NodeCore(CoreConfig(NodeId("a"), "a", semantic=True), Chance.from_int(1))
    core.handle(Started(1, ()), Instant(0))
    hard = replace(REQUEST, messages=(ChatMessage("user", "Prove it, step by step, in depth."),))
    told = core.explain(hard, Instant(0))
    assert told.complexity == pytest.approx(sum(weight for _, weight in told.signs))
    assert told.signs[0][0] == "asks for reasoning"


# --- what does not leave the mesh ---------------------------------------------------------------
def verdict(scores: Judged, known: Known = HARD, *, private: bool = True) -> Decision:
    mesh = [inside("a", "medicine", private=private), inside("b", "code"), outside()]
    return decide(REQUEST, mesh, [], scores, Chance.from_int(1), known)


@pytest.mark.parametrize(
    ("scores", "known"),
    [
        (Judged(medicine=0.9, code=0.1), HARD),
        (Judged(code=0.5, medicine=0.4), HARD),  # it may well be
        (Judged(medicine=0.2, code=0.1), HARD),  # nothing is recognised, and that is likeliest
        (Judged(code=0.9), replace(HARD, stay=Stay("a", "p", 10, "medicine"))),
    ],
)
def test_what_may_be_of_a_private_domain_never_leaves(scores: Judged, known: Known) -> None:
    found = verdict(scores, known)
    assert isinstance(found.outcome, Verdict)
    assert not found.outcome.candidate.upstream
    assert dropped(found)["me"] == "private"
    tiers = ladder(found.assessments, REQUEST)
    assert all(tier.profile != "upstream" for tier in tiers)
    open_to_all = verdict(scores, known, private=False)
    assert isinstance(open_to_all.outcome, Verdict)
    assert open_to_all.outcome.candidate.upstream


def test_a_private_domain_leaves_the_others_their_upstream() -> None:
    assert chosen(verdict(Judged(code=0.9, medicine=0.05))) == "upstream"


def test_a_private_generalist_keeps_what_nobody_recognises() -> None:
    mesh = [inside("a", "general", private=True), outside()]
    found = decide(REQUEST, mesh, [], Judged(), Chance.from_int(1), HARD)
    assert chosen(found) == "general-model"


def test_a_private_domain_whose_hosts_were_all_tried_stays_inside() -> None:
    mesh = [inside("a", "medicine", private=True), inside("b", "code"), outside()]
    found = decide(REQUEST, mesh, [NodeId("a")], Judged(medicine=0.9), Chance.from_int(1), HARD)
    assert chosen(found) == "code-model"


def test_large_meshes_know_of_it_too() -> None:
    known = inside("a", "medicine", private=True).specialist
    assert outlined((known,))[0].private


def test_a_private_domain_of_a_peer_is_heeded(mesh: Mesh) -> None:
    mesh.add("b", replace(specialist("doctor", "medicine"), private=True))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    core = mesh.boxes[NodeId("a")].core
    told = core.explain(replace(REQUEST, selector="domain:medicine"), Instant(mesh.now))
    assert [a.candidate.specialist.private for a in told.assessments] == [True]
