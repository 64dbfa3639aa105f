"""How a model writes the call of a tool, and how it is told which tools there are.

Two notations that many models were trained on. A model whose template knows tools gets them through
its template, in its own notation; any other is told in words, in the first notation.

Rules:
- A call is always of one shape, head, arguments, end, so that reading and constraining agree.
- Names are plain: they stand in patterns and in JSON as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from meshslm.errors import FaultCode, RequestFault
from meshslm.limits import TOOL_CALLS, TOOL_NAME_BYTES, TOOLS
from meshslm.wire.messages import ChatMessage, TaskRequest, Tool, ToolCall

NAME: Final = re.compile(rf"[A-Za-z0-9_.:/-]{{1,{TOOL_NAME_BYTES}}}")
"""OpenAI's letters, digits, `_` and `-`, and what tool servers put between a server's and a tool's
name."""
CHOICES: Final = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One notation: `open`, a JSON object of name and arguments, `close`."""

    name: str
    open: str
    close: str
    key: str
    """Of the arguments."""
    between: str
    """Two calls of one answer."""
    marker: str = ""
    """A control token that may stand before the first call."""


HERMES: Final = ToolFormat("hermes", "<tool_call>", "</tool_call>", "arguments", "\n")
"""Hermes, Qwen and many that followed them; also for models that know no notation, because its tags
tell a call from an answer that is JSON itself."""
LLAMA3: Final = ToolFormat("llama3", "", "", "parameters", "; ", "<|python_tag|>")
"""Llama 3.1 and later: the whole answer is the call."""


# --- what may be asked for ----------------------------------------------------------------------
def check(request: TaskRequest) -> None:
    """Raises `RequestFault` where tools or the choice of one cannot be meant."""
    if len(request.tools) > TOOLS:
        raise _fault(f"{len(request.tools)} tools, at most {TOOLS} are allowed", "tools")
    seen: set[str] = set()
    for place, tool in enumerate(request.tools):
        if not tool.name:
            raise _fault(f"tool {place} has no name", "tools")
        if not NAME.fullmatch(tool.name):
            raise _fault(
                f"tool {place}: {tool.name!r} is no name of 1 to {TOOL_NAME_BYTES} letters, "
                "digits and _ . : / -",
                "tools",
            )
        if tool.name in seen:
            raise _fault(f"there are two tools named {tool.name!r}", "tools")
        seen.add(tool.name)
    choice = request.tool_choice
    if choice not in CHOICES and choice not in seen:
        known = ", ".join(sorted(seen)) or "none"
        raise _fault(f"tool_choice names {choice!r}, but the tools are: {known}", "tool_choice")
    if not request.tools and choice == "required":
        raise _fault("tool_choice is `required`, but there are no tools", "tool_choice")
    if request.tools and not request.messages:
        raise _fault("tools need a conversation, not a bare prompt", "tools")
    if request.tools and request.constraint is not None and choice not in ("auto", "none"):
        raise _fault(
            f"response_format asks for an answer and tool_choice {choice!r} for a call instead of "
            "one; with `auto` the model may give either",
            "response_format",
        )
    for message in request.messages:
        if len(message.calls) > TOOL_CALLS:
            raise _fault(
                f"a turn with {len(message.calls)} calls, at most {TOOL_CALLS}", "messages"
            )


def _fault(detail: str, param: str) -> RequestFault:
    return RequestFault(FaultCode.BAD_REQUEST, detail, param=param)


def in_use(request: TaskRequest) -> tuple[Tool, ...]:
    """The tools that the answer may call."""
    if request.tool_choice == "none":
        return ()
    if request.tool_choice in ("auto", "required"):
        return request.tools
    return tuple(tool for tool in request.tools if tool.name == request.tool_choice)


# --- telling a model ----------------------------------------------------------------------------
def arguments_of(call: ToolCall) -> Any:
    """A call's arguments, as templates want them: the object, or the text where it is none."""
    try:
        return json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return call.arguments


def in_words(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> tuple[ChatMessage, ...]:
    """The conversation for a template that knows neither tools nor their answers."""
    turns: list[ChatMessage] = []
    for message in messages:
        if message.role == "tool":
            text = f"<tool_response>\n{message.content}\n</tool_response>"
            if turns and turns[-1].role == "user" and turns[-1].call_id:
                text = f"{turns[-1].content}\n{text}"
                turns.pop()
            turns.append(ChatMessage("user", text, call_id="answers"))
        elif message.calls:
            calls = (call_text(call) for call in message.calls)
            text = "\n".join([message.content, *calls] if message.content else calls)
            turns.append(replace(message, content=text, calls=()))
        else:
            turns.append(message)
    if not tools:
        return tuple(turns)
    told = _words(tools)
    if turns and turns[0].role == "system":
        turns[0] = replace(turns[0], content=f"{turns[0].content}\n\n{told}")
    else:
        turns.insert(0, ChatMessage("system", told))
    return tuple(turns)


def call_text(call: ToolCall) -> str:
    """A call in the first notation."""
    body = json.dumps({"name": call.name, "arguments": arguments_of(call)}, ensure_ascii=False)
    return f"{HERMES.open}\n{body}\n{HERMES.close}"


def _words(tools: Sequence[Tool]) -> str:
    lines = [json.dumps(described(tool)["function"], ensure_ascii=False) for tool in tools]
    return (
        "You can call these functions; each line describes one as JSON:\n"
        + "\n".join(lines)
        + "\nTo call one, answer with its name and arguments, and nothing else:\n"
        f'{HERMES.open}\n{{"name": "function name", "arguments": {{"argument": "value"}}}}\n'
        f"{HERMES.close}\n"
        "The result comes in <tool_response> tags. Otherwise answer in words."
    )


def described(tool: Tool) -> dict[str, Any]:
    """A tool, as templates want it."""
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}
    if tool.parameters:
        parameters = json.loads(tool.parameters)
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": parameters,
        },
    }


def one_call_a_turn(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """The conversation for a template that takes one call a turn: each with its answer behind."""
    answers: dict[str, list[ChatMessage]] = {}
    for message in messages:
        if message.role == "tool":
            answers.setdefault(message.call_id, []).append(message)
    split: set[str] = {
        call.id for message in messages if len(message.calls) > 1 for call in message.calls
    }
    turns: list[ChatMessage] = []
    for message in messages:
        if len(message.calls) > 1:
            for place, call in enumerate(message.calls):
                content = message.content if place == 0 else ""
                turns.append(replace(message, content=content, calls=(call,)))
                turns += answers.get(call.id, [])
        elif message.role != "tool" or message.call_id not in split:
            turns.append(message)
    return tuple(turns)
