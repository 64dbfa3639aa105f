"""Reading requests for chat and text completions."""

from __future__ import annotations

from functools import partial

import msgspec

from meshslm.api.decode import decode_body
from meshslm.api.openai_requests import ChatRequest, CompletionRequest
from meshslm.gateway.events import ChatEvents, TextEvents
from meshslm.gateway.jobs import Job
from meshslm.gateway.translate import chat_task, completion_tasks
from meshslm.gateway.whole import ChatWhole, TextWhole

_chat_requests = msgspec.json.Decoder(ChatRequest)
_completion_requests = msgspec.json.Decoder(CompletionRequest)


def read_chat(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/chat/completions`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _chat_requests)
    asked.check()
    request = chat_task(asked, deadline_ms)
    events = partial(ChatEvents, choices=request.choices, include_usage=asked.include_usage)
    return Job(
        requests=(request,),
        id_prefix="chatcmpl-",
        whole=partial(ChatWhole, request.choices),
        events=events if asked.stream else None,
        recall=asked.memory,
        conversation=asked.conversation or "",
    )


def read_completion(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/completions`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _completion_requests)
    asked.check()
    requests = completion_tasks(asked, deadline_ms)
    prompted = requests[0].echo
    shown = asked.echo and not prompted
    echoes = [prompt if shown else "" for prompt in asked.prompts]
    events = partial(
        TextEvents,
        echoes=[echo for echo in echoes for _ in range(asked.drawn)],
        include_usage=asked.include_usage,
        prompted=prompted,
    )
    return Job(
        requests=requests,
        id_prefix="cmpl-",
        whole=partial(
            TextWhole,
            echoes,
            drawn=asked.drawn,
            given=asked.n or 1,
            logprobs=asked.logprobs is not None,
            prompted=prompted,
        ),
        events=events if asked.stream else None,
    )
