"""What a client of the OpenAI API asks for: chat and text completions.

Fields that only concern OpenAI's own service (`store`, `metadata`) are taken and have no effect.
What else is known and not served is refused, see `api.asked`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.api.asked import (
    Asked,
    Thinking,
    check_budget,
    refuse_unserved,
)
from meshslm.api.conversation import Call, Turn, check_conversation, checked_call
from meshslm.api.decode import bad_request, clipped
from meshslm.api.fields import (
    LogprobCount,
    TokenCount,
    TokenId,
    check_bytes,
    check_choice,
    check_id,
    check_stops,
    refuse_if_set,
    text_of_parts,
)
from meshslm.api.forms import (
    TOOL_MODES,
    Form,
    Function,
    FunctionShape,
    ResponseFormat,
    Tools,
    ToolShape,
    form_of,
    functions_of,
    tools_of,
)
from meshslm.api.recall import RecallShape, check_recall

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""Roles of a turn, and what each means to a chat template. `developer` is OpenAI's newer word."""

COMPLETION_TOKENS = 16
"""`max_tokens` of a text completion that names none, as OpenAI has it."""

_ONLY_CHAT = (
    *("suffix", "response_format", "tools"),
    *("chat_template_kwargs", "enable_thinking", "thinking_budget"),
)

ChoiceCount = Annotated[int, Meta(ge=1, le=limits.CHOICES)]


class StreamOptions(msgspec.Struct, kw_only=True):
    """How a stream is told."""

    include_usage: bool | None = None


class ContentPart(msgspec.Struct, kw_only=True):
    """One part of a message. Only those of type `text` are served."""

    type: str
    text: str | None = None


class CalledShape(msgspec.Struct, kw_only=True):
    """The function of an earlier call; `arguments` is JSON text."""

    name: str | None = None
    arguments: str | None = None


class CallShape(msgspec.Struct, kw_only=True):
    """A call in an assistant's turn."""

    id: str | None = None
    type: str = "function"
    function: CalledShape | None = None


class ChatTurn(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[CallShape] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    function_call: Any = None
    audio: Any = None

    def turn(self, where: str) -> Turn:
        """What it means; raises `RequestFault` where it makes no sense."""
        if self.role not in ROLES:
            raise bad_request(
                f"'{where}.role' is '{clipped(self.role)}'; served are {', '.join(ROLES)}.",
                f"{where}.role",
            )
        for name in ("function_call", "audio"):
            refuse_if_set(f"{where}.{name}", getattr(self, name))
        check_bytes(self.name or "", f"{where}.name", limits.NAME_BYTES)
        check_bytes(self.reasoning_content or "", f"{where}.reasoning_content", limits.PROMPT_BYTES)
        self._check_role(where)
        calls = tuple(
            _call(call, f"{where}.tool_calls[{index}]")
            for index, call in enumerate(self.tool_calls or ())
        )
        content = self.content
        if content == []:
            raise bad_request(
                f"'{where}.content' is an empty list; give at least one text part.",
                f"{where}.content",
            )
        if content is None and calls:
            content = ""
        text = text_of_parts(content, f"{where}.content")
        check_bytes(text, f"{where}.content", limits.PROMPT_BYTES)
        return Turn(
            role=ROLES[self.role],
            content=text,
            name=self.name or "",
            calls=calls,
            call_id=self.tool_call_id or "",
            reasoning=self.reasoning_content or "",
        )

    def _check_role(self, where: str) -> None:
        if self.tool_calls and self.role != "assistant":
            raise bad_request(
                f"'{where}.tool_calls' belongs to an assistant's turn, not to one of "
                f"'{self.role}'.",
                f"{where}.tool_calls",
            )
        if self.role == "tool":
            check_id(self.tool_call_id, f"{where}.tool_call_id")
        elif self.tool_call_id:
            raise bad_request(
                f"'{where}.tool_call_id' belongs to a tool's turn, not to one of '{self.role}'.",
                f"{where}.tool_call_id",
            )


class NamedFunction(msgspec.Struct, kw_only=True):
    """The name in a choice among tools."""

    name: str


class NamedTool(msgspec.Struct, kw_only=True):
    """`tool_choice` that names a function."""

    type: Literal["function"]
    function: NamedFunction


class Completing(Asked, kw_only=True):
    """What is common to both kinds of completion, and to no other request."""

    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    n: ChoiceCount | None = None
    stop: str | list[str] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with an event that has the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_completing(self) -> None:
        """Raises `RequestFault` where these fields do not make sense."""
        self.check_asked()
        if self.stream_options is not None and not self.stream:
            raise bad_request(
                "'stream_options' is only allowed with 'stream': true.", "stream_options"
            )
        check_stops(self.stops, "stop")


class ChatRequest(Completing, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatTurn]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: LogprobCount | None = None
    tools: list[ToolShape] | None = None
    tool_choice: str | NamedTool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    memory: RecallShape | None = None
    conversation: str | None = None

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_completing()
        refuse_unserved(
            self, ("functions", "function_call", "audio", "prediction", "web_search_options")
        )
        if self.modalities not in (None, [], ["text"]):
            raise bad_request("'modalities' other than [\"text\"] are not supported.", "modalities")
        check_conversation(self.turns(), "messages")
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("'top_logprobs' needs 'logprobs': true.", "top_logprobs")
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise bad_request(
                f"'max_tokens' ({self.max_tokens}) and 'max_completion_tokens' "
                f"({self.max_completion_tokens}) disagree; give one of them.",
                "max_tokens",
            )
        check_budget(answers=self.n or 1, most=self.most, name="n")
        self.thinking()
        self.tool_use()
        check_recall(self.memory, self.conversation, self.n or 1)

    @property
    def most(self) -> int | None:
        """Tokens of one answer at most."""
        return self.max_completion_tokens or self.max_tokens

    def turns(self) -> list[Turn]:
        """The conversation; raises `RequestFault` where a turn makes no sense."""
        return [turn.turn(f"messages[{index}]") for index, turn in enumerate(self.messages)]

    def thinking(self) -> Thinking:
        """How to think; raises `RequestFault` where that is contradictory."""
        return self.thought(self.reasoning_effort, "reasoning_effort")

    def form(self) -> Form | None:
        """What form the answer must have; raises `RequestFault` where that makes no sense."""
        wanted = self.response_format or ResponseFormat(type="text")
        return form_of(wanted.type, wanted.json_schema, self.grammar, "response_format")

    def tool_use(self) -> Tools:
        """What may be called; raises `RequestFault` where that makes no sense."""
        choice = self.tool_choice
        if isinstance(choice, NamedTool):
            choice = choice.function.name
        else:
            check_choice(choice, "tool_choice", TOOL_MODES)
        return tools_of(_functions(self.tools or []), choice or "auto", self.form())


class CompletionRequest(Completing, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[str | TokenId | list[TokenId]]
    logprobs: LogprobCount | None = None
    echo: bool | None = None
    best_of: ChoiceCount | None = None
    suffix: str | None = None
    response_format: Any = None
    tools: Any = None

    @property
    def prompts(self) -> list[str]:
        """The prompts, once `check` has found them to be texts."""
        return [self.prompt] if isinstance(self.prompt, str) else [str(p) for p in self.prompt]

    @property
    def drawn(self) -> int:
        """Answers made of each prompt, of which the best `n` are given."""
        return self.best_of or self.n or 1

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_completing()
        refuse_unserved(self, _ONLY_CHAT)
        self._check_prompts()
        self._check_best_of()
        check_budget(
            answers=len(self.prompts) * self.drawn,
            most=self.max_tokens or COMPLETION_TOKENS,
            name="best_of" if self.best_of else "n",
        )

    def _check_prompts(self) -> None:
        given = self.prompt
        if not isinstance(given, str):
            if not given:
                raise bad_request("'prompt' is an empty list.", "prompt")
            if len(given) > limits.PROMPTS and isinstance(given[0], str):
                raise bad_request(
                    f"'prompt' has {len(given)} prompts; at most {limits.PROMPTS} are taken.",
                    "prompt",
                )
            if not all(isinstance(prompt, str) for prompt in given):
                raise bad_request(
                    "'prompt' has token ids, which are not supported; give texts.", "prompt"
                )
        for prompt in self.prompts:
            if not prompt:
                raise bad_request("'prompt' is empty.", "prompt")
        size = sum(len(prompt.encode()) for prompt in self.prompts)
        if size > limits.PROMPT_BYTES:
            raise bad_request(
                f"'prompt' is {size} bytes long; at most {limits.PROMPT_BYTES} are taken.", "prompt"
            )

    def _check_best_of(self) -> None:
        n = self.n or 1
        if self.best_of is None or self.best_of == n:
            return
        if self.best_of < n:
            raise bad_request(f"'best_of' ({self.best_of}) is less than 'n' ({n}).", "best_of")
        if self.stream:
            raise bad_request(
                "'best_of' above 'n' cannot be streamed: the best is known at the end.", "best_of"
            )
        if self.echo and self.logprobs is not None:
            raise bad_request(
                "'best_of' above 'n' cannot be combined with 'echo' and 'logprobs'.", "best_of"
            )


def _call(call: CallShape, where: str) -> Call:
    if call.type != "function":
        raise bad_request(
            f"'{where}.type' is '{clipped(call.type)}'; only 'function' is served.",
            f"{where}.type",
        )
    check_id(call.id, f"{where}.id")
    called = call.function or CalledShape()
    return checked_call(call.id, called.name, called.arguments, f"{where}.function")


def _functions(tools: list[ToolShape]) -> tuple[Function, ...]:
    shapes = []
    for index, tool in enumerate(tools):
        if tool.type != "function":
            raise bad_request(
                f"'tools[{index}].type' is '{clipped(tool.type)}'; only 'function' is served.",
                f"tools[{index}].type",
            )
        shapes.append((f"tools[{index}].function", tool.function or FunctionShape()))
    return functions_of(shapes)
