"""Calls, thoughts, forms, vectors and rankings, from Python."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
import trio
from msgspec.json import encode as json

from meshslm.api.embeddings import Embedding, EmbeddingReply, EmbeddingUsage, Ranked, RerankReply
from meshslm.client import (
    Answer,
    AsyncClient,
    Client,
    FaultCode,
    Message,
    OurFault,
    RequestFault,
    ToolCall,
    json_form,
    tool,
)
from meshslm.client.vectors import embeddings, ranking
from tests.client.test_client_blocking import with_client
from tests.gateway.scripted_service import calls, greeting
from tests.gateway.served import Served

WEATHER = tool("weather", "Of a city", {"type": "object"})
TWO = calls(
    ("call_a", "weather", '{"city": "Oslo"}'),
    ("call_b", "weather", '{"city": "Rome"}'),
    thought="Two cities.",
    text="Let me see.",
)


def streamed(client: Client, turns: list[Message]) -> Answer:
    with client.stream(turns, tools=[WEATHER]) as pieces:
        assert "".join(pieces) == "Let me see."
        return pieces.answer


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_and_their_results(served: Served, *, stream: bool) -> None:
    def use(client: Client) -> None:
        served.service.script = TWO
        turns: list[Message] = [{"role": "user", "content": "Hi"}]
        answer = streamed(client, turns) if stream else client.ask(turns, tools=[WEATHER])
        assert (answer.text, answer.reasoning) == ("Let me see.", "Two cities.")
        assert answer.finish_reason == "tool_calls"
        assert [call.values for call in answer.tool_calls] == [{"city": "Oslo"}, {"city": "Rome"}]
        served.service.script = greeting
        turns += [answer.message, *(call.answered("cold") for call in answer.tool_calls)]
        client.ask(turns, tools=[WEATHER], tool_choice="none", parallel_tool_calls=False)

    await with_client(served, use)
    again = served.service.visits[1].request
    assert [message.role for message in again.messages] == ["user", "assistant", "tool", "tool"]
    assert [call.id for call in again.messages[1].calls] == ["call_a", "call_b"]
    assert again.messages[1].reasoning == "Two cities."
    assert [message.call_id for message in again.messages[2:]] == ["call_a", "call_b"]
    assert (again.tool_choice, again.parallel_calls) == ("none", False)


def test_arguments_that_were_cut_off() -> None:
    assert ToolCall("a", "f", "").values == {}
    for text in ('{"city": "Os', "[1]", "nonsense"):
        with pytest.raises(ValueError, match="of f are not whole"):
            _ = ToolCall("a", "f", text).values


async def test_every_new_option_arrives(served: Served) -> None:
    def use(client: Client) -> None:
        client.ask(
            "Hi",
            response_format=json_form("city", {"type": "object"}),
            enable_thinking=True,
            reasoning_effort="low",
            thinking_budget=9,
            adapter="legal",
            user="ann",
            priority="background",
        )
        client.ask("Hi", grammar="root ::= [a-z]")

    await with_client(served, use)
    first, second = (visit.request for visit in served.service.visits)
    assert first.constraint is not None
    assert (first.constraint.kind, first.constraint.text) == ("json_schema", '{"type":"object"}')
    assert (first.thinking, first.reasoning_effort, first.thinking_tokens) == (True, "low", 9)
    assert (first.adapter, first.priority) == ("legal", "background")
    assert first.tenant
    assert second.constraint is not None
    assert second.constraint.kind == "gbnf"


async def test_vectors_and_rankings(served: Served) -> None:
    def use(client: Client) -> None:
        made = client.embed(["ab", "abcd"], model="minilm", deadline_ms=5000)
        assert made.vectors == [array("f", [3, 4, 2]), array("f", [3, 4, 4])]
        assert (made.node_name, made.model, made.tokens) == ("beta", "smollm2", 7)
        assert client.embed("ab", dimensions=2).vectors[0] == pytest.approx([0.6, 0.8])
        best = client.rerank("q", ["ab", "abcd", "abc"], top_n=2, user="ann")
        assert [(d.index, d.score, d.text) for d in best.documents] == [
            (1, 4.0, "abcd"),
            (2, 3.0, "abc"),
        ]
        assert best.node_name == "beta"
        with pytest.raises(RequestFault, match="is empty") as caught:
            client.embed([])
        assert caught.value.code is FaultCode.BAD_REQUEST
        with pytest.raises(RequestFault, match="vectors have 3"):
            client.embed("ab", dimensions=4)

    await with_client(served, use)
    first = served.service.visits[0].request
    assert (first.selector, first.deadline_ms) == ("minilm", 5000)


async def test_vectors_and_rankings_without_blocking(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        with trio.fail_after(10):
            made = await client.embed(["ab"])
            best = await client.rerank("q", ["ab", "abc"])
    assert made.vectors == [array("f", [3, 4, 2])]
    assert [document.text for document in best.documents] == ["abc", "ab"]


USAGE = EmbeddingUsage(prompt_tokens=1, total_tokens=1)


def test_servers_that_are_no_mesh() -> None:
    data = [Embedding(index=1, embedding=[1.0]), Embedding(index=0, embedding=[2.0])]
    made = embeddings(json(EmbeddingReply(data=data, model="m", usage=USAGE)))
    assert [list(vector) for vector in made.vectors] == [[2.0], [1.0]]
    assert (made.model, made.node_name) == ("m", "")


@pytest.mark.parametrize("wrong", ["not base64!", "AAA=", "é"])
def test_vectors_that_are_none(wrong: Any) -> None:
    data = [Embedding(index=0, embedding=wrong)]
    with pytest.raises(OurFault, match="sends no vectors"):
        embeddings(json(EmbeddingReply(data=data, model="m", usage=USAGE)))


def test_rankings_of_something_else() -> None:
    results = [Ranked(index=2, relevance_score=1.0)]
    reply = RerankReply(id="r", model="m", results=results, usage=USAGE)
    with pytest.raises(OurFault, match="were not given"):
        ranking(json(reply), ["a", "b"])


@pytest.mark.parametrize("blocking", [False, True])
async def test_orders_about_models(served: Served, *, blocking: bool) -> None:
    def use(client: Client) -> None:
        assert client.load_model("m").state == "loading"
        assert client.pin_model("m").pinned
        with pytest.raises(RequestFault):
            client.unpin_model("a/b?c")
        client.unpin_model("m")
        client.unload_model("m")
        client.unload_model("m", now=True)

    if blocking:
        await with_client(served, use)
    else:
        async with AsyncClient(served.url) as mesh:
            assert (await mesh.load_model("m")).state == "loading"
            assert (await mesh.pin_model("m")).pinned
            with pytest.raises(RequestFault):
                await mesh.unpin_model("a/b?c")
            await mesh.unpin_model("m")
            await mesh.unload_model("m")
            await mesh.unload_model("m", now=True)
    assert [(order, now) for _, order, now in served.service.orders] == [
        ("load", False),
        ("pin", False),
        ("unpin", False),
        ("unload", False),
        ("unload", True),
    ]


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_order_to_leave(served: Served, *, blocking: bool) -> None:
    if blocking:
        await with_client(served, lambda client: client.drain(limit_s=2.5))
    else:
        async with AsyncClient(served.url) as mesh:
            assert (await mesh.drain(limit_s=2.5)).runs == 2
    assert served.service.drains == [2500]
