"""Forms of answers, tools and thinking in chat completions: what is meant, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from meshslm import limits
from meshslm.api.asked import Thinking
from meshslm.api.conversation import Call, Turn
from meshslm.api.decode import decode_body
from meshslm.api.forms import Form, Function
from meshslm.api.openai_requests import ChatRequest
from meshslm.errors import RequestFault

CHATS = msgspec.json.Decoder(ChatRequest)
USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
LONG = "x" * (limits.SCHEMA_BYTES + 1)


def read(**fields: Any) -> ChatRequest:
    body = json.dumps({"model": "auto", "messages": [USER], **fields}).encode()
    asked = decode_body(body, CHATS)
    asked.check()
    return asked


def tool(name: Any = "look_up", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def json_schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA, **fields}}


def call(**fields: Any) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": '{"q": 1}'}
    return {"id": "call_1", "type": "function", "function": function, **fields}


def asking(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "42"}


# --- what is meant ------------------------------------------------------------------------------
def test_forms() -> None:
    assert read().form() is None
    assert read(response_format={"type": "text"}).form() is None
    assert read(response_format={"type": "json_object"}).form() == Form("json_object")
    assert read(grammar="root ::= [a-z]").form() == Form("gbnf", "root ::= [a-z]")
    form = read(response_format=json_schema(strict=True)).form()
    assert form is not None
    assert form.kind == "json_schema"
    assert form.text == json.dumps(SCHEMA, separators=(",", ":")), "in the order it was written"


def test_tools() -> None:
    asked = read(
        tools=[tool(description="Finds", parameters=SCHEMA, strict=True), tool("go-2")],
        tool_choice=named("go-2"),
        parallel_tool_calls=False,
    )
    schema = json.dumps(SCHEMA, separators=(",", ":"))
    assert asked.tool_use().functions == (
        Function("look_up", "Finds", schema),
        Function("go-2", "", ""),
    )
    assert asked.tool_use().choice == "go-2"
    assert read(tools=[tool()]).tool_use().choice == "auto"
    assert read(tools=[tool()], tool_choice="required").tool_use().choice == "required"


def test_a_conversation_with_calls() -> None:
    thinking = {**asking(call(), call(id="call_2")), "reasoning_content": "hmm"}
    turns = read(messages=[USER, thinking, RESULT, {**RESULT, "tool_call_id": "call_2"}]).turns()
    made = tuple(Call(name, "look_up", '{"q": 1}') for name in ("call_1", "call_2"))
    assert turns[1] == Turn("assistant", "", calls=made, reasoning="hmm")
    assert turns[2:] == [
        Turn("tool", "42", call_id="call_1"),
        Turn("tool", "42", call_id="call_2"),
    ]


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, Thinking()),
        ({"enable_thinking": True}, Thinking(on=True)),
        ({"enable_thinking": False}, Thinking(on=False)),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Thinking(on=False)),
        ({"chat_template_kwargs": {}}, Thinking()),
        ({"reasoning_effort": "none"}, Thinking(on=False)),
        ({"reasoning_effort": "minimal"}, Thinking(effort="low")),
        ({"reasoning_effort": "medium"}, Thinking(effort="medium")),
        ({"reasoning_effort": "xhigh"}, Thinking(effort="high")),
        ({"thinking_budget": 9}, Thinking(tokens=9)),
        ({"thinking_budget": 0}, Thinking(on=False, tokens=0)),
        (
            {"thinking_budget": 9, "enable_thinking": True, "reasoning_effort": "high"},
            Thinking(on=True, effort="high", tokens=9),
        ),
    ],
)
def test_thinking(fields: dict[str, Any], thinking: Thinking) -> None:
    assert read(**fields).thinking() == thinking


def test_priorities() -> None:
    assert read().urgency == "interactive"
    assert read(service_tier="auto").urgency == "interactive"
    assert read(service_tier="flex").urgency == "background"
    assert read(service_tier="flex", priority="background").urgency == "background"
    assert read(user="u", safety_identifier="s").behalf == "u"
    assert read(safety_identifier="s").behalf == "s"


# --- what is refused ----------------------------------------------------------------------------
CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"grammar": "root ::= x", "response_format": {"type": "json_object"}},
        "grammar",
        "both say what form",
    ),
    ({"grammar": "root ::= x", "tools": [tool()]}, "grammar", "leaves no room for calls"),
    (
        {
            "tools": [tool()],
            "tool_choice": "required",
            "response_format": {"type": "json_object"},
        },
        "tool_choice",
        "contradict each other",
    ),
    (
        {
            "tools": [tool()],
            "tool_choice": named("look_up"),
            "response_format": json_schema(),
        },
        "tool_choice",
        "contradict each other",
    ),
    ({"tool_choice": "required"}, "tool_choice", "there are no 'tools'"),
    ({"tool_choice": named("f")}, "tool_choice", "'f', which is none of 'tools'"),
    ({"tools": [tool()], "tool_choice": named("f")}, "tool_choice", "none of 'tools'"),
    (
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
        "chat_template_kwargs.enable_thinking",
        "'enable_thinking' says how",
    ),
    (
        {"enable_thinking": True, "reasoning_effort": "none"},
        "reasoning_effort",
        "says not to think",
    ),
    (
        {"enable_thinking": False, "reasoning_effort": "low"},
        "enable_thinking",
        "'reasoning_effort'",
    ),
    ({"enable_thinking": False, "thinking_budget": 5}, "enable_thinking", "'thinking_budget'"),
    ({"enable_thinking": True, "thinking_budget": 0}, "thinking_budget", "says not to think"),
    ({"priority": "interactive", "service_tier": "flex"}, "priority", "disagree"),
    ({"priority": "background", "service_tier": "priority"}, "priority", "disagree"),
    ({"n": 2, "max_completion_tokens": 600_000}, "n", "are 1200000 tokens; one request may"),
]

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": "json"}, "response_format", "expected `object | null`"),
    ({"response_format": {}}, "response_format.type", "Missing required"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "'xml'; served are text,"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is missing"),
    (
        {"response_format": json_schema(name=None)},
        "response_format.json_schema.name",
        "is missing",
    ),
    (
        {"response_format": json_schema(name="a b")},
        "response_format.json_schema.name",
        "names have 1 to 64 letters",
    ),
    (
        {"response_format": json_schema(schema=None)},
        "response_format.json_schema.schema",
        "is missing",
    ),
    (
        {"response_format": json_schema(schema=[1])},
        "response_format.json_schema.schema",
        "got `array`",
    ),
    (
        {"response_format": json_schema(schema={"enum": [LONG]})},
        "response_format.json_schema.schema",
        "at most 65536 are taken",
    ),
    ({"tools": "look_up"}, "tools", "expected `array | null`"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'; only 'function'"),
    ({"tools": [{"type": "function"}]}, "tools[0].function.name", "a tool needs a name"),
    ({"tools": [tool(None)]}, "tools[0].function.name", "a tool needs a name"),
    ({"tools": [tool("")]}, "tools[0].function.name", "a tool needs a name"),
    ({"tools": [tool("a" * 65)]}, "tools[0].function.name", "1 to 64"),
    ({"tools": [tool("é")]}, "tools[0].function.name", "letters, digits"),
    ({"tools": [tool(), tool()]}, "tools[1].function.name", "Two tools are called 'look_up'"),
    ({"tools": [tool("required")]}, "tools[0].function.name", "another meaning"),
    ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters", "got `array`"),
    (
        {"tools": [tool(parameters={"enum": [LONG]})]},
        "tools[0].function.parameters",
        "at most 65536",
    ),
    ({"tools": [tool(description=LONG)]}, "tools[0].function.description", "at most 65536"),
    ({"tools": [tool(f"t{n}") for n in range(129)]}, "tools", "129 tools; at most 128"),
    (
        {"tools": [tool(f"t{n}", description="x" * 40_000) for n in range(7)]},
        "tools",
        "280000 bytes together; at most 262144",
    ),
    ({"tools": [tool()], "tool_choice": "maybe"}, "tool_choice", "'maybe'; served are auto,"),
    ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function", "Missing"),
    ({"tools": [tool()], "tool_choice": 5}, "tool_choice", "got `int`"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "got `str`"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort", "'extreme'; served are none,"),
    ({"reasoning_effort": 3}, "reasoning_effort", "got `int`"),
    ({"enable_thinking": "yes"}, "enable_thinking", "got `str`"),
    ({"thinking_budget": -1}, "thinking_budget", ">= 0"),
    ({"chat_template_kwargs": {"custom": 1}}, "chat_template_kwargs", "unknown field `custom`"),
    ({"chat_template_kwargs": [1]}, "chat_template_kwargs", "got `array`"),
    ({"messages": [RESULT]}, "messages[0]", "'call_1' follows no turn that asked for it"),
    ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id", "missing"),
    ({"messages": [{**USER, "tool_call_id": "x"}]}, "messages[0].tool_call_id", "belongs to a"),
    ({"messages": [{**USER, "tool_calls": [call()]}]}, "messages[0].tool_calls", "belongs to an"),
    ({"messages": [asking(call(id=None))]}, "messages[0].tool_calls[0].id", "is missing"),
    ({"messages": [asking(call(id="i" * 129))]}, "messages[0].tool_calls[0].id", "129 bytes"),
    ({"messages": [asking(call(type="x"))]}, "messages[0].tool_calls[0].type", "only 'function'"),
    (
        {"messages": [asking(call(function={"name": "f", "arguments": "{"}))]},
        "messages[0].tool_calls[0].function.arguments",
        "not valid JSON",
    ),
    (
        {"messages": [asking(call(function={"name": "f", "arguments": "[1]"}))]},
        "messages[0].tool_calls[0].function.arguments",
        "not a JSON object",
    ),
    (
        {"messages": [asking(call(function={"name": "f", "arguments": "[" * 5000}))]},
        "messages[0].tool_calls[0].function.arguments",
        "nested too deeply",
    ),
    (
        {"messages": [asking(call(function={"arguments": "{}"}))]},
        "messages[0].tool_calls[0].function.name",
        "a tool needs a name",
    ),
    (
        {"messages": [USER, asking(*(call(id=f"c{n}") for n in range(65)))]},
        "messages[1]",
        "65 calls; at most 64",
    ),
    ({"messages": [asking()]}, "messages[0].content", "is missing"),
    (
        {"messages": [{**USER, "reasoning_content": "x" * (limits.PROMPT_BYTES + 1)}]},
        "messages[0].reasoning_content",
        "bytes long",
    ),
]


@pytest.mark.parametrize(("fields", "param", "told"), CONTRADICTIONS + BAD)
def test_what_makes_no_sense_is_refused_by_name(
    fields: dict[str, Any], param: str, told: str
) -> None:
    with pytest.raises(RequestFault) as caught:
        read(**fields)
    assert caught.value.param == param
    assert told in caught.value.detail
    assert len(caught.value.detail) < 600


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema = '{"not":' * 3000 + "{}" + "}" * 3000
    body = (
        '{"model": "auto", "messages": [{"role": "user", "content": "x"}], "response_format": '
        '{"type": "json_schema", "json_schema": {"name": "x", "schema": ' + schema + "}}}"
    )
    with pytest.raises(RequestFault, match="nested too deeply"):
        decode_body(body.encode(), CHATS)
