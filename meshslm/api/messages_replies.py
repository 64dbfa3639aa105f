"""What a client of Anthropic's Messages API gets. Fields that are always null there stay null here.

What is ours stands under `meshslm`.
"""

from __future__ import annotations

import msgspec

from meshslm.api.openai_responses import RouteInfo

PATH = "/v1/messages"

ERROR_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status; the rest are an `api_error`, or below 500 an `invalid_request_error`."""

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class TextBlock(msgspec.Struct, kw_only=True, tag="text"):
    """Text of the answer."""

    text: str


class ThinkingBlock(msgspec.Struct, kw_only=True, tag="thinking"):
    """What the model thought. The signature is empty: nothing here checks it."""

    thinking: str
    signature: str = ""


class ToolUseBlock(msgspec.Struct, kw_only=True, tag="tool_use"):
    """A call that the model asks for."""

    id: str
    name: str
    input: msgspec.Raw
    """A JSON object."""


class MessageUsage(msgspec.Struct, kw_only=True):
    """Token counts. `input_tokens` are those of the prompt that were not taken from a cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class MessageAnswer(msgspec.Struct, kw_only=True):
    """A whole answer, and what a stream begins with."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: str | None
    stop_sequence: str | None = None
    usage: MessageUsage
    meshslm: RouteInfo | None = None


class MessageError(msgspec.Struct, kw_only=True):
    """What went wrong."""

    type: str
    message: str


class MessageErrorEnvelope(msgspec.Struct, kw_only=True):
    """Body of every answer that is not 2xx, and the last event of a stream that broke off."""

    type: str = "error"
    error: MessageError


def message_error(status: int, message: str) -> MessageErrorEnvelope:
    """An error as this API tells it."""
    otherwise = "api_error" if status >= 500 else "invalid_request_error"
    kind = ERROR_TYPES.get(status, otherwise)
    return MessageErrorEnvelope(error=MessageError(type=kind, message=message))
