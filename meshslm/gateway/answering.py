"""Answering: run the tasks of a request for an HTTP client, and tell it what comes of them.

Rules:
- An answer begins when its first token, or its failure, is here: until then the status is open, so
  a failure has its proper status and the headers know who answers.
- A failure after that is an event, and the stream ends without the mark that means "whole".
- Whether it streams or not, a client that hangs up ends its tasks at once.
- The tasks' streams are pulled, so a slow client slows its own tasks and fills no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

import trio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from meshslm import limits
from meshslm.core.cascade import Check
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.body import read_body
from meshslm.gateway.cascading import Cascading
from meshslm.gateway.jobs import EventWriter, Head, Job
from meshslm.gateway.recalling import Recalling
from meshslm.gateway.replies import fault_reply, json_reply
from meshslm.gateway.routing import routed
from meshslm.gateway.service import NodeService, Submitting, TaskItem, TaskStream
from meshslm.gateway.told import Told
from meshslm.ids import TaskId
from meshslm.observe.meters import FINISHED, Meters
from meshslm.wire.messages import Chunk, TaskRequest, Timings, Usage


class Answering:
    """An ASGI endpoint; `read` makes a job of a body of at most `body_bytes`."""

    def __init__(
        self,
        meters: Meters,
        read: Callable[[bytes], Job],
        *,
        body_bytes: int,
        recalling: Recalling,
        service: NodeService,
        checks: Mapping[str, Check],
    ) -> None:
        self._service = service
        self._checks = checks
        self._recalling = recalling
        self._meters = meters
        self._read = read
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        told = Told(trio.current_time())
        try:
            job = routed(self._read(await read_body(scope, receive, self._body_bytes)), scope)
            prepared = await self._recalling.prepare(job)
        except ClientDisconnect:
            return
        job, told.citations = prepared.job, prepared.citations
        kind = _WholeAnswer if job.events is None else _StreamedAnswer
        answer = kind(job, self._meters, told, scope, receive, send)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer.leave_when_gone, nursery.cancel_scope)
                steps = Cascading(self._service, self._meters, told, self._checks)
                await answer.run(self._recalling.submitting(prepared, steps))
                nursery.cancel_scope.cancel()
        finally:
            answer.settle(FaultCode.CANCELLED.value)


@dataclass
class _Answer:
    """One answer under way, whichever form it takes."""

    _job: Job
    _meters: Meters
    _told: Told
    _scope: Scope
    _receive: Receive
    _send: Send
    _settled: bool = field(default=False, init=False)
    _task: TaskId | None = field(default=None, init=False)
    _usage: Usage = field(default_factory=Usage, init=False)
    _timings: Timings = field(default_factory=Timings, init=False)

    async def leave_when_gone(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the client hangs up before it has its whole answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server says "disconnect" after a whole answer too.
        if not self._settled:
            scope.cancel()

    def settle(self, outcome: str) -> None:
        """Count how it ended, once: before the client is told, or when it has left."""
        if not self._settled:
            self._settled = True
            duration_ms = (trio.current_time() - self._told.arrived_s) * 1000
            self._meters.task_ended(outcome, duration_ms)
            if outcome == FINISHED:
                self._meters.tokens(self._usage)

    async def run(self, service: Submitting) -> None:
        """Run the tasks to their end, and tell the client."""
        fault = await self._run_all(service)
        if fault is None:
            try:
                await self._finish()
            except RequestFault as unusable:
                fault = unusable
        if fault is not None:
            self.settle(fault.code.value)
            await self._fail(fault)

    async def _run_all(self, service: Submitting) -> RequestFault | None:
        """Run every task; why the answer failed, if it did. One failed task fails all."""
        requests = self._job.requests
        if len(requests) == 1:
            return await self._run_one(service, requests[0], 0)
        faults: list[RequestFault] = []
        turns = trio.CapacityLimiter(limits.PROMPTS_AT_ONCE)

        async def run(request: TaskRequest, first: int) -> None:
            async with turns:
                fault = await self._run_one(service, request, first)
            if fault is not None:
                faults.append(fault)
                nursery.cancel_scope.cancel()

        firsts = accumulate((request.choices for request in requests), initial=0)
        async with trio.open_nursery() as nursery:
            for request, first in zip(requests, firsts, strict=False):
                nursery.start_soon(run, request, first)
        return faults[0] if faults else None

    async def _run_one(
        self, service: Submitting, request: TaskRequest, first: int
    ) -> RequestFault | None:
        """Run one task, whose choices are numbered from `first`; why it failed, if it did."""
        try:
            async with service.submit(request) as stream:
                self._task = self._task or stream.task
                # No fault is raised in here: it would pass through the service, not past it.
                return await self._follow(stream, request.choices, first)
        except RequestFault as refused:
            return refused

    async def _follow(self, stream: TaskStream, choices: int, first: int) -> RequestFault | None:
        """Tell the client what a task produces; returns why it failed, if it did."""
        async for arrived in stream:
            item: TaskItem | None = arrived
            while item is not None:
                match item:
                    case EmitChunk(chunk=chunk):
                        if chunk.choice >= choices:
                            return _surplus(chunk)
                        self._note_first_token(chunk)
                        if first:
                            chunk = replace(chunk, choice=first + chunk.choice)
                        self._take(chunk)
                    case RouteChosen():
                        self._told.chosen(item)
                    case FinishTask():
                        self._usage = _plus(self._usage, item.usage)
                        self._timings = item.timings
                        return None
                    case FailTask():
                        return _fault(item, self._job.names)
                item = stream.take_nowait()
            await self._flush()
        return RequestFault(FaultCode.INTERNAL, "The task ended without an outcome.")

    def _note_first_token(self, chunk: Chunk) -> None:
        if self._told.ttft_ms is None and self._job.generates:
            taken_ms = self._told.first_token(trio.current_time(), chunk.queue_ms)
            self._meters.first_token(taken_ms)

    def _take(self, chunk: Chunk) -> None:
        """Add a chunk to the answer."""
        raise NotImplementedError

    async def _flush(self) -> None:
        """Send what was added, where the answer is told as it comes."""
        raise NotImplementedError

    async def _finish(self) -> None:
        """Send the end of a whole answer; raises `RequestFault` where there is none."""
        raise NotImplementedError

    async def _fail(self, fault: RequestFault) -> None:
        reply = fault_reply(fault, self._told.headers(), path=self._scope["path"])
        await reply(self._scope, self._receive, self._send)

    def _head(self) -> Head:
        return Head(
            id=f"{self._job.id_prefix}{self._task}",
            created=int(time.time()),
            model=self._told.model,
            fingerprint=self._told.fingerprint,
            private=self._job.requests[0].routing.private,
        )


@dataclass
class _WholeAnswer(_Answer):
    """Collected, then told at once."""

    def __post_init__(self) -> None:
        self._collector = self._job.whole()

    def _take(self, chunk: Chunk) -> None:
        self._collector.add(chunk)

    async def _flush(self) -> None:
        pass

    async def _finish(self) -> None:
        info = self._told.info(self._timings)
        body = self._collector.body(self._head(), self._usage, info)
        self.settle(FINISHED)
        reply = json_reply(body, headers=self._told.headers())
        await reply(self._scope, self._receive, self._send)


@dataclass
class _StreamedAnswer(_Answer):
    """Told as it comes; what came at the same time goes out in one write."""

    _writer: EventWriter | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)
    _events: list[bytes] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        # Several tasks take turns at writing; one alone need not ask.
        self._turn = trio.Lock() if len(self._job.requests) > 1 else None

    def _take(self, chunk: Chunk) -> None:
        self._events.append(self._writing().chunk(chunk))

    async def _flush(self) -> None:
        if self._turn is None:
            await self._write()
            return
        async with self._turn:
            await self._write()

    async def _write(self) -> None:
        if self._writer is None:
            return
        if not self._begun:
            await self._begin()
        if data := b"".join(self._events):
            self._events.clear()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _finish(self) -> None:
        self._events.append(self._writing().end(self._usage, self._told.info(self._timings)))
        self.settle(FINISHED)
        await self._send_last()

    async def _fail(self, fault: RequestFault) -> None:
        if not self._begun:
            await super()._fail(fault)
        else:
            self._events.append(self._writing().fail(fault))
            await self._send_last()

    def _writing(self) -> EventWriter:
        if self._writer is None:
            assert self._job.events is not None
            self._writer = self._job.events(self._head())
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


def _plus(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
        one.guessed_tokens + other.guessed_tokens,
        one.accepted_tokens + other.accepted_tokens,
    )


def _fault(item: FailTask, names: Mapping[str, str]) -> RequestFault:
    param = names.get(item.param, item.param) or None
    retry_after_ms = item.retry_after_ms or None
    return RequestFault(item.code, item.detail, param=param, retry_after_ms=retry_after_ms)


def _surplus(chunk: Chunk) -> RequestFault:
    return RequestFault(FaultCode.INTERNAL, f"Choice {chunk.choice} was produced unasked.")
