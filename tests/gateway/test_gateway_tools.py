"""Calls, thinking, forms and ranked answers of the two completion endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import openai
import pytest
import trio
from pydantic import BaseModel

from meshslm.api.openai_responses import ChatChunk, TextCompletion
from meshslm.api.sse import DONE, EventDecoder
from meshslm.errors import FaultCode
from meshslm.wire.messages import TaskRequest, TokenLogprob, Tool
from tests.gateway.scripted_service import (
    Step,
    calls,
    chunk,
    failed,
    finished,
    greeting,
    nobody_waits,
    route,
)
from tests.gateway.served import Served
from tests.gateway.test_gateway_openai import with_client

SCHEMA: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city", "parameters": SCHEMA},
}
USER: Any = {"role": "user", "content": "Hi"}


# --- calls --------------------------------------------------------------------------------------
async def test_a_call_there_and_its_result_back(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        served.service.script = calls(("call_a", "weather", '{"city": "Oslo"}'), text="Let me see.")
        asked: list[Any] = [USER]
        first = client.chat.completions.create(
            model="auto",
            messages=asked,
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            parallel_tool_calls=False,
        )
        assert first.choices[0].finish_reason == "tool_calls"
        message = first.choices[0].message
        assert message.content == "Let me see."
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        assert (call.id, call.function.name) == ("call_a", "weather")
        assert json.loads(call.function.arguments) == {"city": "Oslo"}
        served.service.script = greeting
        asked += [message, {"role": "tool", "tool_call_id": call.id, "content": "-3 C"}]
        client.chat.completions.create(model="auto", messages=asked, tools=[WEATHER])

    await with_client(served, use)
    first, second = (visit.request for visit in served.service.visits)
    schema = json.dumps(SCHEMA, separators=(",", ":"))
    assert first.tools == (Tool("weather", "Of a city", schema),)
    assert (first.tool_choice, first.parallel_calls) == ("weather", False)
    assert (second.tool_choice, second.parallel_calls) == ("auto", True)
    _, said, result = second.messages
    assert said.content == "Let me see."
    assert [(c.id, c.name, c.arguments) for c in said.calls] == [
        ("call_a", "weather", '{"city": "Oslo"}')
    ]
    assert (result.role, result.call_id, result.content) == ("tool", "call_a", "-3 C")


async def test_calls_without_text_have_no_content(served: Served) -> None:
    served.service.script = calls(("call_a", "weather", "{}"))
    message = (await served.chat(tools=[WEATHER])).json()["choices"][0]["message"]
    assert message["content"] is None
    assert "reasoning_content" not in message


async def test_streamed_calls_are_put_together_by_the_package(served: Served) -> None:
    served.service.script = calls(
        ("call_a", "weather", '{"city": "Oslo"}'), ("call_b", "weather", '{"city": "Rome"}')
    )

    def use(client: openai.OpenAI) -> None:
        with client.chat.completions.stream(
            model="auto", messages=[USER], tools=[WEATHER]
        ) as stream:
            seen = [event.type for event in stream]
            answer = stream.get_final_completion()
        assert "tool_calls.function.arguments.delta" in seen
        told = answer.choices[0].message.tool_calls
        assert told is not None
        assert [(call.id, call.function.arguments) for call in told] == [
            ("call_a", '{"city": "Oslo"}'),
            ("call_b", '{"city": "Rome"}'),
        ]
        assert answer.choices[0].finish_reason == "tool_calls"

    await with_client(served, use)


async def test_a_calls_name_comes_first_and_once(served: Served) -> None:
    served.service.script = calls(("call_a", "weather", '{"city": 1}'))
    response = await served.chat(stream=True, tools=[WEATHER])
    *events, done = EventDecoder().feed(response.content)
    assert done == DONE
    shapes = [msgspec.json.decode(event, type=ChatChunk) for event in events]
    deltas = [delta for shape in shapes for delta in shape.choices[0].delta.tool_calls]
    assert [(d.index, d.id, d.type, d.function.name, d.function.arguments) for d in deltas] == [
        (0, "call_a", "function", "weather", ""),
        (0, None, None, None, '{"cit'),
        (0, None, None, None, 'y": 1}'),
    ]


# --- thinking -----------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_stand_apart_from_the_answer(served: Served, *, stream: bool) -> None:
    served.service.script = calls(thought="A greeting.", text="Hello!")

    def use(client: openai.OpenAI) -> None:
        create: Any = client.chat.completions.create
        made = create(
            model="auto",
            messages=[USER],
            reasoning_effort="low",
            extra_body={"enable_thinking": True, "thinking_budget": 64},
            stream=stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        )
        if stream:
            chunks = list(made)
            deltas = [c.choices[0].delta for c in chunks if c.choices]
            thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
            text = "".join(delta.content or "" for delta in deltas)
            usage = chunks[-1].usage
        else:
            thought = made.choices[0].message.reasoning_content
            text, usage = made.choices[0].message.content, made.usage
        assert (thought, text) == ("A greeting.", "Hello!")
        assert usage.completion_tokens_details.reasoning_tokens == 2

    await with_client(served, use)
    asked = served.service.visits[0].request
    assert (asked.thinking, asked.thinking_tokens, asked.reasoning_effort) == (True, 64, "low")


# --- forms, tenants, priorities, adapters ---------------------------------------------------------
class Reply(BaseModel):
    city: str


async def test_the_package_parses_an_answer_of_a_schema(served: Served) -> None:
    served.service.script = calls(text='{"city": "Oslo"}')

    def use(client: openai.OpenAI) -> None:
        answer = client.chat.completions.parse(model="auto", messages=[USER], response_format=Reply)
        assert answer.choices[0].message.parsed == Reply(city="Oslo")

    await with_client(served, use)
    constraint = served.service.visits[0].request.constraint
    assert constraint is not None
    assert constraint.kind == "json_schema"
    assert json.loads(constraint.text)["properties"]["city"]["type"] == "string"


async def test_forms_tenants_priorities_and_adapters_travel(served: Served) -> None:
    await served.chat(response_format={"type": "json_object"}, user="ann@example.org")
    await served.chat(grammar="root ::= [a-z]", service_tier="flex", adapter="legal")
    await served.text(grammar="root ::= [a-z]", priority="background", user="ann@example.org")
    first, second, third = (visit.request for visit in served.service.visits)
    assert first.constraint is not None
    assert (first.constraint.kind, first.constraint.text) == ("json_object", "")
    assert second.constraint is not None
    assert (second.constraint.kind, second.constraint.text) == ("gbnf", "root ::= [a-z]")
    assert third.constraint == second.constraint
    assert [r.priority for r in (first, second, third)] == [
        "interactive",
        "background",
        "background",
    ]
    assert second.adapter == "legal"
    assert first.tenant == third.tenant
    assert "ann" not in first.tenant
    assert len(first.tenant) == 32
    assert second.tenant == ""


# --- several prompts, best_of, echo ---------------------------------------------------------------
def likely(*means: float) -> Any:
    """Choices that are said with these mean logprobs."""

    def script(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        for choice, mean in enumerate(means):
            spoken = (TokenLogprob("x", b"x", mean + 0.5), TokenLogprob("y", b"y", mean - 0.5))
            yield chunk(choice=choice, text=f"said {mean}", logprobs=spoken, finish="stop")
        yield finished()

    return script


async def test_the_likeliest_of_several_are_given(served: Served) -> None:
    served.service.script = likely(-3.0, -1.0, -2.0, -4.0)
    body = (await served.text(n=2, best_of=4)).json()
    assert [choice["text"] for choice in body["choices"]] == ["said -1.0", "said -2.0"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["logprobs"] for choice in body["choices"]] == [None, None]
    asked = served.service.visits[0].request
    assert (asked.choices, asked.logprobs) == (4, 0)
    told = (await served.text(n=1, best_of=4, logprobs=1)).json()["choices"][0]
    assert told["logprobs"]["token_logprobs"] == [-0.5, -1.5]


async def test_several_prompts_are_answered_in_their_order(served: Served) -> None:
    def answered(request: TaskRequest) -> Iterable[Step]:
        yield route()
        for choice in range(request.choices):
            yield chunk(choice=choice, text=f"{request.prompt}{choice}", finish="stop")
        yield finished()

    served.service.script = answered
    prompts = [f"p{number}-" for number in range(12)]
    body = (await served.text(prompt=prompts, n=2)).json()
    assert [choice["text"] for choice in body["choices"]] == [
        f"{prompt}{choice}" for prompt in prompts for choice in range(2)
    ]
    assert [choice["index"] for choice in body["choices"]] == list(range(24))
    assert body["usage"]["prompt_tokens"] == 12 * 7
    streamed = await served.text(prompt=prompts, n=2, stream=True, echo=True)
    *events, done = EventDecoder().feed(streamed.content)
    assert done == DONE
    texts = dict.fromkeys(range(24), "")
    for event in events:
        for choice in msgspec.json.decode(event, type=TextCompletion).choices:
            texts[choice.index] += choice.text
    assert list(texts.values()) == [
        f"{prompt}{prompt}{choice}" for prompt in prompts for choice in range(2)
    ]


async def test_one_prompt_that_fails_fails_all(served: Served) -> None:
    def answered(request: TaskRequest) -> Iterable[Step]:
        yield route()
        if request.prompt == "bad":
            yield failed(FaultCode.CONTEXT_OVERFLOW, "too long")
        yield nobody_waits()

    served.service.script = answered
    response = await served.text(prompt=["a", "bad", "b"])
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "too long"
    with trio.fail_after(1):
        for visit in served.service.visits:
            await visit.left.wait()


async def test_an_echo_with_logprobs_is_the_engines(served: Served) -> None:
    def echoing(request: TaskRequest) -> Iterable[Step]:
        yield route()
        prompt = (TokenLogprob("On", b"On", 0.0), TokenLogprob("ce", b"ce", -1.0))
        yield chunk(text="Once", logprobs=prompt)
        yield chunk(text="!", logprobs=(TokenLogprob("!", b"!", -2.0),), finish="stop")
        yield finished()

    served.service.script = echoing
    told = (await served.text(echo=True, logprobs=0)).json()["choices"][0]
    assert told["text"] == "Once!"
    assert told["logprobs"]["token_logprobs"] == [None, -1.0, -2.0]
    assert told["logprobs"]["text_offset"] == [0, 2, 4]
    assert served.service.visits[0].request.echo
    streamed = await served.text(echo=True, logprobs=0, stream=True)
    events = EventDecoder().feed(streamed.content)[:-1]
    shapes = [msgspec.json.decode(event, type=TextCompletion).choices[0] for event in events]
    spoken = [shape.logprobs.token_logprobs for shape in shapes if shape.logprobs]
    assert spoken == [[None, -1.0], [-2.0]]
    assert not (await served.text(echo=True)).json()["choices"][0]["logprobs"]
    assert not served.service.visits[2].request.echo
