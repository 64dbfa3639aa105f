"""An answer, and how it is put together from what a node sends.

No I/O: both clients feed the same code with the bytes they receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from meshslm.api.faults import ErrorEnvelope, fault_of
from meshslm.api.openai_responses import (
    CascadeInfo,
    ChatChunk,
    ChatCompletion,
    CompletionUsage,
    RouteInfo,
    ToolCallDelta,
)
from meshslm.api.recall import Citation
from meshslm.api.sse import DONE, EventDecoder
from meshslm.client.asking import Message
from meshslm.errors import UNREADABLE, FaultCode, OurFault, RequestFault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. `arguments` is JSON text."""

    id: str
    name: str
    arguments: str

    @property
    def values(self) -> dict[str, Any]:
        """The arguments. Raises `ValueError` where the answer was cut off within them."""
        try:
            return msgspec.json.decode(self.arguments or "{}", type=dict[str, Any])
        except UNREADABLE as error:
            raise ValueError(f"the arguments of {self.name} are not whole: {error}") from None

    def answered(self, result: str) -> Message:
        """The turn that brings its result back to the model."""
        return {"role": "tool", "tool_call_id": self.id, "content": result}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the mesh answered, who did, and what it took. Durations in milliseconds."""

    text: str
    finish_reason: str
    """`stop`: the model had finished, or met a stop string; `length`: the tokens ran out;
    `tool_calls`: it asks for calls."""
    model: str
    node: str
    node_name: str
    profile: str
    route: str
    """Why this node and profile were chosen."""
    attempts: int
    """Nodes tried, the one that answered included."""
    ttft_ms: float | None
    """From the request's arrival at the node that was asked to its first token there."""
    queue_ms: float | None
    prefill_ms: float | None
    decode_ms: float | None
    usage: CompletionUsage
    reasoning: str = ""
    """What the model thought before it answered."""
    tool_calls: tuple[ToolCall, ...] = ()
    memory: tuple[Citation, ...] = ()
    """What of shared memory was put into the prompt."""
    continued: str = ""
    """Where its node went in mid-answer: it went on elsewhere in `tokens`, as that one would have,
    or in another model's `text`."""
    cascade: CascadeInfo | None = None
    """Who was asked one after the other, where it was answered in steps."""

    @property
    def message(self) -> Message:
        """Its turn, for the conversation that goes on from it."""
        turn: Message = {"role": "assistant", "content": self.text}
        if self.reasoning:
            turn["reasoning_content"] = self.reasoning
        if self.tool_calls:
            turn["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        return turn

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second while it was generated; None where that was not measured."""
        if not self.decode_ms:
            return None
        return self.usage.completion_tokens / self.decode_ms * 1000


def read(body: bytes, shape: type[T]) -> T:
    """The body of an answer. Raises `OurFault` where it has another shape."""
    try:
        return msgspec.json.decode(body, type=shape)
    except UNREADABLE as error:
        raise _no_node(error) from None


def whole_answer(body: bytes) -> Answer:
    """The answer of a request that did not stream. Raises `OurFault` where it is none."""
    completion = read(body, ChatCompletion)
    if not completion.choices:
        raise _no_node("an answer without choices")
    choice = completion.choices[0]
    told = choice.message
    calls = [] if told.tool_calls is msgspec.UNSET else told.tool_calls
    return _answer(
        Spoken(
            text=told.content or "",
            reasoning="" if told.reasoning_content is msgspec.UNSET else told.reasoning_content,
            calls={
                index: ToolCall(call.id, call.function.name, call.function.arguments)
                for index, call in enumerate(calls)
            },
        ),
        choice.finish_reason,
        completion.meshslm or nobody(completion.model),
        completion.usage,
    )


@dataclass(slots=True)
class Spoken:
    """What the model said so far."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, ToolCall] = field(default_factory=dict)

    def add_call(self, delta: ToolCallDelta) -> None:
        """Add a piece of a call: first its name, then its arguments."""
        known = self.calls.get(delta.index) or ToolCall("", "", "")
        self.calls[delta.index] = ToolCall(
            known.id or delta.id or "",
            known.name or delta.function.name or "",
            known.arguments + delta.function.arguments,
        )


class StreamReader:
    """Turns the bytes of a stream into text, and at its end into an `Answer`."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Raises `OurFault` where `headers` announce no stream."""
        kind = headers.get("content-type", "none")
        if not kind.startswith("text/event-stream"):
            raise _no_node(f"a stream was asked for, and the content type is {kind}")
        self.route = _route_of(headers)
        self._events = EventDecoder()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._spoken = Spoken()
        self._finish: str | None = None
        self._usage: CompletionUsage | None = None
        self._whole = False
        self._unread: deque[str] = deque()
        self._fault: RequestFault | None = None

    def feed(self, received: bytes) -> None:
        """Take more of the stream. Raises `OurFault` where it is none of a node's."""
        try:
            for data in self._events.feed(received):
                self._read(data)
        except RequestFault as fault:
            self._fault = fault
        except (*UNREADABLE, ValueError) as error:
            raise _no_node(error) from None

    def next_piece(self) -> str | None:
        """The next piece of text; None where more of the stream is needed for it.

        Raises `RequestFault` where the stream says that it failed, after the text before that.
        """
        if self._unread:
            return self._unread.popleft()
        if self._fault is not None:
            raise self._fault
        return None

    def end(self) -> None:
        """The stream is over. Raises `RequestFault` where it was cut off."""
        if not self._whole:
            raise RequestFault(
                FaultCode.PEER_LOST, "The node broke off in the middle of an answer."
            )

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises `RuntimeError` before the stream's end."""
        if not self._whole:
            raise RuntimeError("the answer is there once the stream has been read to its end")
        self._spoken.text = "".join(self._texts)
        self._spoken.reasoning = "".join(self._thoughts)
        return _answer(self._spoken, self._finish, self.route, self._usage)

    def _read(self, data: bytes) -> None:
        if data == DONE:
            self._whole = True
            return
        if data.startswith(b'{"error"'):
            raise fault_of(200, _errors.decode(data).error)
        chunk = _chunks.decode(data)
        self._usage = chunk.usage or self._usage
        self.route = chunk.meshslm or self.route
        for choice in chunk.choices:
            self._finish = choice.finish_reason or self._finish
            if choice.delta.content:
                self._unread.append(choice.delta.content)
                self._texts.append(choice.delta.content)
            if choice.delta.reasoning_content:
                self._thoughts.append(choice.delta.reasoning_content)
            for delta in choice.delta.tool_calls:
                self._spoken.add_call(delta)


class AnswerUnderWay:
    """What the streams of both clients tell of their answer."""

    _reader: StreamReader | None = None

    @property
    def route(self) -> RouteInfo:
        """Who is answering and why; known from the first token on."""
        return self._opened().route

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream was read to its end."""
        return self._opened().answer

    def _opened(self) -> StreamReader:
        if self._reader is None:
            raise RuntimeError("use the stream in a `with` block, or an `async with` block")
        return self._reader


def failure(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """What an answer that is not 2xx says, to be raised."""
    retry = headers.get("retry-after-ms", "")
    try:
        error = _errors.decode(body).error
    except UNREADABLE as reason:
        return _no_node(f"status {status}, {reason}")
    return fault_of(status, error, retry_after_ms=int(retry) if retry.isdecimal() else None)


def _no_node(reason: object) -> OurFault:
    return OurFault(f"what answers at this address is not a meshslm node, or a newer one: {reason}")


def _answer(
    spoken: Spoken, finish: str | None, route: RouteInfo, usage: CompletionUsage | None
) -> Answer:
    return Answer(
        text=spoken.text,
        finish_reason=finish or "stop",
        model=route.model,
        node=route.node,
        node_name=route.node_name,
        profile=route.profile,
        route=route.route,
        attempts=route.attempts,
        ttft_ms=route.ttft_ms,
        queue_ms=route.queue_ms,
        prefill_ms=route.prefill_ms,
        decode_ms=route.decode_ms,
        usage=usage or CompletionUsage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
        reasoning=spoken.reasoning,
        tool_calls=tuple(spoken.calls.values()),
        memory=tuple(route.memory),
        continued=route.continued,
        cascade=route.cascade,
    )


def nobody(model: str) -> RouteInfo:
    """For servers of the OpenAI API that are no mesh."""
    return RouteInfo(node="", node_name="", model=model, profile="", route="", attempts=1)


def _route_of(headers: Mapping[str, str]) -> RouteInfo:
    """What is known of a stream before its first token."""

    def told(name: str) -> str:
        return unquote(headers.get(f"x-meshslm-{name}", ""))

    attempts = told("attempts")
    return RouteInfo(
        node=told("node"),
        node_name=told("node-name"),
        model=told("model"),
        profile=told("profile"),
        route=told("route"),
        attempts=int(attempts) if attempts.isdecimal() else 1,
    )


_chunks = msgspec.json.Decoder(ChatChunk)
_errors = msgspec.json.Decoder(ErrorEnvelope)
