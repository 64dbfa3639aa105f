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
from meshslm.gateway.service import NodeService, TaskItem, TaskStream
from meshslm.gateway.told import Told, usage_shape
from meshslm.gateway.whole import Transcript
from meshslm.ids import TaskId
from meshslm.observe.meters import FINISHED, Meters
from meshslm.wire.messages import Chunk


class Completions:
    """An ASGI endpoint; `read` makes a job of a body of at most `body_bytes`."""

    def __init__(
        self,
        service: NodeService,
        meters: Meters,
        read: Callable[[bytes], Job],
        *,
        body_bytes: int,
    ) -> None:
        self._service = service
        self._meters = meters
        self._read = read
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived_s = trio.current_time()
        try:
            job = self._read(await read_body(scope, receive, self._body_bytes))
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
            answer.settle(FaultCode.CANCELLED.value)


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
        self._settled = False
        self._job = job
        self._meters = meters
        self._told = Told(arrived_s)
        self._scope = scope
        self._receive = receive
        self._send = send

    async def leave_when_gone(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the client hangs up before it has its whole answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server says "disconnect" after a whole answer too.
        if not self._settled:
            scope.cancel()

    def settle(self, outcome: str) -> None:
        """Count how the task ended, once: before the client is told, or when it has left."""
        if not self._settled:
            self._settled = True
            duration_ms = (trio.current_time() - self._told.arrived_s) * 1000
            self._meters.task_ended(outcome, duration_ms)

    async def run(self, service: NodeService) -> None:
        """Run the task to its end, and tell the client."""
        try:
            async with service.submit(self._job.request) as stream:
                # No fault is raised in here: it would pass through the service, not past it.
                fault = await self._follow(stream)
        except RequestFault as refused:
            fault = refused
        if fault is not None:
            self.settle(fault.code.value)
            await self._fail(fault)

    async def _follow(self, stream: TaskStream) -> RequestFault | None:
        """Tell the client what the task produces; returns why it failed, if it did."""
        async for first in stream:
            item: TaskItem | None = first
            while item is not None:
                match item:
                    case EmitChunk(chunk=chunk):
                        if chunk.choice >= self._job.request.choices:
                            return _surplus(chunk)
                        self._note_first_token(chunk)
                        self._take(chunk, stream.task)
                    case RouteChosen():
                        self._told.chosen(item)
                    case FinishTask():
                        self._meters.tokens(item.usage)
                        self.settle(FINISHED)
                        await self._finish(stream.task, item)
                        return None
                    case FailTask():
                        return _fault(item)
                item = stream.take_nowait()
            await self._flush()
        return RequestFault(FaultCode.INTERNAL, "The task ended without an outcome.")

    def _note_first_token(self, chunk: Chunk) -> None:
        if self._told.ttft_ms is None:
            taken_ms = self._told.first_token(trio.current_time(), chunk.queue_ms)
            self._meters.first_token(taken_ms)

    def _take(self, chunk: Chunk, task: TaskId) -> None:
        """Add a chunk to the answer."""
        raise NotImplementedError

    async def _flush(self) -> None:
        """Send what was added, where the answer is told as it comes."""
        raise NotImplementedError

    async def _finish(self, task: TaskId, end: FinishTask) -> None:
        """Send the end of a whole answer."""
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

    def _take(self, chunk: Chunk, _task: TaskId) -> None:
        self._choices[chunk.choice].add(chunk)

    async def _flush(self) -> None:
        pass

    async def _finish(self, task: TaskId, end: FinishTask) -> None:
        info = self._told.info(end.timings)
        body = self._job.whole(self._head(task), self._choices, usage_shape(end.usage), info)
        reply = json_reply(body, headers=self._told.headers())
        await reply(self._scope, self._receive, self._send)


class _StreamedAnswer(_Answer):
    """Told as it comes; what came at the same time goes out in one write."""

    def __init__(self, job: Job, *rest: Any) -> None:
        super().__init__(job, *rest)
        self._writer: EventWriter | None = None
        self._begun = False
        self._events: list[bytes] = []

    def _take(self, chunk: Chunk, task: TaskId) -> None:
        writer = self._writer or self._new_writer(task)
        self._events.append(writer.chunk(chunk))

    async def _flush(self) -> None:
        if self._writer is None:
            return
        if not self._begun:
            await self._begin()
        if data := b"".join(self._events):
            self._events.clear()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _finish(self, task: TaskId, end: FinishTask) -> None:
        writer = self._writer or self._new_writer(task)
        self._events.append(writer.end(usage_shape(end.usage), self._told.info(end.timings)))
        await self._send_last()

    async def _fail(self, fault: RequestFault) -> None:
        if not self._begun:
            await super()._fail(fault)
        else:
            self._events.append(sse.event(envelope(fault)))
            await self._send_last()

    def _new_writer(self, task: TaskId) -> EventWriter:
        self._writer = self._job.events(self._head(task), self._job.request.choices)
        return self._writer

    async def _begin(self) -> None:
        self._begun = True
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx would hold tokens back
            **self._told.headers(),
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send_last(self) -> None:
        if not self._begun:
            await self._begin()
        data = b"".join(self._events)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


def _fault(item: FailTask) -> RequestFault:
    return RequestFault(item.code, item.detail, retry_after_ms=item.retry_after_ms or None)


def _surplus(chunk: Chunk) -> RequestFault:
    return RequestFault(FaultCode.INTERNAL, f"Choice {chunk.choice} was produced unasked.")
