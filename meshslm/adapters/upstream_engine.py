"""An OpenAI-compatible endpoint outside the mesh, behind the port of an engine.

The core sees one more engine of this node; what is sent to it leaves the mesh. It streams, and a
run that is stopped closes its connection, which ends the generation there.

Rules:
- The key is in one header and nowhere else: in no log, no error and no representation.
- What comes back is a stranger's: its lines, its size and its silence are bounded, redirects are
  not followed, and what is no answer is a failure of the upstream, which the mesh makes good.
- Its refusals are told as it gave them only by their status: its words stay out.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import httpx
import msgspec
import trio

from meshslm import limits
from meshslm.adapters.upstream_budget import UpstreamBudget
from meshslm.core.events import EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.errors import FaultCode
from meshslm.ids import RunId
from meshslm.ports import Post
from meshslm.wire.messages import Chunk, Sampling, TaskRequest, Timings, Usage

log = logging.getLogger("meshslm.upstream")

CONNECT_S: Final = 10.0
CHARACTERS_PER_TOKEN: Final = 4
"""For what is set aside before the upstream has counted."""
ASSUMED_ANSWER_TOKENS: Final = 4096
"""Set aside for an answer whose length the request leaves open."""
PREFIX: Final = "upstream/"
_FINISHES: Final = {"length": "length"}


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One endpoint."""

    url: str
    """Ending before `/chat/completions`."""
    model: str
    key: str = field(default="", repr=False)
    price_per_1k: float = 0.0
    timeout_s: float = 30.0
    """Silence for so long is a failure."""
    slots: int = 8


TokenCount = Annotated[int, msgspec.Meta(ge=0, le=2**24)]
"""No context is longer; who says more does not know, or lies."""
RETRY_MS: Final = 1_000
"""When to come back to one that is overloaded and does not say when."""
RETRY_MOST_S: Final = 3_600


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Counts | None = None


class _UpstreamFailed(Exception):
    """It gave no answer."""

    def __init__(
        self, detail: str, code: FaultCode = FaultCode.WORKER_LOST, retry_after_ms: int = 0
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.retry_after_ms = retry_after_ms


class UpstreamEngine:
    """See `ports.Engine`."""

    def __init__(
        self,
        spec: UpstreamSpec,
        budget: UpstreamBudget,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._spec = spec
        self._budget = budget
        self._transport = transport
        self._nursery: trio.Nursery | None = None
        self._http: httpx.AsyncClient | None = None
        self._post: Post | None = None
        self._runs: dict[RunId, trio.CancelScope] = {}

    @property
    def model(self) -> str:
        """As in `StartRun.model`."""
        return PREFIX + self._spec.model

    async def run(self, post: Post) -> None:
        """Serve until cancelled."""
        spec = self._spec
        headers = {"accept-encoding": "identity"}  # what is packed may be large unpacked
        if spec.key:
            headers["authorization"] = f"Bearer {spec.key}"
        async with (
            httpx.AsyncClient(
                base_url=spec.url.rstrip("/") + "/",
                headers=headers,
                timeout=httpx.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s)),
                follow_redirects=False,
                trust_env=False,
                transport=self._transport,
                limits=httpx.Limits(max_connections=spec.slots),
            ) as http,
            trio.open_nursery() as nursery,
        ):
            self._http, self._nursery, self._post = http, nursery, post
            try:
                await post(EngineReady(self.model, spec.slots))
                await trio.sleep_forever()
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()

    def refuses(self, request: TaskRequest) -> str:
        """Why a request would be refused now; empty where it would not."""
        return self._budget.refusal(self._most(request))

    def start_run(self, run: RunId, request: TaskRequest, *, coalesce: bool = False) -> None:
        """Begin a run; what comes of it is posted."""
        del coalesce  # pieces are passed on as the upstream cut them
        assert self._nursery is not None, "an engine that is ready runs"
        scope = self._runs[run] = trio.CancelScope()
        self._nursery.start_soon(self._answer, run, request, scope)

    def stop_run(self, run: RunId) -> None:
        """Hang up."""
        scope = self._runs.pop(run, None)
        if scope is not None:
            scope.cancel()

    # --- one run ----------------------------------------------------------------------------------
    async def _answer(self, run: RunId, request: TaskRequest, scope: trio.CancelScope) -> None:
        prompt, aside = _prompt_tokens(request), self._most(request)
        why = self._budget.refusal(aside)
        if why:
            wait_ms = self._budget.retry_after_ms(aside)
            failed = RunFailed(run, FaultCode.OVERLOADED, why, retry_after_ms=wait_ms)
            await self._tell(run, failed)
            return
        answer = _Answer(run, prompt)
        self._budget.set_aside(aside)
        begun = trio.current_time()
        outcome: Event | None = None
        try:
            with scope:
                outcome = await self._stream(request, answer, begun)
        finally:
            self._budget.settle(aside, self._cost(answer.tokens))
        if outcome is not None:
            await self._tell(run, outcome)

    async def _stream(self, request: TaskRequest, answer: _Answer, begun: float) -> Event:
        assert self._http is not None
        try:
            async with self._http.stream(
                "POST", "chat/completions", json=body_of(self._spec.model, request)
            ) as response:
                _check(response)
                received = response.aiter_raw()
                try:
                    await self._read(received, answer)
                finally:
                    await _close(response, received)
        except httpx.TimeoutException:
            silent = f"the upstream was silent for {self._spec.timeout_s:g} s"
            return RunFailed(answer.run, FaultCode.WORKER_LOST, silent)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            # Its text may hold what was sent; its kind says enough.
            broken = f"the upstream cannot be reached ({type(error).__name__})"
            return RunFailed(answer.run, FaultCode.WORKER_LOST, broken)
        except _UpstreamFailed as failed:
            wait_ms = failed.retry_after_ms
            return RunFailed(answer.run, failed.code, str(failed), retry_after_ms=wait_ms)
        if not answer.finish:
            return RunFailed(answer.run, FaultCode.WORKER_LOST, "the upstream broke off")
        return RunEnded(answer.run, answer.usage(), answer.timings(begun))

    async def _read(self, received: AsyncIterator[bytes], answer: _Answer) -> None:
        lines = _Lines()
        async for part in received:
            for line in lines.feed(part):
                for event in answer.take(line):
                    await self._tell(answer.run, event)
                if answer.over:
                    return

    async def _tell(self, run: RunId, event: Event) -> None:
        """Post what a run came to, unless nobody wants to know any more."""
        if run not in self._runs:
            return
        if isinstance(event, RunEnded | RunFailed):
            del self._runs[run]
        assert self._post is not None
        await self._post(event)

    def _most(self, request: TaskRequest) -> float:
        """What a request may cost."""
        return self._cost(_prompt_tokens(request) + (request.max_tokens or ASSUMED_ANSWER_TOKENS))

    def _cost(self, tokens: int) -> float:
        return tokens / 1000.0 * self._spec.price_per_1k


def _prompt_tokens(request: TaskRequest) -> int:
    """About so many: nobody here has its tokenizer."""
    return sum(len(turn.content) for turn in request.messages) // CHARACTERS_PER_TOKEN


class _Answer:
    """What has come of one run."""

    def __init__(self, run: RunId, prompt: int) -> None:
        self.run = run
        self.over = False
        self.finish = ""
        self._prompt = prompt
        self._pieces = 0
        self._counted: _Counts | None = None
        self._first: float | None = None

    def take(self, line: bytes) -> list[Event]:
        """What a line of the stream says; raises `_UpstreamFailed` where it is none."""
        if not line.startswith(b"data:"):
            return []
        data = line[5:].strip()
        if data == b"[DONE]":
            self.over = True
            return []
        try:
            event = _EVENTS.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if self.finish:
                return []  # the answer is whole: only its counts cannot be believed
            raise _UpstreamFailed("the upstream sent what is no answer") from None
        self._counted = event.usage or self._counted
        found: list[Event] = []
        for choice in event.choices:
            if choice.index == 0 and not self.finish:
                found.extend(self._chunk(choice))
        return found

    def _chunk(self, choice: _Choice) -> list[Event]:
        text, thought = choice.delta.content or "", choice.delta.reasoning_content or ""
        if choice.finish_reason:
            self.finish = _FINISHES.get(choice.finish_reason, "stop")
        if not (text or thought or self.finish):
            return []
        self._pieces += bool(text or thought)
        if self._first is None:
            self._first = trio.current_time()
        return [RunProduced(self.run, Chunk(0, (), text, finish=self.finish, reasoning=thought))]

    @property
    def tokens(self) -> int:
        """Tokens to pay for: as the upstream counted, or else about."""
        if self._counted is not None:
            return self._counted.prompt_tokens + self._counted.completion_tokens
        return self._prompt + self._pieces

    def usage(self) -> Usage:
        """Token counts."""
        counted = self._counted
        if counted is None:
            return Usage(self._prompt, self._pieces)
        return Usage(counted.prompt_tokens, counted.completion_tokens)

    def timings(self, begun: float) -> Timings:
        """Where the time went, as far as it can be seen from here."""
        now = trio.current_time()
        first = self._first if self._first is not None else now
        return Timings(0.0, (first - begun) * 1000.0, (now - first) * 1000.0)


_EVENTS = msgspec.json.Decoder(_Event)


def body_of(model: str, request: TaskRequest) -> dict[str, Any]:
    """A request in OpenAI's shape."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.max_tokens:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    body.update(_sampling(request.sampling))
    return body


def _sampling(sampling: Sampling) -> dict[str, Any]:
    names = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
    return {n: getattr(sampling, n) for n in names if getattr(sampling, n) is not None}


def _check(response: httpx.Response) -> None:
    """Raises `_UpstreamFailed` where it is no stream of an answer."""
    status = response.status_code
    if status == 429:
        wait_ms = _retry_after_ms(response.headers.get("retry-after", ""))
        raise _UpstreamFailed("the upstream is overloaded (429)", FaultCode.OVERLOADED, wait_ms)
    if status in (401, 403):
        log.error("the upstream refuses its key (%d); see [upstream]", status)
        raise _UpstreamFailed(f"the upstream refuses its key ({status})", FaultCode.NOT_READY)
    if 300 <= status < 400:
        raise _UpstreamFailed(f"the upstream points elsewhere ({status}), which is not followed")
    if status != 200:
        code = FaultCode.NOT_READY if status < 500 else FaultCode.WORKER_LOST
        raise _UpstreamFailed(f"the upstream answered with {status}", code)
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise _UpstreamFailed("the upstream sent no stream of events")


def _retry_after_ms(said: str) -> int:
    """When to come back; a date counts as not said, as the upstream's clock is not known here."""
    if not (said.isascii() and said.isdecimal() and len(said) < 10):
        return RETRY_MS
    return 1000 * min(int(said), RETRY_MOST_S)


class _Lines:
    """Cuts a stream into lines; raises `_UpstreamFailed` past its bounds."""

    def __init__(self) -> None:
        self._held = b""
        self._total = 0

    def feed(self, part: bytes) -> list[bytes]:
        """The lines that `part` completes."""
        self._total += len(part)
        if self._total > limits.UPSTREAM_ANSWER_BYTES:
            raise _UpstreamFailed("the upstream's answer has no end")
        *whole, self._held = (self._held + part).split(b"\n")
        if len(self._held) > limits.UPSTREAM_LINE_BYTES:
            raise _UpstreamFailed("the upstream sent a line without an end")
        return whole


async def _close(response: httpx.Response, received: AsyncIterator[bytes]) -> None:
    """Hang up, and let the generators below `received` come to their end, as trio wants them to."""
    with trio.CancelScope(shield=True):
        await response.aclose()
        try:
            async for _ in received:
                pass
        except (httpx.TransportError, httpx.StreamError):
            pass  # this is the end that was looked for
