"""What holds for every request and every answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm.api.openai_responses import ChatChunk, TextCompletion
from meshslm.api.sse import DONE, EventDecoder
from meshslm.errors import RequestFault
from meshslm.gateway import create_app
from meshslm.gateway.events import ChatEvents, EventWriter, Head, TextEvents
from meshslm.gateway.jobs import read_chat, read_completion
from meshslm.gateway.told import printable, usage_shape
from meshslm.gateway.whole import Transcript, chat_answer, text_answer
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Chunk, TaskSubmit, TokenLogprob, TopLogprob, Usage
from tests.gateway.scripted_service import ScriptedService

HEAD = Head("chatcmpl-1", 1_700_000_000, 'model "x"\n', None)
USAGE = usage_shape(Usage(3, 4, 1))
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
)


def whole_stream(writer: EventWriter, produced: list[Chunk]) -> list[bytes]:
    """The events of a stream in which every choice ends."""
    ends = [Chunk(index, text="", finish="stop") for index in range(CHOICES)]
    raw = b"".join([*(writer.chunk(chunk) for chunk in produced + ends), writer.end(USAGE, None)])
    events = EventDecoder().feed(raw)
    assert events.pop() == DONE
    return events


def transcripts(produced: list[Chunk]) -> list[Transcript]:
    choices = [Transcript() for _ in range(CHOICES)]
    for chunk in produced:
        choices[chunk.choice].add(chunk)
    return choices


@given(produced=st.lists(chunks, max_size=12), usage=st.booleans())
def test_a_chat_stream_says_what_the_whole_answer_says(
    produced: list[Chunk], *, usage: bool
) -> None:
    writer = ChatEvents(HEAD, CHOICES, include_usage=usage)
    events = whole_stream(writer, produced)
    shapes = [msgspec.json.decode(event, type=ChatChunk, strict=True) for event in events]
    assert all(("usage" in json.loads(event)) == usage for event in events[:-1])
    answer = chat_answer(HEAD, transcripts(produced), USAGE, None)
    for whole in answer.choices:
        own = [c for shape in shapes for c in shape.choices if c.index == whole.index]
        assert "".join(c.delta.content or "" for c in own) == whole.message.content
        assert [c.delta.role for c in own] == ["assistant"] + [None] * (len(own) - 1)
        spoken = [t for c in own if c.logprobs for t in c.logprobs.content or ()]
        assert spoken == ((whole.logprobs.content if whole.logprobs else None) or [])
        assert [c.finish_reason for c in own] == [None] * (len(own) - 1) + ["stop"]


@given(produced=st.lists(chunks, max_size=12), echo=st.text(max_size=4))
def test_a_text_stream_says_what_the_whole_answer_says(produced: list[Chunk], echo: str) -> None:
    writer = TextEvents(HEAD, CHOICES, include_usage=False, echo=echo)
    events = whole_stream(writer, produced)
    shapes = [msgspec.json.decode(event, type=TextCompletion, strict=True) for event in events]
    answer = text_answer(HEAD, transcripts(produced), USAGE, None, echo=echo)
    for whole in answer.choices:
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
asked = st.fixed_dictionaries(
    {
        "model": st.text(max_size=300),
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "user", "assistant", "developer"]),
                    "content": st.text(max_size=20),
                },
                optional={"name": st.text(max_size=140)},
            ),
            max_size=3,
        ),
        "prompt": st.text(max_size=20),
    },
    optional={
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
    for read in (read_chat, read_completion):
        try:
            job = read(json.dumps(body).encode(), deadline_ms=1000)
        except RequestFault:
            continue
        message = TaskSubmit("0" * 32, 1, "profile", job.request, 1000)  # type: ignore[arg-type]  # any text is an id here
        assert decode(encode(message)) == message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    body=anything.map(lambda value: json.dumps(value).encode())
    | asked.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=100),
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
)
def test_no_body_whatsoever_is_a_500(body: bytes, path: str) -> None:
    assert trio.run(answered, body, path) in {200, 400}
