"""How clients say how to route, and ask who would be asked."""

from __future__ import annotations

from typing import Any

import pytest

from meshslm.core.candidates import Assessment, Candidate, Decision, Terms, Verdict
from meshslm.ids import NodeId
from meshslm.strategies import STRATEGIES
from meshslm.wire.messages import EngineLoad, Specialist
from meshslm.wire.routing import ROUTED_ANYHOW, Routing
from tests.gateway.served import Served

BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
CHAT = "/v1/chat/completions"


def candidate(node: str) -> Candidate:
    known = Specialist("coder", "tiny", "d", "Q8_0", 2048, 2)
    return Candidate(NodeId(node), node, known, EngineLoad("tiny", True), 1.0)


async def test_the_field_and_the_headers_say_the_same(served: Served) -> None:
    await served.http.post(CHAT, json={**BODY, "routing": {"strategy": "prefix", "private": True}})
    headers = {"x-meshslm-strategy": "prefix", "x-meshslm-private": "yes"}
    await served.http.post(CHAT, json=BODY, headers=headers)
    first, second = (visit.request.routing for visit in served.service.visits)
    assert first == second == Routing("prefix", private=True)


async def test_who_says_nothing_is_routed_as_the_node_likes(served: Served) -> None:
    await served.http.post(CHAT, json=BODY)
    assert served.service.visits[0].request.routing == ROUTED_ANYHOW


async def test_the_name_of_a_conversation_leaves_as_a_hash(served: Served) -> None:
    await served.http.post(CHAT, json={**BODY, "routing": {"conversation": "my divorce"}})
    await served.http.post(CHAT, json=BODY, headers={"x-meshslm-conversation": "my divorce"})
    first, second = (visit.request.routing.conversation for visit in served.service.visits)
    assert first == second
    assert "divorce" not in first


@pytest.mark.parametrize(
    ("body", "headers", "word"),
    [
        ({"routing": {"strategy": "fastest"}}, {}, ", ".join(STRATEGIES)),
        ({}, {"x-meshslm-strategy": "fastest"}, ", ".join(STRATEGIES)),
        ({"routing": {"strategy": "cost"}}, {"x-meshslm-strategy": "prefix"}, "disagree"),
        ({"routing": {"private": True}}, {"x-meshslm-private": "no"}, "disagree"),
        ({"routing": {"conversation": "a"}}, {"x-meshslm-conversation": "b"}, "disagree"),
        ({}, {"x-meshslm-private": "perhaps"}, "perhaps"),
        ({"routing": {"conversation": "x" * 1000}}, {}, "conversation"),
        ({"routing": {"strategie": "cost"}}, {}, "strategie"),
        ({"routing": "cost"}, {}, "routing"),
    ],
)
async def test_contradictions_and_nonsense_are_refused(
    served: Served, body: dict[str, Any], headers: dict[str, str], word: str
) -> None:
    response = await served.http.post(CHAT, json={**BODY, **body}, headers=headers)
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]
    assert not served.service.visits


@pytest.mark.parametrize("name", ["strategy", "conversation", "private", "cascade"])
@pytest.mark.parametrize("path", [CHAT, "/mesh/route"])
async def test_a_header_that_is_there_twice_and_differs_is_refused(
    served: Served, name: str, path: str
) -> None:
    header = f"x-meshslm-{name}"
    values = {"strategy": ("cost", "prefix"), "conversation": ("a", "b")}.get(name, ("yes", "no"))
    twice = [(header, value) for value in values]
    response = await served.http.post(path, json=BODY, headers=twice)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == header
    assert not served.service.visits
    same = [(header, values[0])] * 2
    assert (await served.http.post(CHAT, json=BODY, headers=same)).status_code == 200


async def test_a_route_is_explained_and_not_run(served: Served) -> None:
    best, other = candidate("beta"), candidate("gamma")
    terms = Terms(network=1.5, queue=20.0, decode=300.0)
    served.service.decision = Decision(
        Verdict(best, "auto: domain code 0.40; 322 ms expected, best of 1"),
        "auto",
        (Assessment(best, "", terms, 1), Assessment(other, "tried already", None, 0)),
        (("code", 0.4), ("law", 0.1)),
        0.25,
        "edge",
        (("asks for reasoning", 0.25),),
    )
    response = await served.http.post("/mesh/route", json=BODY)
    told = response.json()
    assert response.status_code == 200
    assert (told["node"], told["profile"], told["tier"]) == ("beta", "coder", "edge")
    assert told["domains"][0] == {"domain": "code", "score": 0.4}
    assert told["signs"] == [{"sign": "asks for reasoning", "weight": 0.25}]
    assert [c["rank"] for c in told["candidates"]] == [1, 0]
    assert told["candidates"][0]["cost_ms"]["total"] == 321.5
    assert told["candidates"][1]["cost_ms"] is None
    assert not served.service.visits
    assert served.service.explained[0].messages[0].content == "hello"
    assert served.service.read_first == served.service.explained


async def test_a_refusal_is_an_explanation_too(served: Served) -> None:
    told = (await served.http.post("/mesh/route", json={**BODY, "model": "gpt-9"})).json()
    assert told["node"] == ""
    assert told["reason"] == "nobody hosts it"


async def test_a_text_completion_can_be_explained(served: Served) -> None:
    body = {"model": "auto", "prompt": "once upon a time"}
    assert (await served.http.post("/mesh/route", json=body)).status_code == 200
    assert served.service.explained[0].prompt == "once upon a time"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'{"model": 3}', b"[" * 100_000])
async def test_nonsense_is_not_explained(served: Served, body: bytes) -> None:
    response = await served.http.post("/mesh/route", content=body)
    assert response.status_code == 400
    assert not served.service.explained
