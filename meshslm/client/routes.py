"""Asking who would be asked: the request of `client.route`."""

from __future__ import annotations

from collections.abc import Sequence

from meshslm.client.asking import Asking, Message, RouteOptions, chat_body, posting


def routing(prompt: str | Sequence[Message], model: str, options: RouteOptions) -> Asking:
    """The request for an explanation."""
    said: dict[str, object] = dict(options)
    most = said.pop("max_tokens", None)
    body: dict[str, object] = chat_body(prompt, model, {})
    if most is not None:
        body["max_tokens"] = most
    if said:
        body["routing"] = said
    return posting("/mesh/route", body)
