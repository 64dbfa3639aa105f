"""OpenAI's Responses API: reading its requests, telling answers whole, and again later.

`gateway.response_events` tells them as streams.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from meshslm.api.conversation import Turn
from meshslm.api.decode import bad_request, clipped, decode_body
from meshslm.api.openai_responses import RouteInfo
from meshslm.api.responses_replies import ResponseDeleted, ResponseReply
from meshslm.api.responses_request import ResponseRequest
from meshslm.gateway.jobs import Head, Job
from meshslm.gateway.kept import KeptResponses
from meshslm.gateway.replies import json_reply, refusal
from meshslm.gateway.response_answers import Exchange
from meshslm.gateway.response_events import ResponseEvents
from meshslm.gateway.transcript import Transcript
from meshslm.gateway.translate import conversation_task
from meshslm.wire.messages import Chunk, Usage

_requests = msgspec.json.Decoder(ResponseRequest)
_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
}


class ResponseWhole:
    """A whole answer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._transcript = Transcript()

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._transcript.add(chunk)

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> ResponseReply:
        """The whole answer."""
        return self._exchange.end(head, self._transcript, usage, info)


class Responses:
    """The routes below `/v1/responses`, over the answers that this node keeps."""

    def __init__(self, *, deadline_ms: int) -> None:
        self._deadline_ms = deadline_ms
        self._kept = KeptResponses()

    def read(self, body: bytes) -> Job:
        """The job of a `POST`; raises `RequestFault` where it makes no sense."""
        asked = decode_body(body, _requests)
        asked.check()
        earlier: tuple[Turn, ...] = ()
        private = False
        if asked.previous_response_id:
            kept = self._kept.get(asked.previous_response_id, time.monotonic())
            if kept is None:
                raise bad_request(_unknown(asked.previous_response_id), "previous_response_id")
            earlier, private = kept.turns, kept.private
        turns = asked.conversation_after(earlier)
        request = conversation_task(
            asked,
            [*asked.first_turns(), *turns],
            self._deadline_ms,
            thinking=asked.thinking(),
            form=asked.form(),
            tools=asked.tool_use(),
        )
        request = replace(request, max_tokens=asked.max_output_tokens or 0, stop=asked.stops)
        if private:
            request = replace(request, routing=replace(request.routing, private=True))
        exchange = Exchange(asked, tuple(turns), self._kept)
        return Job(
            requests=(request,),
            id_prefix="resp_",
            whole=partial(ResponseWhole, exchange),
            events=partial(ResponseEvents, exchange=exchange) if asked.stream else None,
            names=_NAMES,
        )

    async def get(self, request: Request) -> Response:
        """A kept answer again."""
        name = request.path_params["name"]
        kept = self._kept.get(name, time.monotonic())
        if kept is None:
            return refusal(404, _unknown(name))
        return json_reply(msgspec.Raw(kept.reply))

    async def delete(self, request: Request) -> Response:
        """Forget a kept answer."""
        name = request.path_params["name"]
        if not self._kept.drop(name):
            return refusal(404, _unknown(name))
        return json_reply(ResponseDeleted(id=name))


def _unknown(name: str) -> str:
    return (
        f"No answer '{clipped(name)}' is kept here. Answers are kept for a while by the node that "
        "was asked, unless 'store' was false."
    )
