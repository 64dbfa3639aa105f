"""What may be of a private domain stays in the mesh, whoever fails, is gone or is not asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshslm.core.candidates import Decision, Refusal, Verdict
from meshslm.core.cascade import ladder
from meshslm.core.events import (
    EngineReady,
    HostingChanged,
    RouteChosen,
    RunFailed,
    StartRun,
    TaskArrived,
)
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, TaskId
from meshslm.wire.messages import ChatMessage, Hardware, TaskRequest
from tests.core.mesh import Mesh, specialist

ILL = "medicine"
CODE = "code"
TASK = TaskId("1" * 32)
ENDPOINT = replace(specialist("upstream", model="upstream/big"), digest="")


def asked(*turns: str, selector: str = "auto") -> TaskRequest:
    """A conversation of these turns of its user."""
    said = []
    for turn in turns:
        said += [ChatMessage("user", turn), ChatMessage("assistant", "Well.")]
    return TaskRequest(selector, tuple(said[:-1]), max_tokens=64)


@pytest.fixture
def hard(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """A has an upstream, and finds every request hard; B's medicine is private, C's code is not."""
    mesh.add("b", replace(specialist("doctor", "medicine"), private=True))
    mesh.add("c", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    mesh.give("a", HostingChanged((), Hardware(), upstream=(ENDPOINT,)))
    mesh.give("a", EngineReady("upstream/big", 2))
    router = mesh.boxes[NodeId("a")].core._router
    usual = router._known
    monkeypatch.setattr(router, "_known", lambda r: replace(usual(r), complexity=0.9))
    return mesh


def explained(mesh: Mesh, request: TaskRequest) -> Decision:
    return mesh.boxes[NodeId("a")].core.explain(request, mesh.now)


def leaves(mesh: Mesh, request: TaskRequest) -> bool:
    """Whether the upstream would be asked, at once or as a larger step."""
    told = explained(mesh, request)
    steps = [tier.profile for tier in ladder(told.assessments, request)]
    outcome = told.outcome
    return "upstream" in steps or (isinstance(outcome, Verdict) and outcome.candidate.upstream)


def asked_upstream(mesh: Mesh) -> bool:
    return any(run.model == "upstream/big" for run in mesh.effects("a", StartRun))


def test_what_is_of_an_open_domain_leaves(hard: Mesh) -> None:
    assert leaves(hard, asked(CODE))
    hard.give("a", TaskArrived(TASK, asked(CODE)))
    assert asked_upstream(hard)


def test_it_stays_when_its_host_fails_and_cools(hard: Mesh) -> None:
    hard.give("a", TaskArrived(TASK, asked(ILL)))
    assert [route.node for route in hard.effects("a", RouteChosen)] == ["b"]
    run = hard.effects("b", StartRun)[-1].run
    hard.give("b", RunFailed(run, FaultCode.WORKER_LOST, "killed"))
    assert [route.node for route in hard.effects("a", RouteChosen)] == ["b", "c"]
    assert not leaves(hard, asked(ILL))
    assert not asked_upstream(hard)


def test_it_stays_when_its_host_is_gone(hard: Mesh) -> None:
    hard.give("a", TaskArrived(TASK, asked(ILL)))
    hard.cut |= {frozenset("ab"), frozenset("cb")}
    hard.cut_link("a", "b")
    hard.pass_time(60_000)
    assert {a.candidate.node for a in explained(hard, asked(ILL)).assessments} == {"a", "c"}
    assert not leaves(hard, asked(ILL))
    assert leaves(hard, asked(CODE))
    assert not asked_upstream(hard)


def test_it_stays_where_only_this_node_is_asked_for(hard: Mesh) -> None:
    told = explained(hard, asked(ILL, selector="auto@a"))
    assert isinstance(told.outcome, Refusal)
    assert told.outcome.code is FaultCode.NOT_READY
    assert "private" in told.outcome.detail
    assert [a.dropped for a in told.assessments if a.candidate.upstream] == ["private"]
    open_ = explained(hard, asked(CODE, selector="auto@a")).outcome
    assert isinstance(open_, Verdict)
    assert open_.candidate.upstream


def test_a_conversation_that_was_about_it_stays(hard: Mesh) -> None:
    """Its beginning would go with its end, wherever it was answered until now."""
    assert not leaves(hard, asked(ILL, CODE, CODE, CODE))
    assert leaves(hard, asked(CODE, CODE, CODE, CODE))


def test_a_node_may_take_back_what_it_said(hard: Mesh) -> None:
    hard.give("b", HostingChanged((specialist("doctor", "medicine"),), Hardware(cores=2)))
    hard.pass_time(5_000)
    assert leaves(hard, asked(ILL))
