"""Stream events, written by hand: this runs once per token.

All that stays the same in the events of a choice is encoded once, when its stream begins; a token
then costs one JSON string and one concatenation. `api.openai_responses` has the shapes, and a test
reads these bytes back through them.

Rules:
- A choice begins with an event that has its role and empty text, as OpenAI's streams do.
- The event with `finish_reason` has no text.
- With `include_usage` every event has `usage`: null until the last one, which has no choices.
- A stream that broke off ends with an event `error` and without `[DONE]`, which means "whole":
  OpenAI's clients raise `APIError` on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import msgspec

from meshslm.api import sse
from meshslm.api.faults import envelope
from meshslm.api.openai_responses import ChatChunk, RouteInfo, TextCompletion
from meshslm.errors import RequestFault
from meshslm.gateway.jobs import Head
from meshslm.gateway.logprobs import chat_logprobs, text_logprobs
from meshslm.gateway.told import usage_shape
from meshslm.gateway.transcript import Thoughts
from meshslm.wire.messages import CallPiece, Chunk, Usage

_Shape: TypeAlias = type[ChatChunk | TextCompletion]

_encode = msgspec.json.Encoder().encode


class _Events:
    """What streams of both kinds have in common: each event is of one choice, or the last."""

    kind: ClassVar[str]
    field: ClassVar[bytes]
    """What is new in a choice stands under this name, ..."""
    nothing: ClassVar[bytes]
    """... and so where there is nothing new."""
    shape: ClassVar[_Shape]

    def __init__(self, head: Head, choices: int, *, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        before = _opening(head, self.kind)
        self._before = [b'%s%d,"%s":' % (before, index, self.field) for index in range(choices)]
        self._after = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._plain = b',"logprobs":null,"finish_reason":null' + self._after

    def _with_logprobs(self, index: int, new: bytes, logprobs: object) -> bytes:
        return b'%s%s,"logprobs":%s,"finish_reason":null%s' % (
            self._before[index],
            new,
            sse.one_line(_encode(logprobs)),
            self._after,
        )

    def _finish(self, index: int, finish: str) -> bytes:
        return b'%s%s,"logprobs":null,"finish_reason":%s%s' % (
            self._before[index],
            self.nothing,
            _encode(finish),
            self._after,
        )

    def _thought(self) -> int:
        """Tokens spent on thinking so far."""
        return 0

    def end(self, usage: Usage, info: RouteInfo | None) -> bytes:
        """Token counts, if asked for, and the mark of a whole stream."""
        if not self._include_usage:
            return sse.DONE_EVENT
        last = self.shape(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=[],
            usage=usage_shape(usage, self._thought()),
            meshslm=info,
        )
        return sse.event(last) + sse.DONE_EVENT

    def fail(self, fault: RequestFault) -> bytes:
        """What went wrong."""
        return sse.event(envelope(fault))


class ChatEvents(_Events):
    """Events of a chat completion."""

    kind = "chat.completion.chunk"
    field = b"delta"
    nothing = b"{}"
    shape: ClassVar[_Shape] = ChatChunk

    def __init__(self, head: Head, choices: int, *, include_usage: bool) -> None:
        super().__init__(head, choices, include_usage=include_usage)
        self._plain = b"}" + self._plain  # the end of a delta
        self._thoughts = [Thoughts() for _ in range(choices)]
        self._begun = [False] * choices

    def chunk(self, chunk: Chunk) -> bytes:
        """Role, thoughts, text, calls and end of a choice, as far as the chunk has them."""
        index = chunk.choice
        before = self._before[index]
        events = b""
        if not self._begun[index]:
            self._begun[index] = True
            events = before + b'{"role":"assistant","content":""' + self._plain
        self._thoughts[index].add(chunk)
        if chunk.reasoning:
            thought = sse.text_json(chunk.reasoning)
            events += before + b'{"reasoning_content":' + thought + self._plain
        if chunk.logprobs:
            delta = b'{"content":%s}' % sse.text_json(chunk.text)
            events += self._with_logprobs(index, delta, chat_logprobs(chunk.logprobs))
        elif chunk.text:
            events += before + b'{"content":' + sse.text_json(chunk.text) + self._plain
        for piece in chunk.calls:
            for called in _call_deltas(piece):
                events += before + b'{"tool_calls":[' + called + b"]" + self._plain
        if chunk.finish:
            events += self._finish(index, chunk.finish)
        return events

    def _thought(self) -> int:
        return sum(thoughts.tokens for thoughts in self._thoughts)


class TextEvents(_Events):
    """Events of a text completion. `echoes` are shown before the choices, one each.

    `prompted`: the first token of each choice is the first of its prompt, which follows nothing.
    """

    kind = "text_completion"
    field = b"text"
    nothing = b'""'
    shape: ClassVar[_Shape] = TextCompletion

    def __init__(
        self, head: Head, echoes: Sequence[str], *, include_usage: bool, prompted: bool = False
    ) -> None:
        super().__init__(head, len(echoes), include_usage=include_usage)
        self._unechoed = list(echoes)
        self._prompted = prompted
        self._offsets = [0] * len(echoes)

    def chunk(self, chunk: Chunk) -> bytes:
        """Text and end of a choice, as far as the chunk has them."""
        index = chunk.choice
        text = self._unechoed[index] + chunk.text
        self._unechoed[index] = ""
        events = b""
        if chunk.logprobs:
            offset = self._offsets[index]
            shape = text_logprobs(chunk.logprobs, offset, prompted=self._prompted and not offset)
            self._offsets[index] += sum(len(token.text) for token in chunk.logprobs)
            events = self._with_logprobs(index, sse.text_json(text), shape)
        elif text:
            events = self._before[index] + sse.text_json(text) + self._plain
        if chunk.finish:
            events += self._finish(index, chunk.finish)
        return events


def _call_deltas(piece: CallPiece) -> list[bytes]:
    """A call's id and name, then its arguments, as far as the piece has them."""
    deltas = []
    if piece.id or piece.name:
        deltas.append(
            b'{"index":%d,"id":%s,"type":"function","function":{"name":%s,"arguments":""}}'
            % (piece.index, sse.text_json(piece.id), sse.text_json(piece.name))
        )
    if piece.arguments:
        arguments = sse.text_json(piece.arguments)
        deltas.append(b'{"index":%d,"function":{"arguments":%s}}' % (piece.index, arguments))
    return deltas


def _opening(head: Head, kind: str) -> bytes:
    """An event up to the index of its one choice."""
    fields = sse.one_line(
        _encode(
            {
                "id": head.id,
                "object": kind,
                "created": head.created,
                "model": head.model,
                "system_fingerprint": head.fingerprint,
            }
        )
    )
    return sse.PREFIX + fields[:-1] + b',"choices":[{"index":'
