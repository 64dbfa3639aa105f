"""Anthropic's Messages API, as the official `anthropic` package uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
import trio

from meshslm.errors import FaultCode
from tests.gateway.scripted_service import (
    TASK,
    breaking,
    calls,
    chunk,
    failed,
    finished,
    greeting,
    nobody_waits,
    route,
    says,
)
from tests.gateway.served import Served

USER: Any = {"role": "user", "content": "Hi"}
WEATHER: Any = {
    "name": "weather",
    "description": "Of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def with_client(served: Served, use: Callable[[anthropic.Anthropic], None]) -> None:
    """Run `use` in a thread, with a client for the gateway."""

    def run() -> None:
        with anthropic.Anthropic(
            base_url=served.url, api_key="none", max_retries=0, timeout=20
        ) as client:
            use(client)

    await trio.to_thread.run_sync(run)


async def test_a_text_answer(served: Served) -> None:
    def use(client: anthropic.Anthropic) -> None:
        answer = client.messages.create(
            model="auto",
            max_tokens=50,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[USER],
            stop_sequences=["END"],
            metadata={"user_id": "somebody"},
            extra_body={"temperature": 0.5, "top_k": 20, "deadline_ms": 9000},
        )
        assert answer.id == f"msg_{TASK}"
        assert [block.type for block in answer.content] == ["text"]
        assert answer.content[0].text == "Hello!"  # type: ignore[union-attr]  # its type was looked at
        assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
        assert answer.usage.cache_read_input_tokens == 2

    await with_client(served, use)
    asked = served.service.visits[0].request
    assert [(m.role, m.content) for m in asked.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]
    assert (asked.max_tokens, asked.stop, asked.deadline_ms) == (50, ("END",), 9000)
    assert (asked.sampling.temperature, asked.sampling.top_k) == (0.5, 20)
    assert len(asked.tenant) == 32
    assert asked.thinking is False


async def test_a_stream_has_the_events_of_its_blocks(served: Served) -> None:
    served.service.script = calls(
        ("call_a", "weather", '{"city": "Oslo"}'), thought="Hm.", text="Let me see."
    )

    def use(client: anthropic.Anthropic) -> None:
        raw = client.messages.create(
            model="auto", max_tokens=50, messages=[USER], tools=[WEATHER], stream=True
        )
        assert [event.type for event in raw] == [
            "message_start",
            *["content_block_start", "content_block_delta", "content_block_stop"] * 2,
            *["content_block_start", "content_block_delta", "content_block_delta"],
            *["content_block_stop", "message_delta", "message_stop"],
        ]
        with client.messages.stream(
            model="auto", max_tokens=50, messages=[USER], tools=[WEATHER]
        ) as stream:
            answer = stream.get_final_message()
        thought, text, call = answer.content
        assert thought.type == "thinking"
        assert thought.thinking == "Hm."
        assert text.type == "text"
        assert text.text == "Let me see."
        assert call.type == "tool_use"
        assert (call.id, call.name, call.input) == ("call_a", "weather", {"city": "Oslo"})
        assert answer.stop_reason == "tool_use"
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)

    await with_client(served, use)


async def test_a_call_there_and_its_result_back(served: Served) -> None:
    def use(client: anthropic.Anthropic) -> None:
        served.service.script = calls(
            ("call_a", "weather", '{"city": "Oslo"}'), thought="Hm.", text="Let me see."
        )
        first = client.messages.create(
            model="auto",
            max_tokens=50,
            messages=[USER],
            tools=[WEATHER],
            tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            thinking={"type": "enabled", "budget_tokens": 20},
        )
        assert first.stop_reason == "tool_use"
        assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
        served.service.script = greeting
        client.messages.create(
            model="auto",
            max_tokens=50,
            messages=[
                USER,
                {"role": "assistant", "content": first.content},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "call_a", "content": "-3 C"},
                        {"type": "text", "text": "And tomorrow?"},
                    ],
                },
            ],
            tools=[WEATHER],
            tool_choice={"type": "any"},
        )

    await with_client(served, use)
    first, second = (visit.request for visit in served.service.visits)
    assert json.loads(first.tools[0].parameters) == WEATHER["input_schema"]
    assert (first.tool_choice, first.parallel_calls) == ("weather", False)
    assert (first.thinking, first.thinking_tokens) == (True, 20)
    assert (second.tool_choice, second.parallel_calls) == ("required", True)
    assert [(m.role, m.content) for m in second.messages] == [
        ("user", "Hi"),
        ("assistant", "Let me see."),
        ("tool", "-3 C"),
        ("user", "And tomorrow?"),
    ]
    assert second.messages[1].reasoning == "Hm."
    assert json.loads(second.messages[1].calls[0].arguments) == {"city": "Oslo"}
    assert second.messages[2].call_id == "call_a"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_that_was_met_is_told(served: Served, *, stream: bool) -> None:
    served.service.script = lambda _request: [
        route(),
        chunk(text="Hel", finish="stop", stopped="lo"),
        finished(),
    ]

    def use(client: anthropic.Anthropic) -> None:
        asked: Any = {"model": "auto", "max_tokens": 5, "messages": [USER]}
        if stream:
            with client.messages.stream(**asked, stop_sequences=["lo"]) as events:
                answer = events.get_final_message()
        else:
            answer = client.messages.create(**asked, stop_sequences=["lo"])
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "lo")

    await with_client(served, use)


async def test_an_answer_that_was_cut_off_says_so(served: Served) -> None:
    served.service.script = lambda _request: [route(), says("Hel", finish="length"), finished()]

    def use(client: anthropic.Anthropic) -> None:
        answer = client.messages.create(model="auto", max_tokens=5, messages=[USER])
        assert answer.stop_reason == "max_tokens"

    await with_client(served, use)


async def test_a_call_that_was_cut_off_has_no_input(served: Served) -> None:
    served.service.script = calls(("call_a", "weather", '{"city": "Os'))
    response = await served.http.post(
        "/v1/messages", json={"model": "auto", "max_tokens": 5, "messages": [USER]}
    )
    assert response.json()["content"][0]["input"] == {}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (FaultCode.BAD_REQUEST, anthropic.BadRequestError),
        (FaultCode.UNKNOWN_MODEL, anthropic.NotFoundError),
        (FaultCode.OVERLOADED, anthropic.RateLimitError),
        (FaultCode.PEER_LOST, anthropic.InternalServerError),
        (FaultCode.DEADLINE, anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_faults_are_the_right_exceptions(
    served: Served, code: FaultCode, error: type[anthropic.APIStatusError], *, stream: bool
) -> None:
    served.service.script = lambda _request: [failed(code, "the detail")]

    def use(client: anthropic.Anthropic) -> None:
        with pytest.raises(error, match="the detail") as caught:
            client.messages.create(model="auto", max_tokens=5, messages=[USER], stream=stream)
        body: Any = caught.value.body
        assert body["type"] == "error"
        assert body["error"]["type"].endswith("error")

    await with_client(served, use)


async def test_a_stream_that_breaks_raises(served: Served) -> None:
    served.service.script = breaking(FaultCode.PEER_LOST, "beta is gone", chunk(text="Hel"))

    def use(client: anthropic.Anthropic) -> None:
        def read() -> None:
            for _ in client.messages.create(
                model="auto", max_tokens=5, messages=[USER], stream=True
            ):
                pass

        with pytest.raises(anthropic.APIError, match="beta is gone"):
            read()

    await with_client(served, use)


async def test_closing_a_stream_ends_the_task(served: Served) -> None:
    served.service.script = lambda _request: [route(), says("Hel"), nobody_waits()]

    def use(client: anthropic.Anthropic) -> None:
        stream = client.messages.create(model="auto", max_tokens=5, messages=[USER], stream=True)
        next(iter(stream))
        stream.close()

    await with_client(served, use)
    with trio.fail_after(1):
        await served.service.visits[0].left.wait()


# --- what is refused ----------------------------------------------------------------------------
def block(role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [fields]}]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_tokens": None}, "'max_tokens'"),
        ({"max_tokens": 0}, ">= 1"),
        ({"messages": []}, "'messages' is empty"),
        ({"messages": [], "system": "x"}, "'messages' is empty"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "cannot be begun"),
        (block(type="image", source={}), "'image', which is not served in a turn of 'user'"),
        (block(type="text"), "messages[0].content[0].text' is missing"),
        (block(type="tool_use", id="a", name="f", input={}), "not served in a turn of 'user'"),
        (block(type="tool_result", content="x"), "tool_use_id' is missing"),
        (block(type="tool_result", tool_use_id="a", content="x"), "follows no turn"),
        (
            block(type="tool_result", tool_use_id="a", content=[{"type": "image"}]),
            "read only 'text'",
        ),
        (block("assistant", type="tool_use", id="a", input={}), "a tool needs a name"),
        (block("assistant", type="tool_use", name="f", input={}), "id' is missing"),
        (block("assistant", type="tool_use", id="a", name="f", input=[1]), "got `array`"),
        (block("assistant", type="thinking"), "thinking' is missing"),
        ({"messages": [{"role": "user", "content": [{}] * 2}]}, "content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 257}]},
            "257 parts; at most 256",
        ),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"stop_sequences": [""]}, "empty string"),
        ({"stop_sequences": ["a"] * 17}, "17 strings; at most 16"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "'bash_20250124'"),
        ({"tools": [{"input_schema": {}}]}, "a tool needs a name"),
        ({"tools": [WEATHER, WEATHER]}, "Two tools are called 'weather'"),
        ({"tool_choice": {"type": "any"}}, "there are no 'tools'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "'tool_choice.name' is missing"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "none of 'tools'"),
        ({"tools": [WEATHER], "grammar": "root ::= x"}, "leaves no room for calls"),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, "leaves no room for an answer"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "disabled, and has a budget"),
        ({"thinking": {"type": "enabled"}, "enable_thinking": True}, "both given"),
        ({"metadata": {"user_id": 5}}, "got `int`"),
        ({"mcp_servers": [{}]}, "not supported yet"),
    ],
)
async def test_a_bad_request(served: Served, fields: dict[str, Any], told: str) -> None:
    body = {"model": "auto", "max_tokens": 50, "messages": [USER], **fields}
    response = await served.http.post("/v1/messages", json=body)
    assert response.status_code == 400
    error = response.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert told in error["error"]["message"]


async def test_errors_of_http_have_the_shape_too(served: Served) -> None:
    wrong = await served.http.get("/v1/messages")
    assert wrong.status_code == 405
    assert wrong.json()["error"]["type"] == "invalid_request_error"
    foreign = await served.http.post("/v1/messages", json={}, headers={"host": "evil.example"})
    assert foreign.status_code == 403
    assert foreign.json()["error"]["type"] == "permission_error"
    large = await served.http.post("/v1/messages", content=b"x" * (4 * 1024 * 1024 + 1))
    assert large.status_code == 413
    assert large.json()["error"]["type"] == "request_too_large"
