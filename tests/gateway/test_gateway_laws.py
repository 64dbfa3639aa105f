"""What holds for every request and every answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm.api.openai_responses import ChatChunk, ChatChunkChoice, TextCompletion
from meshslm.api.sse import DONE, EventDecoder
from meshslm.errors import RequestFault
from meshslm.gateway import create_app
from meshslm.gateway.app import READERS
from meshslm.gateway.events import ChatEvents, TextEvents
from meshslm.gateway.jobs import EventWriter, Head, Job
from meshslm.gateway.responses import Responses
from meshslm.gateway.told import printable
from meshslm.gateway.whole import ChatWhole, TextWhole
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import (
    CallPiece,
    Chunk,
    TaskSubmit,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from tests.gateway.scripted_service import ScriptedService

HEAD = Head("chatcmpl-1", 1_700_000_000, 'model "x"\n', None)
USAGE = Usage(3, 4, 1)
CHOICES = 3

logprob = st.floats(-100.0, 0.0)
tops = st.builds(TopLogprob, st.text(max_size=3), st.binary(max_size=4), logprob)
token_logprobs = st.builds(
    TokenLogprob,
    st.text(max_size=3),
    st.binary(max_size=4),
    logprob,
    st.lists(tops, max_size=2).map(tuple),
)
chunks = st.builds(
    Chunk,
    choice=st.integers(0, CHOICES - 1),
    text=st.text(max_size=8),
    logprobs=st.lists(token_logprobs, max_size=2).map(tuple),
    reasoning=st.text(max_size=4),
)


def with_calls(produced: list[Chunk], arguments: list[str]) -> list[Chunk]:
    """The same chunks with calls in them, each begun by its id and name."""
    begun: dict[int, int] = {}
    made = []
    for place, chunk in enumerate(produced):
        if place >= len(arguments):
            made.append(chunk)
            continue
        index = begun.setdefault(chunk.choice, 0)
        first = CallPiece(index, f"call_{index}", "look\u2028up")
        begun[chunk.choice] += 1
        pieces = (first, CallPiece(index, arguments=arguments[place]))
        made.append(replace(chunk, calls=pieces))
    return made


def whole_stream(writer: EventWriter, produced: list[Chunk]) -> list[bytes]:
    """The events of a stream in which every choice ends."""
    ends = [Chunk(index, text="", finish="stop") for index in range(CHOICES)]
    raw = b"".join([*(writer.chunk(chunk) for chunk in produced + ends), writer.end(USAGE, None)])
    events = EventDecoder().feed(raw)
    assert events.pop() == DONE
    return events


def spoken_calls(choices: list[ChatChunkChoice]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the calls, put together as clients do."""
    calls: dict[int, tuple[str, str, str]] = {}
    for delta in (delta for choice in choices for delta in choice.delta.tool_calls):
        name, told = calls.get(delta.index, ("", "", ""))[1:]
        first = calls.get(delta.index, ("", "", ""))[0]
        calls[delta.index] = (
            first or delta.id or "",
            name or delta.function.name or "",
            told + delta.function.arguments,
        )
    return list(calls.values())


@given(
    produced=st.lists(chunks, max_size=12),
    arguments=st.lists(st.text(max_size=5), max_size=4),
    usage=st.booleans(),
)
def test_a_chat_stream_says_what_the_whole_answer_says(
    produced: list[Chunk], arguments: list[str], *, usage: bool
) -> None:
    produced = with_calls(produced, arguments)
    writer = ChatEvents(HEAD, CHOICES, include_usage=usage)
    events = whole_stream(writer, produced)
    shapes = [msgspec.json.decode(event, type=ChatChunk, strict=True) for event in events]
    assert all(("usage" in json.loads(event)) == usage for event in events[:-1])
    collected = ChatWhole(CHOICES)
    for chunk in produced:
        collected.add(chunk)
    for whole in collected.body(HEAD, USAGE, None).choices:
        own = [c for shape in shapes for c in shape.choices if c.index == whole.index]
        assert "".join(c.delta.content or "" for c in own) == (whole.message.content or "")
        thoughts = "".join(c.delta.reasoning_content or "" for c in own)
        assert thoughts == (whole.message.reasoning_content or "")
        assert spoken_calls(own) == [
            (call.id, call.function.name, call.function.arguments)
            for call in whole.message.tool_calls or ()
        ]
        assert [c.delta.role for c in own] == ["assistant"] + [None] * (len(own) - 1)
        spoken = [t for c in own if c.logprobs for t in c.logprobs.content or ()]
        assert spoken == ((whole.logprobs.content if whole.logprobs else None) or [])
        assert [c.finish_reason for c in own] == [None] * (len(own) - 1) + ["stop"]


@given(produced=st.lists(chunks, max_size=12), echo=st.text(max_size=4))
def test_a_text_stream_says_what_the_whole_answer_says(produced: list[Chunk], echo: str) -> None:
    writer = TextEvents(HEAD, [echo] * CHOICES, include_usage=False)
    events = whole_stream(writer, produced)
    shapes = [msgspec.json.decode(event, type=TextCompletion, strict=True) for event in events]
    collected = TextWhole([echo] * CHOICES)
    for chunk in produced:
        collected.add(chunk)
    for whole in collected.body(HEAD, USAGE, None).choices:
        own = [c for shape in shapes for c in shape.choices if c.index == whole.index]
        assert "".join(c.text for c in own) == whole.text
        spoken = [c.logprobs for c in own if c.logprobs]
        assert [t for part in spoken for t in part.tokens] == (
            whole.logprobs.tokens if whole.logprobs else []
        )
        assert [t for part in spoken for t in part.text_offset] == (
            whole.logprobs.text_offset if whole.logprobs else []
        )


@given(value=st.text(max_size=20))
def test_a_header_value_is_printable_ascii(value: str) -> None:
    assert printable(value).isascii()
    assert printable(value).isprintable()
    assert printable(value) == printable(value).strip()


async def answered(body: bytes, path: str) -> int:
    """Status of an answer by the whole application."""
    app = create_app(ScriptedService(), version="0.0")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.post(path, content=body)).status_code


near = st.integers(-3, 20) | st.floats(-3, 3) | st.text(max_size=3) | st.none() | st.booleans()
schemas = st.recursive(
    st.just({"type": "string"}),
    lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
functions = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g", "look-up", "é", ""])},
    optional={"description": st.text(max_size=9), "parameters": schemas, "input_schema": schemas},
)
tools = st.builds(
    lambda function, nested: (
        {"type": "function", "function": function} if nested else {"type": "custom", **function}
    ),
    functions,
    st.booleans(),
)
formats = st.sampled_from(["text", "json_object", "yaml"]).map(lambda kind: {"type": kind}) | (
    schemas.map(
        lambda schema: {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": schema},
            "name": "n",
            "schema": schema,
        }
    )
)
asked = st.fixed_dictionaries(
    {
        "model": st.text(max_size=300),
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "user", "assistant", "developer", "tool"]),
                    "content": st.text(max_size=20),
                },
                optional={
                    "name": st.text(max_size=140),
                    "tool_call_id": st.just("c"),
                    "tool_calls": st.just(
                        [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]
                    ),
                    "reasoning_content": st.text(max_size=9),
                },
            ),
            max_size=3,
        ),
        "prompt": st.text(max_size=20) | st.lists(st.text(min_size=1, max_size=9), max_size=3),
        "input": st.text(max_size=20) | st.lists(st.text(max_size=9), max_size=3),
        "query": st.text(max_size=9),
        "documents": st.lists(st.text(max_size=9), max_size=3),
        "content": st.text(max_size=20),
        "tokens": st.lists(st.integers(-1, 2**31), max_size=3),
    },
    optional={
        "tools": st.lists(tools, max_size=2),
        "tool_choice": st.sampled_from(["auto", "none", "required"]),
        "parallel_tool_calls": st.booleans() | near,
        "response_format": formats,
        "text": st.fixed_dictionaries({"format": formats}),
        "grammar": near,
        "enable_thinking": near,
        "thinking_budget": near,
        "reasoning_effort": st.sampled_from(["none", "low", "x"]),
        "priority": st.sampled_from(["background", "interactive", "x"]),
        "service_tier": st.sampled_from(["flex", "auto", "x"]),
        "user": st.text(max_size=300),
        "adapter": st.text(max_size=140),
        "echo": near,
        "best_of": near,
        "system": st.text(max_size=9),
        "stop_sequences": st.lists(st.text(max_size=9), max_size=3),
        "dimensions": near,
        "top_n": near,
        "instructions": st.text(max_size=9),
        "max_tokens": near,
        "n": near,
        "stop": near | st.lists(st.text(max_size=100), max_size=20),
        "seed": st.integers(-(2**64), 2**64),
        "temperature": near,
        "top_p": near,
        "top_k": near,
        "min_p": near,
        "repeat_penalty": near,
        "frequency_penalty": near,
        "presence_penalty": near,
        "logit_bias": st.dictionaries(st.integers(-1, 2**32).map(str), st.floats(-101, 101)),
        "deadline_ms": st.integers(-1, 10**7),
        "logprobs": near,
        "top_logprobs": near,
    },
)


@given(body=asked)
def test_whatever_is_taken_can_travel(body: dict[str, Any]) -> None:
    readers: list[Callable[[bytes], Job]] = [Responses(deadline_ms=1000).read]
    readers += [partial(read, deadline_ms=1000) for read in READERS.values()]
    for read in readers:
        try:
            job = read(json.dumps(body).encode())
        except RequestFault:
            continue
        for request in job.requests:
            message = TaskSubmit("0" * 32, 1, "profile", request, 1000)  # type: ignore[arg-type]  # any text is an id here
            assert decode(encode(message)) == message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@settings(max_examples=150)
@given(
    body=anything.map(lambda value: json.dumps(value).encode())
    | asked.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=100),
    path=st.sampled_from(["/v1/responses", *READERS]),
)
def test_no_body_whatsoever_is_a_500(body: bytes, path: str) -> None:
    assert trio.run(answered, body, path) in {200, 400}
