"""Logprobs of tokens in OpenAI's two shapes."""

from __future__ import annotations

from collections.abc import Sequence

from meshslm.api.openai_responses import (
    ChatLogprobs,
    ChatTokenLogprob,
    TextLogprobs,
    TopTokenLogprob,
)
from meshslm.wire.messages import TokenLogprob


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    """A list of objects, as chat completions have it."""
    return ChatLogprobs(
        content=[
            ChatTokenLogprob(
                token=token.text,
                logprob=token.logprob,
                bytes=list(token.raw),
                top_logprobs=[
                    TopTokenLogprob(token=top.text, logprob=top.logprob, bytes=list(top.raw))
                    for top in token.top
                ],
            )
            for token in tokens
        ]
    )


def text_logprobs(
    tokens: Sequence[TokenLogprob], offset: int = 0, *, prompted: bool = False
) -> TextLogprobs:
    """Parallel lists, as text completions have it; `offset` is the text's length before them.

    `prompted`: the first token is a prompt's, and follows nothing that would make it likely.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    with_top = any(token.top for token in tokens)
    return TextLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[
            None if prompted and place == 0 else token.logprob for place, token in enumerate(tokens)
        ],
        top_logprobs=[{top.text: top.logprob for top in token.top} for token in tokens]
        if with_top
        else None,
        text_offset=offsets,
    )
