"""Asking who would be asked, from Python."""

from __future__ import annotations

import pytest

from meshslm.client import AsyncClient, Client, RequestFault
from meshslm.core.candidates import Assessment, Candidate, Decision, Terms, Verdict
from meshslm.ids import NodeId
from meshslm.wire.messages import EngineLoad, Specialist
from meshslm.wire.routing import Routing
from tests.client.test_client_blocking import with_client
from tests.gateway.served import Served

BETA = Candidate(
    NodeId("beta"),
    "beta",
    Specialist("coder", "tiny", "d", "Q8_0", 2048, 2),
    EngineLoad("tiny", ready=True),
    1.0,
)
DECISION = Decision(
    Verdict(BETA, "coder asked for by name"), "prefix", (Assessment(BETA, "", Terms(1.0), 1),)
)


async def test_both_clients_explain_a_route(served: Served) -> None:
    served.service.decision = DECISION

    def use(client: Client) -> None:
        told = client.route("Hi", model="coder", strategy="prefix", max_tokens=9)
        assert (told.node_name, told.strategy, told.candidates[0].rank) == ("beta", "prefix", 1)

    await with_client(served, use)
    async with AsyncClient(served.url) as client:
        told = await client.route("Hi", conversation="ours", private=True)
    assert told.reason == "coder asked for by name"
    first, second = served.service.explained
    assert (first.selector, first.max_tokens) == ("coder", 9)
    assert first.routing == Routing("prefix")
    assert second.routing.private
    assert second.routing.conversation
    assert not served.service.visits


async def test_an_unknown_strategy_is_refused_with_those_there_are(served: Served) -> None:
    def use(client: Client) -> None:
        with pytest.raises(RequestFault, match="least-connections"):
            client.route("Hi", strategy="fastest")

    await with_client(served, use)


async def test_a_question_may_say_how_it_is_routed(served: Served) -> None:
    def use(client: Client) -> None:
        client.ask("Hi", routing={"strategy": "cost"})

    await with_client(served, use)
    assert served.service.visits[0].request.routing == Routing("cost")
