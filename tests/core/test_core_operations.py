"""Operations go only to models that announce them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.core.classify import Classifier
from meshslm.core.events import FailTask, RunFailed, StartRun, TaskArrived
from meshslm.core.route import Candidate, Refusal, Verdict, choose, cost_ms
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, TaskId
from meshslm.wire.messages import EngineLoad, TaskRequest
from tests.core.mesh import Mesh, specialist

TEXT = ("tokenize", "detokenize")
CHAT = ("generate", "template", *TEXT)
VECTORS = ("embed", "rerank", *TEXT)


def hosted(
    node: str, profile: str, operations: tuple[str, ...], *domains: str, queued: int = 0
) -> Candidate:
    load = EngineLoad(profile, True, queued=queued, free_slots=0 if queued else 2)
    known = replace(specialist(profile, *domains, model=profile), operations=operations)
    return Candidate(NodeId(node), node, known, load, 1.0)


MESH = [
    hosted("a", "chat", CHAT, "general"),
    hosted("b", "vectors", VECTORS),
    hosted("c", "old", ("generate",)),
]


def route(
    operation: str, selector: str = "auto", candidates: list[Candidate] | None = None
) -> Verdict | Refusal:
    request = TaskRequest(selector, operation=operation, inputs=("general please",), prompt="hello")
    found = MESH if candidates is None else candidates
    cards = [card for c in found for card in c.specialist.domains]
    return choose(request, found, [], Classifier(tuple(cards)), Chance.from_int(1))


@given(
    st.sampled_from(("generate", "template", "embed", "rerank", *TEXT, "unheard-of")),
    st.sampled_from(("auto", "chat", "vectors", "old", "domain:general", "auto@b", "vectors@a")),
)
def test_nobody_is_asked_for_what_it_does_not_announce(operation: str, selector: str) -> None:
    verdict = route(operation, selector)
    if isinstance(verdict, Verdict):
        assert operation in verdict.candidate.specialist.operations
        assert selector in ("auto", "auto@b", "domain:general", verdict.candidate.node_name) or (
            selector == verdict.candidate.specialist.profile
        )


@pytest.mark.parametrize(
    ("operation", "selector", "node"),
    [
        ("generate", "auto", "a"),
        ("embed", "auto", "b"),
        ("rerank", "vectors", "b"),
        ("tokenize", "auto", "a"),
        ("tokenize", "vectors", "b"),
        ("template", "domain:general", "a"),
    ],
)
def test_the_right_one_is_asked(operation: str, selector: str, node: str) -> None:
    verdict = route(operation, selector)
    assert isinstance(verdict, Verdict)
    assert verdict.candidate.node == node


@pytest.mark.parametrize(
    ("operation", "selector", "who"),
    [
        ("embed", "chat", "vectors"),
        ("generate", "vectors", "chat, old"),
        ("template", "old", "chat"),
    ],
)
def test_a_refusal_names_who_can(operation: str, selector: str, who: str) -> None:
    refusal = route(operation, selector)
    assert isinstance(refusal, Refusal)
    assert refusal.code is FaultCode.BAD_REQUEST
    assert f"'{selector}' cannot do '{operation}'; who can: {who}" in refusal.detail


@pytest.mark.parametrize("operation", ["embed", "unheard-of", "x" * 5000])
@pytest.mark.parametrize("selector", ["auto", "chat"])
def test_where_nobody_can_that_is_said(operation: str, selector: str) -> None:
    refusal = route(operation, selector, [MESH[0], MESH[2]])
    assert isinstance(refusal, Refusal)
    assert refusal.code is FaultCode.UNKNOWN_MODEL
    assert "no other model here can" in refusal.detail or len(operation) > 100
    assert len(refusal.detail) <= 1000


def test_vectors_cost_no_answer_but_a_queue() -> None:
    request = TaskRequest("auto", operation="embed", inputs=("x" * 400, "y" * 400))
    free, busy = MESH[1], hosted("b", "vectors", VECTORS, queued=3)
    assert cost_ms(free, request) == 800 / 4 / 200 * 1000 + 1.0
    assert cost_ms(busy, request) > cost_ms(free, request)


def test_what_nobody_has_is_refused_without_waiting(mesh: Mesh) -> None:
    """An adapter that was removed a moment ago will not be back a moment later."""
    mesh.add("a", replace(specialist("coder", "code"), adapters=("nobody",)))
    mesh.give("a", TaskArrived(TaskId("t"), TaskRequest("coder", prompt="x", adapter="nobody")))
    (run,) = mesh.effects("a", StartRun)
    mesh.give("a", RunFailed(run.run, FaultCode.UNKNOWN_MODEL, "there is no adapter 'nobody' here"))
    (failed,) = mesh.effects("a", FailTask)
    assert failed.code is FaultCode.UNKNOWN_MODEL
    assert "no adapter 'nobody'" in failed.detail


def test_another_node_may_have_it(mesh: Mesh) -> None:
    announced = replace(specialist("coder", "code"), adapters=("mine",))
    mesh.add("a", announced)
    mesh.add("b", announced, bootstrap=("a",))
    mesh.pass_time(3000)
    mesh.give("a", TaskArrived(TaskId("t"), TaskRequest("coder", prompt="x", adapter="mine")))
    first, other = ("a", "b") if mesh.effects("a", StartRun) else ("b", "a")
    (run,) = mesh.effects(first, StartRun)
    mesh.give(first, RunFailed(run.run, FaultCode.UNKNOWN_MODEL, "there is no adapter 'mine' here"))
    assert len(mesh.effects(other, StartRun)) == 1
    assert not mesh.effects("a", FailTask)
