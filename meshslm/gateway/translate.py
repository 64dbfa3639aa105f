"""From what a client asked for in OpenAI's words to the task that the mesh runs. Pure.

Rules:
- The request was checked (`check()`), so nothing here can fail.
- `None` stays `None`: the specialist's profile decides what the client left open.
"""

from __future__ import annotations

from meshslm.api.openai_requests import (
    COMPLETION_TOKENS,
    ROLES,
    Asked,
    ChatRequest,
    CompletionRequest,
    content_text,
)
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest, TokenBias


def chat_task(asked: ChatRequest, deadline_ms: int) -> TaskRequest:
    """The task of a chat completion; `deadline_ms` where it names none."""
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    return TaskRequest(
        selector=asked.model,
        messages=tuple(
            ChatMessage(role=ROLES[turn.role], content=content_text(turn), name=turn.name or "")
            for turn in asked.messages
        ),
        max_tokens=asked.max_completion_tokens or asked.max_tokens or 0,
        stop=asked.stops,
        choices=asked.n or 1,
        sampling=_sampling(asked),
        logprobs=logprobs,
        deadline_ms=asked.deadline_ms or deadline_ms,
    )


def completion_task(asked: CompletionRequest, deadline_ms: int) -> TaskRequest:
    """The task of a text completion; `deadline_ms` where it names none."""
    return TaskRequest(
        selector=asked.model,
        prompt=asked.text,
        max_tokens=asked.max_tokens or COMPLETION_TOKENS,
        stop=asked.stops,
        choices=asked.n or 1,
        sampling=_sampling(asked),
        logprobs=asked.logprobs,
        deadline_ms=asked.deadline_ms or deadline_ms,
    )


def _sampling(asked: Asked) -> Sampling:
    return Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        repeat_penalty=asked.repeat_penalty,
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        seed=asked.seed,
        logit_bias=tuple(TokenBias(token=token, bias=bias) for token, bias in asked.biases),
    )
