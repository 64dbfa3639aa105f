"""Asking who would be asked: the request of `client.route`."""

from __future__ import annotations

from collections.abc import Sequence

from meshslm.client.asking import Asking, Message, RouteOptions, chat_body, posting


def routing(prompt: str | Sequence[Message], model: str, options: RouteOptions) -> Asking:
    """The request for an explanation."""
    said = {key: options[key] for key in ("strategy", "conversation", "private") if key in options}
    body: dict[str, object] = chat_body(prompt, model, {})
    if "max_tokens" in options:
        body["max_tokens"] = options["max_tokens"]
    if said:
        body["routing"] = said
    return posting("/mesh/route", body)
