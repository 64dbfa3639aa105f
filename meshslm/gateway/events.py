"""Stream events, written by hand: this runs once per token.

All that stays the same in the events of a choice is encoded once, when its stream begins; a token
then costs one JSON string and one concatenation. `api.openai_responses` has the shapes, and a test
reads these bytes back through them.

Rules:
- A choice begins with an event that has its role and empty text, as OpenAI's streams do.
- The event with `finish_reason` has no text.
- With `include_usage` every event has `usage`: null until the last one, which has no choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from meshslm.api import sse
from meshslm.api.openai_responses import (
    ChatChunk,
    CompletionUsage,
    RouteInfo,
    TextCompletion,
)
from meshslm.gateway.logprobs import chat_logprobs, text_logprobs
from meshslm.wire.messages import Chunk

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Head:
    """What all events of an answer, or the whole answer, begin with."""

    id: str
    created: int
    model: str
    fingerprint: str | None


class EventWriter(Protocol):
    """Turns what a task produces into stream events."""

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of a chunk; none where it has nothing to show yet."""
        ...

    def end(self, usage: CompletionUsage, info: RouteInfo | None) -> bytes:
        """The last events of a stream that is whole."""
        ...


class ChatEvents:
    """Events of a chat completion."""

    def __init__(self, head: Head, choices: int, *, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        before = _opening(head, "chat.completion.chunk")
        self._before = [b'%s%d,"delta":' % (before, index) for index in range(choices)]
        self._after = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._plain = b'},"logprobs":null,"finish_reason":null' + self._after
        self._begun = [False] * choices

    def chunk(self, chunk: Chunk) -> bytes:
        """Role, text and end of a choice, as far as the chunk has them."""
        before = self._before[chunk.choice]
        events = b""
        if not self._begun[chunk.choice]:
            self._begun[chunk.choice] = True
            events = before + b'{"role":"assistant","content":""' + self._plain
        if chunk.logprobs:
            events += b'%s{"content":%s},"logprobs":%s,"finish_reason":null%s' % (
                before,
                sse.text_json(chunk.text),
                sse.one_line(_encode(chat_logprobs(chunk.logprobs))),
                self._after,
            )
        elif chunk.text:
            events += before + b'{"content":' + sse.text_json(chunk.text) + self._plain
        if chunk.finish:
            events += b'%s{},"logprobs":null,"finish_reason":%s%s' % (
                before,
                _encode(chunk.finish),
                self._after,
            )
        return events

    def end(self, usage: CompletionUsage, info: RouteInfo | None) -> bytes:
        """Token counts, if asked for, and the mark of a whole stream."""
        if not self._include_usage:
            return sse.DONE_EVENT
        last = ChatChunk(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=[],
            usage=usage,
            meshslm=info,
        )
        return sse.event(last) + sse.DONE_EVENT


class TextEvents:
    """Events of a text completion. `echo` is shown before each choice."""

    def __init__(self, head: Head, choices: int, *, include_usage: bool, echo: str = "") -> None:
        self._head = head
        self._include_usage = include_usage
        before = _opening(head, "text_completion")
        self._before = [b'%s%d,"text":' % (before, index) for index in range(choices)]
        self._after = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._plain = b',"logprobs":null,"finish_reason":null' + self._after
        self._unechoed = [echo] * choices
        self._offsets = [0] * choices

    def chunk(self, chunk: Chunk) -> bytes:
        """Text and end of a choice, as far as the chunk has them."""
        index = chunk.choice
        before = self._before[index]
        text = chunk.text
        if self._unechoed[index]:
            text = self._unechoed[index] + text
            self._unechoed[index] = ""
        events = b""
        if chunk.logprobs:
            shape = text_logprobs(chunk.logprobs, self._offsets[index])
            self._offsets[index] += sum(len(token.text) for token in chunk.logprobs)
            events = b'%s%s,"logprobs":%s,"finish_reason":null%s' % (
                before,
                sse.text_json(text),
                sse.one_line(_encode(shape)),
                self._after,
            )
        elif text:
            events = before + sse.text_json(text) + self._plain
        if chunk.finish:
            events += b'%s"","logprobs":null,"finish_reason":%s%s' % (
                before,
                _encode(chunk.finish),
                self._after,
            )
        return events

    def end(self, usage: CompletionUsage, info: RouteInfo | None) -> bytes:
        """Token counts, if asked for, and the mark of a whole stream."""
        if not self._include_usage:
            return sse.DONE_EVENT
        last = TextCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=[],
            usage=usage,
            meshslm=info,
        )
        return sse.event(last) + sse.DONE_EVENT


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
