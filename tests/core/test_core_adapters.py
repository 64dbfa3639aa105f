"""Requests with adapters go to nodes that have them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshslm.chance import Chance
from meshslm.core.classify import Classifier
from meshslm.core.events import FailTask, HostingChanged, RouteChosen, TaskArrived
from meshslm.core.route import Candidate, Refusal, Verdict, choose
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, TaskId
from meshslm.wire.messages import EngineLoad, Hardware, Specialist, TaskRequest
from tests.core.mesh import Mesh, specialist


def having(profile: str, *adapters: str, model: str = "m") -> Specialist:
    known = replace(specialist(profile, "general", model=model), adapters=adapters)
    return replace(known, operations=("generate", "tokenize"))


def hosted(node: str, known: Specialist) -> Candidate:
    return Candidate(NodeId(node), node, known, EngineLoad(known.model, True, free_slots=2), 1.0)


MESH = [
    hosted("a", having("plain")),
    hosted("b", having("plain", "polite", "terse")),
    hosted("c", having("other", "rhyme", model="n")),
]


def route(selector: str, adapter: str, operation: str = "generate") -> Verdict | Refusal:
    request = TaskRequest(selector, prompt="x", adapter=adapter, operation=operation)
    return choose(request, MESH, [], Classifier(()), Chance.from_int(1))


@pytest.mark.parametrize(
    ("selector", "adapter", "node"),
    [
        ("m", "polite", "b"),
        ("plain", "terse", "b"),
        ("auto", "terse", "b"),
        ("domain:general", "rhyme", "c"),
        ("auto@c", "rhyme", "c"),
    ],
)
def test_who_has_it_is_asked(selector: str, adapter: str, node: str) -> None:
    verdict = route(selector, adapter)
    assert isinstance(verdict, Verdict)
    assert verdict.candidate.node == node


@pytest.mark.parametrize("selector", ["auto", "m", "plain"])
def test_an_unknown_one_is_told_with_those_of_the_mesh(selector: str) -> None:
    refusal = route(selector, "rude")
    assert isinstance(refusal, Refusal)
    assert refusal.code is FaultCode.UNKNOWN_MODEL
    assert "'rude'" in refusal.detail
    for known in ("polite (for m)", "terse (for m)", "rhyme (for n)"):
        assert known in refusal.detail


def test_one_of_another_base_is_told_as_that() -> None:
    refusal = route("m", "rhyme")
    assert isinstance(refusal, Refusal)
    assert refusal.code is FaultCode.BAD_REQUEST
    assert "'rhyme' is for n" in refusal.detail


def test_what_needs_no_adapter_does_not_look_for_one() -> None:
    assert isinstance(route("m", "rude", "tokenize"), Verdict)


def test_two_nodes_the_one_that_has_it_answers_until_it_has_it_no_more() -> None:
    mesh = Mesh()
    mesh.add("a", having("plain"))
    mesh.add("b", having("plain", "polite"), bootstrap=("a",))
    mesh.pass_time(5000)
    request = TaskRequest("plain", prompt="x", adapter="polite")
    for number in range(4):
        mesh.give("a", TaskArrived(TaskId(f"t{number}"), request))
    assert [e.node for e in mesh.effects("a", RouteChosen)] == ["b"] * 4
    mesh.give("b", HostingChanged((having("plain"),), Hardware()))
    mesh.give("a", TaskArrived(TaskId("late"), request))
    (end,) = (e for e in mesh.effects("a", FailTask) if e.task == "late")
    assert end.code is FaultCode.UNKNOWN_MODEL
    assert "nobody has any" in end.detail
