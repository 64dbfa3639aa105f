"""What a client may ask for, and the HTTP request that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import msgspec

from meshslm.api.admin import LONGEST_MS

_MARGIN_S = 10.0
"""Waited beyond a request's deadline, so that the node's own words about it arrive."""

CONNECT_S = 5.0
"""A node that does not take a connection by then is not there."""


class Message(TypedDict):
    """One turn: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


class Options(TypedDict, total=False):
    """How an answer is made. What is left out, the specialist's profile decides."""

    system: str
    """Put before the messages as a system message."""
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    stop: str | list[str]
    logit_bias: dict[int, float]
    deadline_ms: int
    """Time for the whole answer; at most, and by default, ten minutes."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A completion request, ready to be sent."""

    body: bytes
    silence_s: float
    """How long to wait for the next byte of its answer."""


def asking(
    prompt: str | Sequence[Message], model: str, options: Options, *, stream: bool
) -> Asking:
    """The request for a chat completion; a text is one message of the user."""
    chosen: dict[str, object] = dict(options)
    messages = list(prompt) if not isinstance(prompt, str) else [_turn("user", prompt)]
    system = chosen.pop("system", None)
    if isinstance(system, str):
        messages.insert(0, _turn("system", system))
    body = {"model": model, "messages": messages, **chosen}
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    deadline_ms = options.get("deadline_ms", LONGEST_MS)
    return Asking(msgspec.json.encode(body), deadline_ms / 1000 + _MARGIN_S)


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}
