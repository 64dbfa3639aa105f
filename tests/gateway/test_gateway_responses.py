"""OpenAI's Responses API, as the official `openai` package uses it."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

from meshslm import limits
from meshslm.api.conversation import Turn
from meshslm.api.responses_replies import ResponseReply
from meshslm.errors import FaultCode
from meshslm.gateway.kept import KeptResponses
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import (
    TASK,
    breaking,
    calls,
    chunk,
    finished,
    route,
    says,
)
from tests.gateway.served import Served
from tests.gateway.test_gateway_openai import with_client

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Of a city",
    "parameters": {"type": "object"},
    "strict": True,
}


def turns(request: TaskRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


async def test_a_text_answer(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        answer = client.responses.create(
            model="auto",
            instructions="Be brief.",
            input="Hi",
            max_output_tokens=50,
            temperature=0.5,
            reasoning={"effort": "low"},
            metadata={"a": "b"},
        )
        assert answer.output_text == "Hello!"
        assert (answer.status, answer.id) == ("completed", f"resp_{TASK}")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)
        assert answer.usage.input_tokens_details.cached_tokens == 2
        assert answer.metadata == {"a": "b"}

    await with_client(served, use)
    asked = served.service.visits[0].request
    assert turns(asked) == [("system", "Be brief."), ("user", "Hi")]
    assert (asked.max_tokens, asked.sampling.temperature) == (50, 0.5)
    assert asked.reasoning_effort == "low"


async def test_a_stream_has_the_events_of_its_items(served: Served) -> None:
    served.service.script = calls(
        ("call_a", "weather", '{"city": "Oslo"}'), thought="Hm.", text="Let me see."
    )

    def use(client: openai.OpenAI) -> None:
        stream = client.responses.create(model="auto", input="Hi", tools=[WEATHER], stream=True)
        events = list(stream)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert [event.type.removeprefix("response.") for event in events] == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        last = events[-1]
        assert last.type == "response.completed"
        assert [item.type for item in last.response.output] == [
            "reasoning",
            "message",
            "function_call",
        ]
        assert last.response.usage is not None
        assert last.response.usage.output_tokens_details.reasoning_tokens == 2

    await with_client(served, use)


async def test_the_stream_helper_builds_the_whole_answer(served: Served) -> None:
    served.service.script = calls(("call_a", "weather", '{"city": "Oslo"}'), text="Let me see.")

    def use(client: openai.OpenAI) -> None:
        with client.responses.stream(model="auto", input="Hi", tools=[WEATHER]) as stream:
            answer = stream.get_final_response()
        assert answer.output_text == "Let me see."
        call = answer.output[1]
        assert call.type == "function_call"
        assert (call.call_id, call.name) == ("call_a", "weather")
        assert json.loads(call.arguments) == {"city": "Oslo"}

    await with_client(served, use)


@pytest.mark.parametrize("stream", [False, True])
async def test_going_on_from_an_earlier_answer(served: Served, *, stream: bool) -> None:
    def use(client: openai.OpenAI) -> None:
        served.service.script = calls(("call_a", "weather", '{"city": 1}'), thought="Hm.")
        if stream:
            with client.responses.stream(
                model="auto", input="Hi", instructions="First.", tools=[WEATHER]
            ) as running:
                name = running.get_final_response().id
        else:
            name = client.responses.create(
                model="auto", input="Hi", instructions="First.", tools=[WEATHER]
            ).id
        served.service.script = calls(text="Cold.")
        client.responses.create(
            model="auto",
            previous_response_id=name,
            input=[{"type": "function_call_output", "call_id": "call_a", "output": "-3 C"}],
            tools=[WEATHER],
        )

    await with_client(served, use)
    again = served.service.visits[1].request
    assert turns(again) == [("user", "Hi"), ("assistant", ""), ("tool", "-3 C")]
    assert again.messages[1].calls[0].arguments == '{"city": 1}'
    assert again.messages[1].reasoning == "Hm."
    assert again.messages[2].call_id == "call_a"


@pytest.mark.parametrize("said", ["header", "field"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_goes_on_from_a_private_answer_is_private(
    served: Served, said: str, *, stream: bool
) -> None:
    body = {"model": "auto", "input": "Hi"}
    headers = {"x-meshslm-private": "true"} if said == "header" else {}
    first = {**body, "stream": stream, "routing": {"private": True} if said == "field" else {}}
    reply = await served.http.post("/v1/responses", json=first, headers=headers)
    assert reply.status_code == 200
    name = re.search(r"resp_\w+", reply.text)
    assert name
    for _ in range(2):
        again = {**body, "previous_response_id": name[0]}
        reply = await served.http.post("/v1/responses", json=again)
        assert served.service.visits[-1].request.routing.private
        name = re.search(r"resp_\w+", reply.text)
        assert name
    await served.http.post("/v1/responses", json=body)
    assert not served.service.visits[-1].request.routing.private


async def test_items_of_a_conversation_without_state(served: Served) -> None:
    body = {
        "model": "auto",
        "store": False,
        "input": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "summary": [], "content": [
                {"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "function_call_output", "call_id": "b",
             "output": [{"type": "input_text", "text": "2"}]},
        ],
    }  # fmt: skip
    response = await served.http.post("/v1/responses", json=body)
    assert response.status_code == 200, response.text
    asked = served.service.visits[0].request
    assert turns(asked) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Let me see."),
        ("tool", "1"),
        ("tool", "2"),
    ]
    assert [call.name for call in asked.messages[2].calls] == ["f", "g"]
    assert asked.messages[2].reasoning == "Hm."
    name = response.json()["id"]
    assert (await served.http.get(f"/v1/responses/{name}")).status_code == 404


async def test_kept_answers_are_told_again_and_forgotten(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        answer = client.responses.create(model="auto", input="Hi")
        assert client.responses.retrieve(answer.id).output_text == "Hello!"
        client.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError, match="kept for a while"):
            client.responses.retrieve(answer.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.delete(answer.id)
        with pytest.raises(openai.BadRequestError, match="kept for a while") as caught:
            client.responses.create(model="auto", input="Hi", previous_response_id=answer.id)
        assert caught.value.param == "previous_response_id"

    await with_client(served, use)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_off_says_so(served: Served, *, stream: bool) -> None:
    served.service.script = lambda _request: [route(), says("Hel", finish="length"), finished()]

    def use(client: openai.OpenAI) -> None:
        if stream:
            events = list(client.responses.create(model="auto", input="Hi", stream=True))
            last = events[-1]
            assert last.type == "response.incomplete"
            answer = last.response
        else:
            answer = client.responses.create(model="auto", input="Hi")
        assert answer.status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"
        item = answer.output[0]
        assert item.type == "message"
        assert item.status == "incomplete"

    await with_client(served, use)


async def test_a_stream_that_breaks_ends_as_failed(served: Served) -> None:
    served.service.script = breaking(FaultCode.PEER_LOST, "beta is gone", chunk(text="Hel"))

    def use(client: openai.OpenAI) -> None:
        *_, last = client.responses.create(model="auto", input="Hi", stream=True)
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "beta is gone"
        assert last.response.output_text == "Hel"

    await with_client(served, use)


# --- what is refused ----------------------------------------------------------------------------
def item(**fields: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "Hi", **fields}]}


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"input": None}, "input", "expected `str | array`"),
        ({"input": []}, "input", "is empty"),
        ({"input": [5]}, "input[0]", "expected `object`"),
        (item(role="wizard"), "input[0].role", "'wizard'"),
        (item(role=None), "input[0].role", "served are system"),
        (item(content=None), "input[0].content", "is missing"),
        (item(content=[{"type": "input_image"}]), "input[0].content[0].type", "'input_image'"),
        (item(type="item_reference"), "input[0].type", "'item_reference'; served are message,"),
        (item(type="function_call"), "input[0].name", "a tool needs a name"),
        (item(type="function_call", name="f"), "input[0].id", "is missing"),
        (
            item(type="function_call", name="f", call_id="a", arguments="x"),
            "input[0].arguments",
            "not valid JSON",
        ),
        (item(type="function_call_output"), "input[0].call_id", "is missing"),
        (
            item(type="function_call_output", call_id="a", output="1"),
            "input[0]",
            "follows no turn that asked for it",
        ),
        ({"input": [{"role": "user", "content": "x"}] * 513}, "input", "513 items; at most 512"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "a tool needs a name"),
        ({"tool_choice": "required"}, "tool_choice", "there are no 'tools'"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "'yaml'"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name", "is missing"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "text.format.schema",
            "is missing",
        ),
        (
            {"grammar": "root ::= x", "text": {"format": {"type": "json_object"}}},
            "grammar",
            "both say what form",
        ),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort", "'extreme'"),
        (
            {"reasoning": {"effort": "low"}, "enable_thinking": False},
            "enable_thinking",
            "says not to think",
        ),
        ({"truncation": "auto"}, "truncation", "Only 'disabled'"),
        ({"background": True}, "background", "not supported yet"),
        ({"conversation": "conv_1"}, "conversation", "not supported yet"),
        ({"include": ["message.output_text.logprobs"]}, "include", "/v1/chat/completions"),
        ({"top_logprobs": 3}, "top_logprobs", "/v1/chat/completions"),
        ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
        ({"metadata": {"a": 1}}, "metadata[...]", "got `int`"),
        ({"store": "no"}, "store", "got `str`"),
        ({"previous_response_id": "x" * 129}, "previous_response_id", "129 bytes"),
    ],
)
async def test_a_bad_request(served: Served, fields: dict[str, Any], param: str, told: str) -> None:
    response = await served.http.post(
        "/v1/responses", json={"model": "auto", "input": "Hi", **fields}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert told in response.json()["error"]["message"]


# --- what is kept -------------------------------------------------------------------------------
def reply(name: str) -> ResponseReply:
    return ResponseReply(
        id=name,
        created_at=0,
        status="completed",
        model="m",
        output=[],
        store=True,
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        text=None,
        reasoning=None,
        metadata={},
    )


def test_answers_are_kept_for_a_time() -> None:
    kept = KeptResponses()
    kept.keep(reply("a"), (Turn("user", "Hi"),), 0.0)
    most_s = limits.RESPONSES_MS / 1000
    assert kept.get("a", most_s - 1) is not None
    assert kept.get("a", most_s) is None


def test_the_oldest_go_when_there_are_too_many() -> None:
    kept = KeptResponses()
    for number in range(limits.RESPONSES + 3):
        kept.keep(reply(f"r{number}"), (), float(number) / 1000)
    assert [kept.get(f"r{number}", 2.0) is None for number in range(4)] == [True] * 3 + [False]


def test_the_oldest_go_when_they_take_too_much() -> None:
    kept = KeptResponses()
    half = (Turn("user", "x" * (limits.RESPONSES_BYTES // 2)),)
    kept.keep(reply("a"), half, 0.0)
    kept.keep(reply("b"), half, 1.0)
    assert kept.get("a", 2.0) is None
    assert kept.get("b", 2.0) is not None
    assert kept.drop("b")
    assert not kept.drop("b")
    kept.keep(reply("c"), half, 3.0)
    kept.keep(reply("c"), half, 3.0)
    assert kept.get("c", 4.0) is not None, "the same id again replaces, and is counted once"
