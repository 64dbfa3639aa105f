"""What a client of Anthropic's Messages API asks for.

Rules:
- `max_tokens` is required, and no `thinking` means not to think: so it is with Anthropic.
- Marks for caching (`cache_control`) are taken and have no effect: prefixes are cached anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.api.asked import Asked, Thinking, refuse_unserved
from meshslm.api.conversation import Call, Turn, check_conversation, checked_call
from meshslm.api.decode import bad_request, clipped
from meshslm.api.fields import (
    TokenCount,
    check_bytes,
    check_id,
    check_stops,
    json_text,
    text_of_parts,
)
from meshslm.api.forms import Form, FunctionShape, Tools, form_of, functions_of, tools_of

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TOOL_TYPES = (None, "custom")


class TextPart(msgspec.Struct, kw_only=True):
    """A part of a system prompt or of a tool's result."""

    type: str
    text: str | None = None


class ContentBlock(msgspec.Struct, kw_only=True):
    """A part of a turn, of any type: which fields it must have depends on the type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[TextPart] | None = None


class MessageTurn(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: str | list[ContentBlock]

    def turns(self, where: str) -> Iterator[Turn]:
        """The turns it means: results of tools are turns of their own, before the rest.

        Raises `RequestFault` where a block makes no sense.
        """
        if isinstance(self.content, str):
            check_bytes(self.content, f"{where}.content", limits.PROMPT_BYTES)
            yield Turn(self.role, self.content)
            return
        if len(self.content) > limits.CONTENT_PARTS:
            raise bad_request(
                f"'{where}.content' has {len(self.content)} parts; "
                f"at most {limits.CONTENT_PARTS} are taken.",
                f"{where}.content",
            )
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Call] = []
        results = 0
        for index, block in enumerate(self.content):
            at = f"{where}.content[{index}]"
            kind = f"{self.role}/{block.type}"
            if block.type == "text":
                texts.append(_required(block.text, f"{at}.text"))
            elif kind == "user/tool_result":
                results += 1
                yield _result(block, at)
            elif kind == "assistant/tool_use":
                arguments = json_text(block.input or {}, f"{at}.input", limits.PROMPT_BYTES)
                calls.append(checked_call(block.id, block.name, arguments, at))
            elif kind == "assistant/thinking":
                thoughts.append(_required(block.thinking, f"{at}.thinking"))
            elif kind != "assistant/redacted_thinking":
                raise bad_request(
                    f"'{at}' is of type '{clipped(block.type)}', which is not served in a turn of "
                    f"'{self.role}'.",
                    f"{at}.type",
                )
        if texts or thoughts or calls or not results:
            text = "".join(texts)
            check_bytes(text, f"{where}.content", limits.PROMPT_BYTES)
            yield Turn(self.role, text, calls=tuple(calls), reasoning="".join(thoughts))


class MessageTool(msgspec.Struct, kw_only=True):
    """One of `tools`."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class MessageToolChoice(msgspec.Struct, kw_only=True):
    """Which tool is to be called."""

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessageThinking(msgspec.Struct, kw_only=True):
    """Whether and how long to think."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1, le=limits.MAX_TOKENS)] | None = None


class MessageMetadata(msgspec.Struct, kw_only=True):
    """On whose behalf."""

    user_id: str | None = None


class MessageRequest(Asked, kw_only=True):
    """Body of `POST /v1/messages`."""

    max_tokens: TokenCount
    messages: list[MessageTurn]
    system: str | list[TextPart] | None = None
    stop_sequences: list[str] | None = None
    tools: list[MessageTool] | None = None
    tool_choice: MessageToolChoice | None = None
    thinking: MessageThinking | None = None
    metadata: MessageMetadata | None = None
    mcp_servers: Any = None
    container: Any = None

    @property
    def behalf(self) -> str:
        """Whom the client asks for; empty where it does not say."""
        return (self.metadata and self.metadata.user_id) or self.user or ""

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_asked()
        refuse_unserved(self, ("mcp_servers", "container"))
        check_stops(tuple(self.stop_sequences or ()), "stop_sequences")
        check_conversation(self.turns(), "messages")
        self.thought_through()
        self.tool_use()

    def turns(self) -> list[Turn]:
        """The conversation; raises `RequestFault` where a turn makes no sense."""
        turns = []
        if self.system:
            system = text_of_parts(self.system, "system")
            check_bytes(system, "system", limits.PROMPT_BYTES)
            turns.append(Turn("system", system))
        for index, message in enumerate(self.messages):
            turns += message.turns(f"messages[{index}]")
        if turns and turns[-1].role == "assistant":
            raise bad_request(
                "The last message is the assistant's: an answer cannot be begun for it here.",
                "messages",
            )
        return turns if self.messages else []

    def thought_through(self) -> Thinking:
        """How to think; raises `RequestFault` where that is contradictory."""
        asked = self.thought(None, "reasoning_effort")
        if self.thinking is None:
            return asked if asked != Thinking() else Thinking(on=False)
        if asked != Thinking():
            raise bad_request("'thinking' and 'enable_thinking' are both given.", "thinking")
        if self.thinking.type == "disabled":
            if self.thinking.budget_tokens is not None:
                raise bad_request(
                    "'thinking' is disabled, and has a budget.", "thinking.budget_tokens"
                )
            return Thinking(on=False)
        budget = self.thinking.budget_tokens
        if budget is not None and budget >= self.max_tokens:
            raise bad_request(
                f"'thinking.budget_tokens' ({budget}) leaves no room for an answer in "
                f"'max_tokens' ({self.max_tokens}).",
                "thinking.budget_tokens",
            )
        return Thinking(on=True, tokens=budget)

    def form(self) -> Form | None:
        """What form the answer must have."""
        return form_of(None, None, self.grammar, "grammar")

    def tool_use(self) -> Tools:
        """What may be called; raises `RequestFault` where that makes no sense."""
        shapes = []
        for index, tool in enumerate(self.tools or ()):
            if tool.type not in _TOOL_TYPES:
                raise bad_request(
                    f"'tools[{index}].type' is '{clipped(tool.type or '')}'; only tools of one's "
                    "own are served.",
                    f"tools[{index}].type",
                )
            shape = FunctionShape(
                name=tool.name, description=tool.description, parameters=tool.input_schema
            )
            shapes.append((f"tools[{index}]", shape))
        choice = self.tool_choice or MessageToolChoice(type="auto")
        wanted = _CHOICES.get(choice.type) or choice.name
        if wanted is None:
            raise bad_request("'tool_choice.name' is missing.", "tool_choice.name")
        return tools_of(functions_of(shapes), wanted, self.form())

    @property
    def parallel(self) -> bool | None:
        """Whether several tools may be called at once."""
        if self.tool_choice is None or self.tool_choice.disable_parallel_tool_use is None:
            return None
        return not self.tool_choice.disable_parallel_tool_use


def _result(block: ContentBlock, at: str) -> Turn:
    call = check_id(block.tool_use_id, f"{at}.tool_use_id")
    text = text_of_parts("" if block.content is None else block.content, f"{at}.content")
    check_bytes(text, f"{at}.content", limits.PROMPT_BYTES)
    return Turn("tool", text, call_id=call)


def _required(text: str | None, where: str) -> str:
    if text is None:
        raise bad_request(f"'{where}' is missing.", where)
    return text
