"""From what a client asked for to the task that the mesh runs. Pure.

Rules:
- The request was checked (`check()`), so nothing here can fail.
- `None` stays `None`: the specialist's profile decides what the client left open.
- Whom a client asks for leaves this node only as a hash: peers need to tell tenants apart, not to
  know them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from meshslm.api.asked import Asked, Thinking, Wanted
from meshslm.api.conversation import Turn
from meshslm.api.forms import Form, Tools
from meshslm.api.openai_requests import COMPLETION_TOKENS, ChatRequest, CompletionRequest
from meshslm.api.routing import RoutingShape
from meshslm.wire.messages import (
    ChatMessage,
    Constraint,
    Sampling,
    TaskRequest,
    TokenBias,
    Tool,
    ToolCall,
)
from meshslm.wire.routing import Routing


def task_of(asked: Wanted, deadline_ms: int) -> TaskRequest:
    """A task without its subject; `deadline_ms` where the request names none."""
    return TaskRequest(
        selector=asked.model,
        deadline_ms=asked.deadline_ms or deadline_ms,
        priority=asked.urgency,
        tenant=tenant(asked.behalf),
        routing=routing_of(asked.routing or RoutingShape()),
    )


def routing_of(shape: RoutingShape) -> Routing:
    """How a client wants to be routed; the name of its conversation only as a hash."""
    return Routing(
        shape.strategy or "",
        tenant(shape.conversation or ""),
        bool(shape.private),
        bool(shape.cascade),
    )


def conversation_task(
    asked: Asked,
    turns: Iterable[Turn],
    deadline_ms: int,
    *,
    thinking: Thinking,
    form: Form | None,
    tools: Tools,
) -> TaskRequest:
    """The task of a conversation, whichever family of requests it came in."""
    parallel = asked.parallel_tool_calls
    return replace(
        task_of(asked, deadline_ms),
        messages=tuple(map(message_of, turns)),
        sampling=sampling_of(asked),
        adapter=asked.adapter or "",
        constraint=None if form is None else Constraint(form.kind, form.text),
        tools=tuple(Tool(f.name, f.description, f.parameters) for f in tools.functions),
        tool_choice=tools.choice,
        parallel_calls=True if parallel is None else parallel,
        thinking=thinking.on,
        thinking_tokens=thinking.tokens,
        reasoning_effort=thinking.effort,
    )


def chat_task(asked: ChatRequest, deadline_ms: int) -> TaskRequest:
    """The task of a chat completion; `deadline_ms` where it names none."""
    conversation = conversation_task(
        asked,
        asked.turns(),
        deadline_ms,
        thinking=asked.thinking(),
        form=asked.form(),
        tools=asked.tool_use(),
    )
    return replace(
        conversation,
        max_tokens=asked.most or 0,
        stop=asked.stops,
        choices=asked.n or 1,
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )


def completion_tasks(asked: CompletionRequest, deadline_ms: int) -> tuple[TaskRequest, ...]:
    """The tasks of a text completion, one for each prompt; `deadline_ms` where it names none."""
    ranked = asked.drawn > (asked.n or 1)
    task = replace(
        task_of(asked, deadline_ms),
        max_tokens=asked.max_tokens or COMPLETION_TOKENS,
        stop=asked.stops,
        choices=asked.drawn,
        sampling=sampling_of(asked),
        logprobs=0 if ranked and asked.logprobs is None else asked.logprobs,
        constraint=Constraint("gbnf", asked.grammar) if asked.grammar else None,
        adapter=asked.adapter or "",
        # A prompt without its tokens is put before the answer here, where it is already.
        echo=bool(asked.echo) and asked.logprobs is not None,
    )
    return tuple(replace(task, prompt=prompt) for prompt in asked.prompts)


def sampling_of(asked: Asked) -> Sampling:
    """How tokens are to be chosen."""
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


def message_of(turn: Turn) -> ChatMessage:
    """A turn as nodes exchange it."""
    return ChatMessage(
        role=turn.role,
        content=turn.content,
        name=turn.name,
        calls=tuple(ToolCall(call.id, call.name, call.arguments) for call in turn.calls),
        call_id=turn.call_id,
        reasoning=turn.reasoning,
    )


def tenant(behalf: str) -> str:
    """A name for whom a client asks for, the same on every node."""
    return hashlib.sha256(behalf.encode()).hexdigest()[:32] if behalf else ""
