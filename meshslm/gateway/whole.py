"""Whole answers of chat and text completions, for clients that do not stream."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from meshslm.api.openai_responses import (
    CalledFunction,
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    RouteInfo,
    TextChoice,
    TextCompletion,
    ToolCall,
)
from meshslm.gateway.jobs import Head
from meshslm.gateway.logprobs import chat_logprobs, text_logprobs
from meshslm.gateway.told import usage_shape
from meshslm.gateway.transcript import Transcript
from meshslm.wire.messages import Chunk, TokenLogprob, Usage


class ChatWhole:
    """The answer of a chat completion."""

    def __init__(self, choices: int) -> None:
        self._choices = [Transcript() for _ in range(choices)]

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._choices[chunk.choice].add(chunk)

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> ChatCompletion:
        """The whole answer."""
        thought = sum(choice.thoughts.tokens for choice in self._choices)
        return ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=head.fingerprint,
            choices=[
                ChatChoice(
                    index=index,
                    message=_message(choice),
                    logprobs=chat_logprobs(choice.logprobs) if choice.logprobs else None,
                    finish_reason=choice.finish,
                )
                for index, choice in enumerate(self._choices)
            ],
            usage=usage_shape(usage, thought),
            meshslm=info,
        )


def _message(choice: Transcript) -> ChatAnswer:
    calls = [
        ToolCall(id=call.id, function=CalledFunction(name=call.name, arguments=call.text))
        for call in choice.of_kind("call")
    ]
    return ChatAnswer(
        role="assistant",
        # OpenAI has null beside calls: there is nothing to show.
        content=None if calls and not choice.text else choice.text,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=calls or UNSET,
    )


class TextWhole:
    """The answer of a text completion. `echoes` go before the choices of the prompts, one each.

    Of each prompt `drawn` choices are made, and the best `given` of them are in the answer.
    """

    def __init__(
        self,
        echoes: Sequence[str],
        *,
        drawn: int = 1,
        given: int = 1,
        logprobs: bool = True,
        prompted: bool = False,
    ) -> None:
        self._echoes = echoes
        self._drawn = drawn
        self._given = given
        self._logprobs = logprobs
        self._prompted = prompted
        self._choices = [Transcript() for _ in range(len(echoes) * drawn)]

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._choices[chunk.choice].add(chunk)

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> TextCompletion:
        """The whole answer."""
        choices: list[TextChoice] = []
        for number, echo in enumerate(self._echoes):
            of_prompt = self._choices[number * self._drawn : (number + 1) * self._drawn]
            for choice in best(of_prompt, self._given):
                told = self._logprobs and bool(choice.logprobs)
                choices.append(
                    TextChoice(
                        text=echo + choice.text,
                        index=len(choices),
                        logprobs=text_logprobs(choice.logprobs, prompted=self._prompted)
                        if told
                        else None,
                        finish_reason=choice.finish,
                    )
                )
        return TextCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=head.fingerprint,
            choices=choices,
            usage=usage_shape(usage),
            meshslm=info,
        )


def best(choices: Sequence[Transcript], count: int) -> Sequence[Transcript]:
    """The `count` choices whose tokens were likeliest on average, the best first."""
    if count == len(choices):
        return choices
    return sorted(choices, key=lambda choice: mean_logprob(choice.logprobs), reverse=True)[:count]


def mean_logprob(tokens: Sequence[TokenLogprob]) -> float:
    """How likely a token was on average; an answer without tokens is the least likely."""
    if not tokens:
        return float("-inf")
    return sum(token.logprob for token in tokens) / len(tokens)
