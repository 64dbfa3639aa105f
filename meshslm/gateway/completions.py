"""The two completion endpoints: run a task for an HTTP client and tell it what comes of it.

Rules:
- An answer begins when its first token, or its failure, is here: until then the status is open, so
  a failure has its proper status and the headers know who answers.
- A failure after that is an event with `error`, and the stream ends without `[DONE]`, which means
  "whole": OpenAI's clients raise `APIError` on the event.
- Whether it streams or not, a client that hangs up ends its task at once.
- The task's stream is pulled, so a slow client slows its own task and fills no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from meshslm.api import sse
from meshslm.api.faults import envelope
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.body import read_body
from meshslm.gateway.events import EventWriter, Head
from meshslm.gateway.jobs import Job
from meshslm.gateway.replies import fault_reply, json_reply
from meshslm.gateway.service import NodeService, TaskStream
from meshslm.gateway.told import Told, usage_shape
from meshslm.gateway.whole import Transcript
from meshslm.ids import TaskId
from meshslm.observe.meters import FINISHED, Meters
from meshslm.wire.messages import Chunk


class Completions:
    """An ASGI endpoint; `read` makes a job of a body."""

    def __init__(self, service: NodeService, meters: Meters, read: Callable[[bytes], Job]) -> None:
        self._service = service
        self._meters = meters
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived_s = trio.current_time()
        try:
            job = self._read(await read_body(scope, receive))
        except ClientDisconnect:
            return
        kind = _StreamedAnswer if job.stream else _WholeAnswer
        answer = kind(job, self._meters, arrived_s, scope, receive, send)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer.leave_when_gone, nursery.cancel_scope)
                await answer.run(self._service)
                nursery.cancel_scope.cancel()
        finally:
            duration_ms = (trio.current_time() - arrived_s) * 1000
            self._meters.task_ended(answer.outcome, duration_ms)


class _Answer:
    """One answer under way, whichever form it takes."""

    def __init__(
        self,
        job: Job,
        meters: Meters,
        arrived_s: float,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self.outcome: str = FaultCode.CANCELLED.value
        self._job = job
        self._meters = meters
        self._told = Told(arrived_s)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._last_sent = False

    async def leave_when_gone(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the client hangs up before it has its whole answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server says "disconnect" after a whole answer too.
        if not self._last_sent:
            scope.cancel()

    async def run(self, service: NodeService) -> None:
        """Run the task to its end, and tell the client."""
        try:
            async with service.submit(self._job.request) as stream:
                # No fault is raised in here: it would pass through the service, not past it.
                fault = await self._follow(stream)
        except RequestFault as refused:
            fault = refused
        if fault is not None:
            self.outcome = fault.code.value
            self._last_sent = True
            await self._fail(fault)

    async def _follow(self, stream: TaskStream) -> RequestFault | None:
        """Tell the client what the task produces; returns why it failed, if it did."""
        told = self._told
        choices = self._job.request.choices
        async for item in stream:
            match item:
                case EmitChunk(chunk=chunk):
                    if chunk.choice >= choices:
                        return RequestFault(
                            FaultCode.INTERNAL,
                            f"Choice {chunk.choice} was produced; {choices} were asked for.",
                        )
                    if told.ttft_ms is None:
                        self._meters.first_token(told.first_token(trio.current_time()))
                    await self._show(chunk, stream.task)
                case RouteChosen():
                    told.chosen(item)
                case FinishTask():
                    self._meters.tokens(item.usage)
                    self.outcome = FINISHED
                    await self._finish(stream.task, item)
                    return None
                case FailTask():
                    return RequestFault(
                        item.code, item.detail, retry_after_ms=item.retry_after_ms or None
                    )
        return RequestFault(FaultCode.INTERNAL, "The task ended without an outcome.")

    async def _show(self, chunk: Chunk, task: TaskId) -> None:
        raise NotImplementedError

    async def _finish(self, task: TaskId, end: FinishTask) -> None:
        raise NotImplementedError

    async def _fail(self, fault: RequestFault) -> None:
        reply = fault_reply(fault, self._told.headers())
        await reply(self._scope, self._receive, self._send)

    def _head(self, task: TaskId) -> Head:
        return Head(
            id=self._job.id_prefix + task,
            created=int(time.time()),
            model=self._told.model,
            fingerprint=self._told.fingerprint,
        )


class _WholeAnswer(_Answer):
    """Collected, then told at once."""

    def __init__(self, job: Job, *rest: Any) -> None:
        super().__init__(job, *rest)
        self._choices = [Transcript() for _ in range(job.request.choices)]

    async def _show(self, chunk: Chunk, _task: TaskId) -> None:
        self._choices[chunk.choice].add(chunk)

    async def _finish(self, task: TaskId, end: FinishTask) -> None:
        info = self._told.info(end.timings)
        body = self._job.whole(self._head(task), self._choices, usage_shape(end.usage), info)
        reply = json_reply(body, headers=self._told.headers(end.timings))
        self._last_sent = True
        await reply(self._scope, self._receive, self._send)


class _StreamedAnswer(_Answer):
    """Told as it comes."""

    _writer: EventWriter | None = None

    async def _show(self, chunk: Chunk, task: TaskId) -> None:
        writer = self._writer or await self._begin(task)
        if data := writer.chunk(chunk):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _finish(self, task: TaskId, end: FinishTask) -> None:
        writer = self._writer or await self._begin(task)
        await self._send_last(writer.end(usage_shape(end.usage), self._told.info(end.timings)))

    async def _fail(self, fault: RequestFault) -> None:
        if self._writer is None:
            await super()._fail(fault)
        else:
            await self._send_last(sse.event(envelope(fault)))

    async def _begin(self, task: TaskId) -> EventWriter:
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx would hold tokens back
            **self._told.headers(),
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        self._writer = self._job.events(self._head(task), self._job.request.choices)
        return self._writer

    async def _send_last(self, data: bytes) -> None:
        self._last_sent = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
