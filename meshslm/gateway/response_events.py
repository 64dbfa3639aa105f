"""The events of a stream of OpenAI's Responses API.

Every item is announced, grows, and is told whole when it ends; every event has a number. A stream
that broke off ends with `response.failed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshslm.api import sse
from meshslm.api.faults import HTTP_FAULTS
from meshslm.api.openai_responses import RouteInfo
from meshslm.api.responses_replies import (
    OutputCall,
    OutputMessage,
    OutputText,
    ReasoningText,
    ResponseError,
)
from meshslm.errors import RequestFault
from meshslm.gateway.jobs import Head
from meshslm.gateway.response_answers import Exchange, item, item_id
from meshslm.gateway.transcript import Begun, Block, Ended, Grown, Step, Transcript
from meshslm.wire.messages import Chunk, Usage

_GROWTH = {
    "text": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}


class ResponseEvents:
    """The events of one answer."""

    def __init__(self, head: Head, exchange: Exchange) -> None:
        self._head = head
        self._exchange = exchange
        self._transcript = Transcript()
        self._sent = 0
        self._begun = False

    def chunk(self, chunk: Chunk) -> bytes:
        """The beginning of the answer, and what its items go through."""
        steps = self._transcript.add(chunk)
        return self._beginning() + b"".join(map(self._step, steps))

    def end(self, usage: Usage, info: RouteInfo | None) -> bytes:
        """The end of the last item, and the whole answer."""
        events = self._beginning() + b"".join(map(self._step, self._transcript.end()))
        reply = self._exchange.end(self._head, self._transcript, usage, info)
        return events + self._event(f"response.{reply.status}", {"response": reply})

    def fail(self, fault: RequestFault) -> bytes:
        """What went wrong, with what there is of the answer."""
        items = [item(self._head, block, "incomplete") for block in self._transcript.blocks]
        reply = self._exchange.reply(self._head, "failed", items)
        reply.error = ResponseError(code=HTTP_FAULTS[fault.code].code, message=fault.detail)
        return self._event("response.failed", {"response": reply})

    def _beginning(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        reply = self._exchange.reply(self._head, "in_progress", [])
        return self._event("response.created", {"response": reply}) + self._event(
            "response.in_progress", {"response": reply}
        )

    def _step(self, step: Step) -> bytes:
        match step:
            case Begun(block):
                return self._item_begins(block)
            case Grown(block, text):
                return self._growth(block, "delta", {"delta": text})
            case Ended(block):
                return self._item_ends(block)

    def _item_begins(self, block: Block) -> bytes:
        begun = item(self._head, block, "in_progress")
        if not isinstance(begun, OutputCall):
            begun.content = []
        added = {"output_index": block.number, "item": begun}
        return self._event("response.output_item.added", added) + self._part("added", block)

    def _item_ends(self, block: Block) -> bytes:
        cut = self._transcript.finish == "length"
        whole = item(self._head, block, "incomplete" if cut else "completed")
        field: dict[str, Any] = {"text": block.text}
        if isinstance(whole, OutputCall):
            field = {"name": block.name, "arguments": block.text}
        elif isinstance(whole, OutputMessage):
            field["logprobs"] = []
        done = {"output_index": block.number, "item": whole}
        return (
            self._growth(block, "done", field)
            + self._part("done", block)
            + self._event("response.output_item.done", done)
        )

    def _growth(self, block: Block, what: str, fields: Mapping[str, Any]) -> bytes:
        told = {**self._place(block), **fields}
        if block.kind == "text" and what == "delta":
            told["logprobs"] = []
        return self._event(f"{_GROWTH[block.kind]}.{what}", told)

    def _part(self, what: str, block: Block) -> bytes:
        """The one part of an item's content begins or ends; a call has none."""
        if block.kind == "call":
            return b""
        text = block.text if what == "done" else ""
        part = OutputText(text=text) if block.kind == "text" else ReasoningText(text=text)
        return self._event(f"response.content_part.{what}", {**self._place(block), "part": part})

    def _place(self, block: Block) -> dict[str, Any]:
        place: dict[str, Any] = {
            "item_id": item_id(self._head, block),
            "output_index": block.number,
        }
        return place if block.kind == "call" else {**place, "content_index": 0}

    def _event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        number, self._sent = self._sent, self._sent + 1
        return sse.typed_event(kind, {"sequence_number": number, **fields})
