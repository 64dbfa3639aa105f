"""What a client of OpenAI's Responses API gets. What is ours stands under `meshslm`."""

from __future__ import annotations

from typing import Any

import msgspec

from meshslm.api.openai_responses import RouteInfo


class OutputText(msgspec.Struct, kw_only=True, tag="output_text"):
    """Text of the answer."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class ReasoningText(msgspec.Struct, kw_only=True, tag="reasoning_text"):
    """Text of a thought."""

    text: str


class OutputMessage(msgspec.Struct, kw_only=True, tag="message"):
    """What the model said."""

    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText]


class OutputReasoning(msgspec.Struct, kw_only=True, tag="reasoning"):
    """What the model thought."""

    id: str
    status: str
    summary: list[Any] = []
    content: list[ReasoningText]


class OutputCall(msgspec.Struct, kw_only=True, tag="function_call"):
    """A call that the model asks for. `arguments` is JSON text."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """Where prompt tokens came from."""

    cached_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, kw_only=True):
    """What tokens of the answer were spent on."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(msgspec.Struct, kw_only=True):
    """Why an answer is not whole."""

    reason: str


class ResponseError(msgspec.Struct, kw_only=True):
    """Why an answer broke off."""

    code: str
    message: str


class ResponseReply(msgspec.Struct, kw_only=True):
    """An answer, whole or under way, with what was asked for."""

    id: str
    object: str = "response"
    created_at: int
    status: str
    """`in_progress`, `completed`, `incomplete` or `failed`."""
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    parallel_tool_calls: bool
    tool_choice: Any
    tools: Any
    text: Any
    reasoning: Any
    truncation: str = "disabled"
    background: bool = False
    metadata: dict[str, str]
    user: str | None = None
    meshslm: RouteInfo | None = None


class ResponseDeleted(msgspec.Struct, kw_only=True):
    """Answer of `DELETE /v1/responses/{id}`."""

    id: str
    object: str = "response"
    deleted: bool = True
