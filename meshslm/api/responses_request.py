"""What a client of OpenAI's Responses API asks for.

Rules:
- A message, the calls behind it and the thoughts before it are one turn, as chat templates have it.
- Tools that only OpenAI's service has (search, files, computers) are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import msgspec

from meshslm import limits
from meshslm.api.asked import Asked, Thinking, refuse_unserved
from meshslm.api.conversation import Turn, check_conversation, checked_call
from meshslm.api.decode import bad_request, clipped
from meshslm.api.fields import (
    TokenCount,
    check_bytes,
    check_choice,
    check_id,
    check_stops,
    text_of_parts,
)
from meshslm.api.forms import (
    TOOL_MODES,
    Form,
    FunctionShape,
    JsonSchema,
    Tools,
    form_of,
    functions_of,
    tools_of,
)

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXTS = ("input_text", "output_text")


class InputPart(msgspec.Struct, kw_only=True):
    """A part of a message, a result or a thought."""

    type: str
    text: str | None = None


class InputItem(msgspec.Struct, kw_only=True):
    """An item of any type: which fields it must have depends on the type."""

    type: str = "message"
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    summary: list[InputPart] | None = None


class TextFormat(msgspec.Struct, kw_only=True):
    """`text.format`."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, kw_only=True):
    """How the text of the answer is to be."""

    format: TextFormat | None = None
    verbosity: Any = None


class Reasoning(msgspec.Struct, kw_only=True):
    """How to think."""

    effort: str | None = None
    summary: str | None = None


class ResponseTool(msgspec.Struct, kw_only=True):
    """One of `tools`."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedResponseTool(msgspec.Struct, kw_only=True):
    """`tool_choice` that names a function."""

    type: Literal["function"]
    name: str


class ResponseRequest(Asked, kw_only=True):
    """Body of `POST /v1/responses`."""

    input: str | list[InputItem]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    max_output_tokens: TokenCount | None = None
    stop: str | list[str] | None = None
    text: TextOptions | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: str | NamedResponseTool | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    top_logprobs: int | None = None
    include: list[str] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_asked()
        refuse_unserved(self, ("background", "conversation", "prompt"))
        if self.truncation == "auto":
            raise bad_request(
                "Only 'disabled' is supported for 'truncation': nothing is left out silently.",
                "truncation",
            )
        if self.top_logprobs or any("logprobs" in name for name in self.include or ()):
            raise bad_request(
                "Log-probabilities are told by /v1/chat/completions only.",
                "top_logprobs" if self.top_logprobs else "include",
            )
        check_stops(self.stops, "stop")
        check_bytes(self.instructions or "", "instructions", limits.PROMPT_BYTES)
        check_bytes(self.previous_response_id or "", "previous_response_id", limits.NAME_BYTES)
        self.thinking()
        self.tool_use()

    def conversation_after(self, earlier: Iterable[Turn]) -> list[Turn]:
        """The conversation without its instructions, going on from earlier turns.

        Raises `RequestFault` where it makes no sense.
        """
        if isinstance(self.input, str):
            check_bytes(self.input, "input", limits.PROMPT_BYTES)
            new = [Turn("user", self.input)]
        else:
            new = _turns(self.input)
        turns = [*earlier, *new]
        if not new:
            raise bad_request("'input' is empty.", "input")
        check_conversation([*self.first_turns(), *turns], "input")
        return turns

    def first_turns(self) -> list[Turn]:
        """The instructions: they hold for this answer, and are not kept with the conversation."""
        return [Turn("system", self.instructions)] if self.instructions else []

    def thinking(self) -> Thinking:
        """How to think; raises `RequestFault` where that is contradictory."""
        effort = self.reasoning.effort if self.reasoning else None
        return self.thought(effort, "reasoning.effort")

    def form(self) -> Form | None:
        """What form the answer must have; raises `RequestFault` where that makes no sense."""
        wanted = (self.text and self.text.format) or TextFormat(type="text")
        schema = JsonSchema(name=wanted.name, schema=wanted.schema)
        return form_of(wanted.type, schema, self.grammar, "text.format")

    def tool_use(self) -> Tools:
        """What may be called; raises `RequestFault` where that makes no sense."""
        shapes = []
        for index, tool in enumerate(self.tools or ()):
            if tool.type != "function":
                raise bad_request(
                    f"'tools[{index}].type' is '{clipped(tool.type)}'; only 'function' is served.",
                    f"tools[{index}].type",
                )
            shape = FunctionShape(
                name=tool.name, description=tool.description, parameters=tool.parameters
            )
            shapes.append((f"tools[{index}]", shape))
        choice = self.tool_choice
        if isinstance(choice, NamedResponseTool):
            choice = choice.name
        else:
            check_choice(choice, "tool_choice", TOOL_MODES)
        return tools_of(functions_of(shapes), choice or "auto", self.form())


def _turns(items: list[InputItem]) -> list[Turn]:
    """The turns that items mean; what the assistant said, thought and called in a row is one."""
    if len(items) > limits.MESSAGES_PER_REQUEST:
        raise bad_request(
            f"'input' has {len(items)} items; at most {limits.MESSAGES_PER_REQUEST} are taken.",
            "input",
        )
    turns: list[Turn] = []
    for index, item in enumerate(items):
        turn = _turn(item, f"input[{index}]")
        last = turns[-1] if turns else None
        # A message after calls is a turn of its own; thoughts and calls join what is before them.
        joins = turn.role == "assistant" and last is not None and last.role == "assistant"
        if joins and last is not None and (turn.calls or not (last.content or last.calls)):
            turns[-1] = replace(
                last,
                content=last.content + turn.content,
                calls=last.calls + turn.calls,
                reasoning=last.reasoning + turn.reasoning,
            )
        else:
            turns.append(turn)
    return turns


def _turn(item: InputItem, where: str) -> Turn:
    check_choice(
        item.type,
        f"{where}.type",
        ("message", "function_call", "function_call_output", "reasoning"),
    )
    if item.type == "message":
        if item.role not in ROLES:
            raise bad_request(
                f"'{where}.role' is '{clipped(item.role or '')}'; served are {', '.join(ROLES)}.",
                f"{where}.role",
            )
        return Turn(ROLES[item.role], _text(item.content, f"{where}.content"))
    if item.type == "function_call":
        call = checked_call(item.call_id, item.name, item.arguments, where)
        return Turn("assistant", "", calls=(call,))
    if item.type == "function_call_output":
        call_id = check_id(item.call_id, f"{where}.call_id")
        return Turn("tool", _text(item.output, f"{where}.output"), call_id=call_id)
    thoughts = item.content if isinstance(item.content, list) else item.summary or []
    text = text_of_parts(thoughts, f"{where}.content", ("reasoning_text", "summary_text"))
    return Turn("assistant", "", reasoning=text)


def _text(content: str | list[InputPart] | None, where: str) -> str:
    text = text_of_parts(content, where, _TEXTS)
    check_bytes(text, where, limits.PROMPT_BYTES)
    return text
