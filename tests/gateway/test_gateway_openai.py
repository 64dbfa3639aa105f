"""The official `openai` package works unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

import openai
import pytest
import trio

from meshslm.errors import FaultCode
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import (
    Step,
    breaking,
    failed,
    finished,
    nobody_waits,
    route,
    says,
)
from tests.gateway.served import Served

T = TypeVar("T")


async def with_client(served: Served, use: Callable[[openai.OpenAI], T]) -> T:
    """Run `use` in a thread, with a client for the gateway."""

    def run() -> T:
        with openai.OpenAI(
            base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=20
        ) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


async def test_a_chat(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model="auto",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            ],
            n=2,
            seed=7,
            stop=["END", "\n\n"],
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=50,
            frequency_penalty=0.1,
            presence_penalty=-0.1,
            logit_bias={"42": -100},
            user="somebody",
            metadata={"a": "b"},
            store=False,
            extra_body={"top_k": 20, "min_p": 0.05, "repeat_penalty": 1.1, "deadline_ms": 9000},
        )
        assert [choice.message.content for choice in answer.choices] == ["Hello!", "Hello!"]
        assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
        assert answer.usage is not None
        assert answer.usage.total_tokens == 13
        assert answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == 2

    await with_client(served, use)
    asked = served.service.visits[0].request
    assert [(m.role, m.content) for m in asked.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]
    assert (asked.choices, asked.stop, asked.max_tokens) == (2, ("END", "\n\n"), 50)
    assert asked.deadline_ms == 9000
    chosen = asked.sampling
    assert (chosen.seed, chosen.temperature, chosen.top_p, chosen.top_k) == (7, 0.5, 0.9, 20)
    assert (chosen.min_p, chosen.repeat_penalty) == (0.05, 1.1)
    assert (chosen.frequency_penalty, chosen.presence_penalty) == (0.1, -0.1)
    assert [(bias.token, bias.bias) for bias in chosen.logit_bias] == [(42, -100.0)]


async def test_a_chat_stream(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Hello!"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        usage = chunks[-1].usage
        assert usage is not None
        assert usage.completion_tokens == 3

    await with_client(served, use)


async def test_the_stream_helper_builds_the_whole_answer(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        with client.chat.completions.stream(
            model="auto", messages=[{"role": "user", "content": "Hi"}], n=2
        ) as stream:
            answer = stream.get_final_completion()
        assert [choice.message.content for choice in answer.choices] == ["Hello!", "Hello!"]
        assert answer.choices[1].finish_reason == "stop"

    await with_client(served, use)


async def test_text_completions(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        answer = client.completions.create(model="auto", prompt="Once", logprobs=0)
        assert answer.choices[0].text == "Hello!"
        pieces = client.completions.create(model="auto", prompt="Once", stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "Hello!"

    await with_client(served, use)
    assert [visit.request.prompt for visit in served.service.visits] == ["Once", "Once"]
    assert [visit.request.logprobs for visit in served.service.visits] == [0, None]


async def test_models(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()][:2] == ["auto", "domain:code"]
        assert client.models.retrieve("domain:code").owned_by == "meshslm"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-9")

    await with_client(served, use)


async def test_asyncio(served: Served) -> None:
    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            answer = await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}]
            )
            assert answer.choices[0].message.content == "Hello!"
            stream = await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(texts) == "Hello!"

    await trio.to_thread.run_sync(lambda: asyncio.run(use()))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (FaultCode.BAD_REQUEST, openai.BadRequestError),
        (FaultCode.CONTEXT_OVERFLOW, openai.BadRequestError),
        (FaultCode.UNKNOWN_MODEL, openai.NotFoundError),
        (FaultCode.OVERLOADED, openai.RateLimitError),
        (FaultCode.PEER_LOST, openai.InternalServerError),
        (FaultCode.INTERNAL, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_faults_are_the_right_exceptions(
    served: Served, code: FaultCode, error: type[openai.APIStatusError], *, stream: bool
) -> None:
    served.service.script = lambda _request: [failed(code, "the detail")]

    def use(client: openai.OpenAI) -> None:
        with pytest.raises(error, match="the detail") as caught:
            client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}], stream=stream
            )
        assert caught.value.request_id

    await with_client(served, use)


async def test_a_bad_field_is_named(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}], temperature=-1
            )
        assert caught.value.param == "temperature"
        assert caught.value.type == "invalid_request_error"

    await with_client(served, use)


async def test_a_stream_that_breaks_raises(served: Served) -> None:
    served.service.script = breaking(FaultCode.PEER_LOST, "beta is gone", says("Hel"))

    def use(client: openai.OpenAI) -> str:
        texts: list[str] = []

        def read() -> None:
            stream = client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)

        with pytest.raises(openai.APIError, match="beta is gone") as caught:
            read()
        assert caught.value.code == "peer_lost"
        return "".join(texts)

    assert await with_client(served, use) == "Hel"


async def test_an_overloaded_node_is_asked_again(served: Served) -> None:
    def refusing_once(_request: TaskRequest) -> Iterable[Step]:
        if len(served.service.visits) == 1:
            yield failed(FaultCode.OVERLOADED, "full", retry_after_ms=10)
        else:
            yield route()
            yield says("Hello!", finish="stop")
            yield finished()

    served.service.script = refusing_once

    def use(client: openai.OpenAI) -> None:
        answer = client.with_options(max_retries=1).chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Hi"}]
        )
        assert answer.choices[0].message.content == "Hello!"

    await with_client(served, use)


async def test_closing_a_stream_ends_the_task(served: Served) -> None:
    def endless(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield nobody_waits()

    served.service.script = endless

    def use(client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        next(iter(stream))
        stream.close()

    await with_client(served, use)
    with trio.fail_after(1):
        await served.service.visits[0].left.wait()
