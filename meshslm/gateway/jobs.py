"""A request that was read and found good: the task it means, and how its answer is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from meshslm.api.decode import decode_body
from meshslm.api.openai_requests import ChatRequest, CompletionRequest
from meshslm.api.openai_responses import CompletionUsage, RouteInfo
from meshslm.gateway.events import ChatEvents, EventWriter, Head, TextEvents
from meshslm.gateway.translate import chat_task, completion_task
from meshslm.gateway.whole import Transcript, chat_answer, text_answer
from meshslm.wire.messages import TaskRequest

WholeAnswer = Callable[
    [Head, Sequence[Transcript], CompletionUsage, RouteInfo | None], msgspec.Struct
]

_chat_requests = msgspec.json.Decoder(ChatRequest)
_completion_requests = msgspec.json.Decoder(CompletionRequest)


@dataclass(frozen=True, slots=True)
class Job:
    """One completion to be answered."""

    request: TaskRequest
    stream: bool
    id_prefix: str
    events: Callable[[Head, int], EventWriter]
    """Makes the writer of its stream, for so many choices."""
    whole: WholeAnswer


def read_chat(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/chat/completions`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _chat_requests)
    asked.check()
    return Job(
        request=chat_task(asked, deadline_ms),
        stream=bool(asked.stream),
        id_prefix="chatcmpl-",
        events=partial(ChatEvents, include_usage=asked.include_usage),
        whole=chat_answer,
    )


def read_completion(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/completions`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _completion_requests)
    asked.check()
    echo = asked.text if asked.echo else ""
    return Job(
        request=completion_task(asked, deadline_ms),
        stream=bool(asked.stream),
        id_prefix="cmpl-",
        events=partial(TextEvents, include_usage=asked.include_usage, echo=echo),
        whole=partial(text_answer, echo=echo),
    )
