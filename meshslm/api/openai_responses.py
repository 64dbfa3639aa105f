"""What a client of the OpenAI API gets: whole answers, stream events, models.

Rules:
- OpenAI's fields have OpenAI's names, types and nulls. What is ours stands under `meshslm`.
- The gateway writes stream events by hand (one per token, see `gateway.events`); a test reads them
  back through these shapes.
"""

from __future__ import annotations

import msgspec

from meshslm.api.recall import Citation

# --- shared -------------------------------------------------------------------------------------


class PromptTokensDetails(msgspec.Struct, kw_only=True):
    """Where prompt tokens came from."""

    cached_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct, kw_only=True):
    """What completion tokens were spent on, and how many guesses at them were right and wrong.

    Guesses are never part of the answer unless they were right; wrong ones only took time.
    """

    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(msgspec.Struct, kw_only=True):
    """Token counts over all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = msgspec.field(default_factory=PromptTokensDetails)
    completion_tokens_details: CompletionTokensDetails = msgspec.field(
        default_factory=CompletionTokensDetails
    )


class CascadeStep(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step of an answer that was made in steps."""

    profile: str
    model: str
    confidence: float | None = None
    """0..1; missing where nothing was judged: it failed, or was the last step."""
    why_not: str = ""
    """Why its answer was not given without asking on; empty where it was."""
    tokens: int = 0
    """Of prompt and answer, where it was judged."""


class CascadeInfo(msgspec.Struct, kw_only=True):
    """Who was asked for an answer in steps, and what that saved."""

    steps: list[CascadeStep]
    escalations: int
    """Steps that were not good enough."""
    saved_tokens: int
    """Which the largest model did not have to compute."""


class RouteInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Who answered, why, and where the time went. Durations in milliseconds.

    `queue_ms`, `prefill_ms` and `decode_ms` are the serving node's; `ttft_ms` is from the arrival
    of the request at the gateway to the first token there.
    """

    node: str
    node_name: str
    model: str
    profile: str
    route: str
    attempts: int
    continued: str = ""
    """How it went on when its node went: in `tokens`, as that one would have, or in `text`."""
    ttft_ms: float | None = None
    queue_ms: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None
    memory: list[Citation] = []
    """What of shared memory was put into the prompt."""
    cascade: CascadeInfo | None = None
    """Where it was answered in steps."""


class Completion(msgspec.Struct, kw_only=True):
    """What whole answers and events of streams have around their choices."""

    id: str
    created: int
    model: str
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None
    meshslm: RouteInfo | None = None


# --- chat ---------------------------------------------------------------------------------------
class TopTokenLogprob(msgspec.Struct, kw_only=True):
    """One of the likeliest tokens at a position."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(msgspec.Struct, kw_only=True):
    """The chosen token at a position."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopTokenLogprob]


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """Logprobs of a choice, or of the new part of it."""

    content: list[ChatTokenLogprob] | None
    refusal: None = None


class CalledFunction(msgspec.Struct, kw_only=True):
    """What is to be called. `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, kw_only=True):
    """A call that the model asks for."""

    id: str
    type: str = "function"
    function: CalledFunction


class ChatAnswer(msgspec.Struct, kw_only=True):
    """The message that was generated."""

    role: str
    content: str | None
    refusal: str | None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    """What the model thought; as other servers of models that think have it."""
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    """One of `n` answers."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None


class ChatCompletion(Completion, kw_only=True):
    """A whole answer."""

    object: str = "chat.completion"
    choices: list[ChatChoice]


class FunctionDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is new in a call: first its name, then pieces of its arguments."""

    name: str | None = None
    arguments: str = ""


class ToolCallDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is new in one of the calls; id and type come with its first piece."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionDelta = msgspec.field(default_factory=FunctionDelta)


class ChatDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is new in a message."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] = []


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    """What is new in one of `n` answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatChunk(Completion, kw_only=True):
    """One event of a stream."""

    object: str = "chat.completion.chunk"
    choices: list[ChatChunkChoice]


# --- text completions ---------------------------------------------------------------------------
class TextLogprobs(msgspec.Struct, kw_only=True):
    """Logprobs of a choice in the older form: parallel lists."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """`None` of a text's very first token, which follows nothing."""
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(msgspec.Struct, kw_only=True):
    """One of `n` answers, or what is new in it."""

    text: str
    index: int
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None


class TextCompletion(Completion, kw_only=True):
    """A whole answer, or one event of a stream."""

    object: str = "text_completion"
    choices: list[TextChoice]


# --- models -------------------------------------------------------------------------------------
class ModelHost(msgspec.Struct, kw_only=True):
    """A node that answers for a model name."""

    node: str
    node_name: str
    profile: str
    model: str
    ready: bool
    context: int
    quantisation: str
    slots: int
    operations: list[str] = msgspec.field(default_factory=lambda: ["generate"])
    """What it can be asked for: `generate`, `embed`, `rerank`, `tokenize`, ..."""


class ModelInfo(msgspec.Struct, kw_only=True):
    """What a name stands for in this mesh."""

    kind: str
    """`auto`, `domain`, `profile` or `model`."""
    hosts: list[ModelHost]


class Model(msgspec.Struct, kw_only=True):
    """Something that `model` of a request may be."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    meshslm: ModelInfo | None = None


class ModelList(msgspec.Struct, kw_only=True):
    """Answer of `GET /v1/models`."""

    object: str = "list"
    data: list[Model]
