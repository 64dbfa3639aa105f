"""Whole answers, for clients that do not stream."""

from __future__ import annotations

from collections.abc import Sequence

from meshslm.api.openai_responses import (
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    CompletionUsage,
    RouteInfo,
    TextChoice,
    TextCompletion,
)
from meshslm.gateway.events import Head
from meshslm.gateway.logprobs import chat_logprobs, text_logprobs
from meshslm.wire.messages import Chunk, TokenLogprob


class Transcript:
    """What one choice has produced so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish = "stop"

    def add(self, chunk: Chunk) -> None:
        """Append a chunk of this choice."""
        self._texts.append(chunk.text)
        self.logprobs.extend(chunk.logprobs)
        if chunk.finish:
            self.finish = chunk.finish

    @property
    def text(self) -> str:
        """All its text."""
        return "".join(self._texts)


def chat_answer(
    head: Head, choices: Sequence[Transcript], usage: CompletionUsage, info: RouteInfo | None
) -> ChatCompletion:
    """The answer of a chat completion."""
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.fingerprint,
        choices=[
            ChatChoice(
                index=index,
                message=ChatAnswer(role="assistant", content=choice.text),
                logprobs=chat_logprobs(choice.logprobs) if choice.logprobs else None,
                finish_reason=choice.finish,
            )
            for index, choice in enumerate(choices)
        ],
        usage=usage,
        meshslm=info,
    )


def text_answer(
    head: Head,
    choices: Sequence[Transcript],
    usage: CompletionUsage,
    info: RouteInfo | None,
    *,
    echo: str = "",
) -> TextCompletion:
    """The answer of a text completion; `echo` goes before each choice."""
    return TextCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.fingerprint,
        choices=[
            TextChoice(
                text=echo + choice.text,
                index=index,
                logprobs=text_logprobs(choice.logprobs) if choice.logprobs else None,
                finish_reason=choice.finish,
            )
            for index, choice in enumerate(choices)
        ],
        usage=usage,
        meshslm=info,
    )
