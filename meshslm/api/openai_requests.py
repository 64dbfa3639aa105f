"""What a client of the OpenAI API asks for: chat and text completions.

Rules:
- A field that nobody knows is ignored, as clients send ever new ones. A known field that would
  change the answer and is not served is refused by name: silence would be a wrong answer.
- Fields that only concern OpenAI's own service (`store`, `metadata`, `user`, `service_tier`) are
  taken and have no effect.
- Bounds of single fields stand in their types; `check` methods hold those between fields.
- `None` means "not given" everywhere, because clients send explicit nulls.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.api.decode import bad_request, clipped

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of a turn, and what each means to a chat template. `developer` is OpenAI's newer word."""

COMPLETION_TOKENS = 16
"""`max_tokens` of a text completion that names none, as OpenAI has it."""

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
TokenCount = Annotated[int, Meta(ge=1, le=limits.MAX_TOKENS)]
LogprobCount = Annotated[int, Meta(ge=0, le=limits.TOP_LOGPROBS)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]


class StreamOptions(msgspec.Struct, kw_only=True):
    """How a stream is told."""

    include_usage: bool | None = None


class ContentPart(msgspec.Struct, kw_only=True):
    """One part of a message. Only those of type `text` are served."""

    type: str
    text: str | None = None


class ChatTurn(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class Asked(msgspec.Struct, kw_only=True):
    """What both kinds of request have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    n: Annotated[int, Meta(ge=1, le=limits.CHOICES)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    # Beyond OpenAI's: what servers of open models commonly take.
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    min_p: Probability | None = None
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=limits.DEADLINE_MS)] | None = None
    grammar: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """`logit_bias` with its keys as the token ids they stand for."""
        return tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with an event that has the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_asked(self) -> None:
        """Raises `RequestFault` where the common fields do not make sense."""
        _check_bytes(self.model, "model", 2 * limits.NAME_BYTES)
        if not self.model:
            raise bad_request("'model' is empty; 'auto' lets the mesh choose.", "model")
        if self.stream_options is not None and not self.stream:
            raise bad_request(
                "'stream_options' is only allowed with 'stream': true.", "stream_options"
            )
        _check_stops(self.stops)
        _check_biases(self.logit_bias or {})
        refuse_if_set("grammar", self.grammar)


class ChatRequest(Asked, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatTurn]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: LogprobCount | None = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_asked()
        self._check_unserved()
        if not self.messages:
            raise bad_request("'messages' is empty; at least one message is needed.", "messages")
        if len(self.messages) > limits.MESSAGES_PER_REQUEST:
            raise bad_request(
                f"'messages' has {len(self.messages)} messages; "
                f"at most {limits.MESSAGES_PER_REQUEST} are taken.",
                "messages",
            )
        for index, turn in enumerate(self.messages):
            _check_turn(turn, f"messages[{index}]")
        size = sum(len(content_text(turn).encode()) for turn in self.messages)
        if size > limits.PROMPT_BYTES:
            raise bad_request(
                f"'messages' have {size} bytes of text, all messages together; "
                f"at most {limits.PROMPT_BYTES} are taken.",
                "messages",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("'top_logprobs' needs 'logprobs': true.", "top_logprobs")
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise bad_request(
                f"'max_tokens' ({self.max_tokens}) and 'max_completion_tokens' "
                f"({self.max_completion_tokens}) disagree; give one of them.",
                "max_tokens",
            )

    def _check_unserved(self) -> None:
        for name in ("tools", "functions", "audio", "prediction", "web_search_options"):
            refuse_if_set(name, getattr(self, name))
        if self.tool_choice not in (None, "none", "auto"):  # no set: it may be an object
            refuse_if_set("tool_choice", self.tool_choice)
        if self.response_format not in (None, {"type": "text"}):
            raise bad_request(
                '\'response_format\' other than {"type": "text"} is not supported yet.',
                "response_format",
            )
        if self.modalities not in (None, [], ["text"]):
            raise bad_request("'modalities' other than [\"text\"] are not supported.", "modalities")


class CompletionRequest(Asked, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[Any]
    logprobs: LogprobCount | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def text(self) -> str:
        """The prompt, once `check` has found it to be one text."""
        return self.prompt if isinstance(self.prompt, str) else str(self.prompt[0])

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_asked()
        if isinstance(self.prompt, list) and (
            len(self.prompt) != 1 or not isinstance(self.prompt[0], str)
        ):
            raise bad_request(
                "'prompt' must be one text: lists of several prompts and of token ids "
                "are not supported.",
                "prompt",
            )
        if not self.text:
            raise bad_request("'prompt' is empty.", "prompt")
        _check_bytes(self.text, "prompt", limits.PROMPT_BYTES)
        refuse_if_set("suffix", self.suffix)
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise bad_request("'best_of' other than 'n' is not supported yet.", "best_of")
        if self.echo and self.logprobs is not None:
            raise bad_request("'echo' together with 'logprobs' is not supported yet.", "echo")


def content_text(turn: ChatTurn) -> str:
    """The text of a checked turn, its parts joined."""
    if isinstance(turn.content, str):
        return turn.content
    return "".join(part.text or "" for part in turn.content or ())


def refuse_if_set(name: str, value: object) -> None:
    """Raises `RequestFault` where a field that is not served asks for something."""
    if value not in (None, False, [], {}, ""):  # no set: it may be an object
        raise bad_request(f"'{name}' is not supported yet.", name)


def _check_turn(turn: ChatTurn, where: str) -> None:
    if turn.role not in ROLES:
        raise bad_request(
            f"'{where}.role' is '{clipped(turn.role)}'; served are {', '.join(ROLES)}.",
            f"{where}.role",
        )
    for name in ("tool_calls", "function_call", "audio"):
        refuse_if_set(f"{where}.{name}", getattr(turn, name))
    if turn.name is not None:
        _check_bytes(turn.name, f"{where}.name", limits.NAME_BYTES)
    if turn.content is None:
        raise bad_request(f"'{where}.content' is missing.", f"{where}.content")
    if isinstance(turn.content, list):
        _check_parts(turn.content, f"{where}.content")
    _check_bytes(content_text(turn), f"{where}.content", limits.PROMPT_BYTES)


def _check_parts(parts: list[ContentPart], where: str) -> None:
    if not parts:
        raise bad_request(f"'{where}' is an empty list; give at least one text part.", where)
    if len(parts) > limits.CONTENT_PARTS:
        raise bad_request(
            f"'{where}' has {len(parts)} parts; at most {limits.CONTENT_PARTS} are taken.", where
        )
    for index, part in enumerate(parts):
        if part.type != "text":
            raise bad_request(
                f"'{where}[{index}]' is of type '{clipped(part.type)}'; "
                "the models here read only 'text'.",
                f"{where}[{index}].type",
            )
        if part.text is None:
            raise bad_request(f"'{where}[{index}].text' is missing.", f"{where}[{index}].text")


def _check_stops(stops: tuple[str, ...]) -> None:
    if len(stops) > limits.STOPS:
        raise bad_request(
            f"'stop' has {len(stops)} strings; at most {limits.STOPS} are taken.", "stop"
        )
    for stop in stops:
        if not stop:
            raise bad_request("'stop' has an empty string, which would stop at once.", "stop")
        _check_bytes(stop, "stop", limits.STOP_BYTES)


def _check_biases(biases: dict[str, float]) -> None:
    if len(biases) > limits.LOGIT_BIASES:
        raise bad_request(
            f"'logit_bias' has {len(biases)} tokens; at most {limits.LOGIT_BIASES} are taken.",
            "logit_bias",
        )
    for token in biases:
        if not (token.isascii() and token.isdigit() and len(token) <= 10 and int(token) < 2**31):
            raise bad_request(
                f"'logit_bias' has the key '{clipped(token)}'; keys are token ids from 0.",
                "logit_bias",
            )


def _check_bytes(text: str, name: str, most: int) -> None:
    # A character is at most four bytes, so the cheap test decides nearly always.
    if len(text) * 4 <= most:
        return
    size = len(text.encode())
    if size > most:
        raise bad_request(f"'{name}' is {size} bytes long; at most {most} are taken.", name)
