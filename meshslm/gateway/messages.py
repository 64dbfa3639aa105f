"""Anthropic's Messages API: reading its requests, telling answers as it does.

Rules:
- Blocks have the numbers under which they began; a block ends before the next begins.
- What a stream begins with has no token counts: they are known at its end, where Anthropic's
  clients take them over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import msgspec

from meshslm.api import sse
from meshslm.api.decode import decode_body
from meshslm.api.faults import HTTP_FAULTS
from meshslm.api.messages_replies import (
    STOP_REASONS,
    MessageAnswer,
    MessageUsage,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    message_error,
)
from meshslm.api.messages_request import MessageRequest
from meshslm.api.openai_responses import RouteInfo
from meshslm.errors import RequestFault
from meshslm.gateway.jobs import Head, Job
from meshslm.gateway.transcript import Begun, Block, Ended, Grown, Step, Transcript
from meshslm.gateway.translate import conversation_task
from meshslm.wire.messages import Chunk, Usage

AnyBlock: TypeAlias = TextBlock | ThinkingBlock | ToolUseBlock

_requests = msgspec.json.Decoder(MessageRequest)
_DELTAS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def read_message(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/messages`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _requests)
    asked.check()
    request = conversation_task(
        asked,
        asked.turns(),
        deadline_ms,
        thinking=asked.thought_through(),
        form=asked.form(),
        tools=asked.tool_use(),
    )
    request = replace(
        request,
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop_sequences or ()),
        parallel_calls=request.parallel_calls if asked.parallel is None else asked.parallel,
    )
    return Job(
        requests=(request,),
        id_prefix="msg_",
        whole=MessageWhole,
        events=MessageEvents if asked.stream else None,
    )


class MessageWhole:
    """A whole answer."""

    def __init__(self) -> None:
        self._transcript = Transcript()

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._transcript.add(chunk)

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> MessageAnswer:
        """The whole answer."""
        return MessageAnswer(
            id=head.id,
            model=head.model,
            content=[_block(block) for block in self._transcript.blocks],
            stop_reason=_stop_reason(self._transcript),
            stop_sequence=self._transcript.stopped or None,
            usage=_usage(usage),
            meshslm=info,
        )


class MessageEvents:
    """The events of a stream."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._transcript = Transcript()
        self._begun = False

    def chunk(self, chunk: Chunk) -> bytes:
        """The beginning of the answer, and what its blocks go through."""
        steps = self._transcript.add(chunk)
        return self._beginning() + b"".join(map(_step_event, steps))

    def end(self, usage: Usage, info: RouteInfo | None) -> bytes:
        """The end of the last block and of the answer."""
        events = self._beginning() + b"".join(map(_step_event, self._transcript.end()))
        delta = {
            "delta": {
                "stop_reason": _stop_reason(self._transcript),
                "stop_sequence": self._transcript.stopped or None,
            },
            "usage": _usage(usage),
            "meshslm": info,
        }
        return events + sse.typed_event("message_delta", delta) + sse.typed_event("message_stop")

    def fail(self, fault: RequestFault) -> bytes:
        """What went wrong."""
        told = message_error(HTTP_FAULTS[fault.code].status, fault.detail)
        return sse.typed_event("error", {"error": told.error})

    def _beginning(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message = MessageAnswer(
            id=self._head.id,
            model=self._head.model,
            content=[],
            stop_reason=None,
            usage=MessageUsage(),
        )
        return sse.typed_event("message_start", {"message": message})


def _step_event(step: Step) -> bytes:
    index = step.block.number
    match step:
        case Begun(block):
            shape = {"index": index, "content_block": _block(block)}
            return sse.typed_event("content_block_start", shape)
        case Grown(block, text):
            kind, field = _DELTAS[block.kind]
            delta = {"type": kind, field: text}
            return sse.typed_event("content_block_delta", {"index": index, "delta": delta})
        case Ended():
            return sse.typed_event("content_block_stop", {"index": index})


def _block(block: Block) -> AnyBlock:
    match block.kind:
        case "text":
            return TextBlock(text=block.text)
        case "reasoning":
            return ThinkingBlock(thinking=block.text)
        case "call":
            return ToolUseBlock(id=block.id, name=block.name, input=_arguments(block.text))


def _arguments(text: str) -> msgspec.Raw:
    """Arguments as an object; an empty one where the answer was cut off within them."""
    try:
        whole = isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        whole = False
    return msgspec.Raw(text.encode() if whole else b"{}")


def _stop_reason(transcript: Transcript) -> str:
    if transcript.stopped:
        return "stop_sequence"
    return STOP_REASONS.get(transcript.finish, "end_turn")


def _usage(usage: Usage) -> MessageUsage:
    return MessageUsage(
        input_tokens=max(0, usage.prompt_tokens - usage.cached_tokens),
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=usage.cached_tokens,
    )
