"""Answers in steps: a small model first, and a larger one where that was not sure enough.

It stands between an answer and the node, and runs one task after the other where the answer sees
one. `core.cascade` judges and says who is asked.

Rules:
- An answer is held until it is judged; the last step's is told as it comes, as nobody is behind it.
- A step that fails costs nothing but its time: the next is asked, and where the larger ones fail
  the best that is there is given.
- All steps together have the deadline of the request.
- Log-probabilities are asked for to judge by, and told only to whom wanted them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from meshslm.api.openai_responses import CascadeInfo, CascadeStep
from meshslm.core.cascade import TOP, Check, Judgement, Tier, Written, fit_for_it, judge, ladder
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.service import NodeService, TaskItem, TaskStream
from meshslm.gateway.told import Told
from meshslm.gateway.transcript import Transcript
from meshslm.ids import TaskId
from meshslm.observe.meters import Meters
from meshslm.profiles import Profile
from meshslm.wire.messages import TaskRequest

HELD_TOKENS: Final = 8_192
"""Of an answer that is judged: with what could have been in their places some ten megabytes."""

NO_CHECK: Final = Check()


def checks_of(profiles: Iterable[Profile]) -> dict[str, Check]:
    """What a node's profiles say of answers that may be given, by name."""
    found = {}
    for profile in profiles:
        said = profile.cascade
        found[profile.name] = Check(said.confident, said.min_characters, said.pattern, said.always)
    return found


@dataclass
class _Tried:
    """What came of one step."""

    task: TaskId | None = None
    items: list[TaskItem] = field(default_factory=list)
    fault: RequestFault | None = None
    judgement: Judgement = field(default_factory=lambda: Judgement(0.0, ""))

    @property
    def whole(self) -> bool:
        return bool(self.items) and isinstance(self.items[-1], FinishTask)

    @property
    def tokens(self) -> int:
        """Of prompt and answer."""
        last = self.items[-1] if self.items else None
        if not isinstance(last, FinishTask):
            return 0
        return last.usage.prompt_tokens + last.usage.completion_tokens


@dataclass(frozen=True, slots=True)
class Cascading:
    """Takes the task of one answer."""

    service: NodeService
    meters: Meters
    told: Told
    checks: Mapping[str, Check]
    """Of this node's profiles, by name."""

    @asynccontextmanager
    async def submit(self, request: TaskRequest) -> AsyncIterator[TaskStream]:
        """Begin it. Raises `RequestFault` where it is to be answered in steps and cannot be."""
        tiers = await self._tiers(request)
        request = replace(request, routing=replace(request.routing, cascade=False))
        if not tiers:
            async with self.service.submit(request) as stream:
                yield stream
            return
        steps = _Steps(self, request, tiers)
        best = await steps.judged()
        if best is not None:
            yield _Held(best)
            return
        async with steps.last() as stream:
            yield stream

    async def _tiers(self, request: TaskRequest) -> tuple[Tier, ...]:
        """Whom to ask; nobody where it is answered as any other. Raises `RequestFault`."""
        wanted = request.routing.cascade
        if not wanted and not any(check.always for check in self.checks.values()):
            return ()
        if unfit := fit_for_it(request):
            if not wanted:
                return ()
            raise RequestFault(
                FaultCode.BAD_REQUEST, f"'routing.cascade': {unfit}.", param="routing.cascade"
            )
        await self.service.read(request)
        tiers = ladder(self.service.explain(request).assessments, request)
        if wanted or (tiers and self.checks.get(tiers[0].profile, NO_CHECK).always):
            return tiers
        return ()


class _Steps:
    """The steps of one answer."""

    def __init__(self, of: Cascading, request: TaskRequest, tiers: tuple[Tier, ...]) -> None:
        self._of = of
        self._request = request
        self._tiers = tiers
        self._begun_s = trio.current_time()
        self._tried: list[_Tried] = []
        self._info = CascadeInfo(steps=[], escalations=0, saved_tokens=0)
        of.told.cascade = self._info

    async def judged(self) -> _Tried | None:
        """The first answer that is good enough; None where only the last step is left."""
        for tier in self._tiers[:-1]:
            tried = await self._try(tier)
            self._tried.append(tried)
            if not tried.judgement.why_not:
                self._info.saved_tokens = tried.tokens
                self._count()
                return tried
            if self._left_ms() <= 0:
                self._count()
                return self._best(RequestFault(FaultCode.DEADLINE, "The time for it is over."))
            self._info.escalations += 1
        self._count()
        return None

    @asynccontextmanager
    async def last(self) -> AsyncIterator[TaskStream]:
        """The last step as it comes; what there is already, where it does not begin."""
        tier = self._tiers[-1]
        self._info.steps.append(CascadeStep(profile=tier.profile, model=tier.model))
        fault, entered = None, False
        try:
            async with self._of.service.submit(self._asked(tier, self._request.logprobs)) as stream:
                entered = True
                begun = await _beginning(stream)
                fault = _fault(begun[-1]) if begun else None
                if fault is None:
                    yield _Onward(stream, begun)
                    return
        except RequestFault as refused:
            if entered:
                raise
            fault = refused
        assert fault is not None
        self._info.steps[-1].why_not = fault.detail
        yield _Held(self._best(fault))

    async def _try(self, tier: Tier) -> _Tried:
        tried = _Tried()
        transcript, held = Transcript(), 0
        request = self._asked(tier, max(TOP, self._request.logprobs or 0))
        try:
            async with self._of.service.submit(request) as stream:
                tried.task = stream.task
                async for item in stream:
                    tried.items.append(self._shown(item))
                    if isinstance(item, EmitChunk):
                        transcript.add(item.chunk)
                        held += len(item.chunk.tokens)
                    if held > HELD_TOKENS:
                        break
        except RequestFault as fault:
            tried.fault = fault
        if tried.items and (fault_ := _fault(tried.items[-1])):
            tried.fault = fault_
        written = Written(
            transcript.text,
            transcript.finish if tried.whole else "",
            tuple(transcript.logprobs),
            tuple(call.text for call in transcript.of_kind("call")),
        )
        check = self._of.checks.get(tier.profile, NO_CHECK)
        tried.judgement = judge(written, self._request, check)
        self._note(tier, tried)
        return tried

    def _note(self, tier: Tier, tried: _Tried) -> None:
        why_not = tried.fault.detail if tried.fault else tried.judgement.why_not
        self._info.steps.append(
            CascadeStep(
                profile=tier.profile,
                model=tier.model,
                confidence=round(tried.judgement.confidence, 4) if tried.whole else None,
                why_not=why_not,
                tokens=tried.tokens,
            )
        )

    def _asked(self, tier: Tier, logprobs: int | None) -> TaskRequest:
        left = max(1, self._left_ms())
        return replace(self._request, selector=tier.selector, logprobs=logprobs, deadline_ms=left)

    def _left_ms(self) -> int:
        passed = (trio.current_time() - self._begun_s) * 1000
        return int(self._request.deadline_ms - passed)

    def _shown(self, item: TaskItem) -> TaskItem:
        """A chunk with as many probabilities as were asked for; other items as they are."""
        if not isinstance(item, EmitChunk) or not item.chunk.logprobs:
            return item
        wanted, known = self._request.logprobs, item.chunk.logprobs
        kept = () if wanted is None else tuple(replace(t, top=t.top[:wanted]) for t in known)
        return replace(item, chunk=replace(item.chunk, logprobs=kept))

    def _best(self, fault: RequestFault) -> _Tried:
        """The surest of the answers so far; a failure where there is none that is whole."""
        whole = [tried for tried in self._tried if tried.whole]
        if whole:
            return max(whole, key=lambda tried: tried.judgement.confidence)
        return _Tried(fault=fault)

    def _count(self) -> None:
        self._of.meters.cascaded(self._info.escalations, self._info.saved_tokens)


async def _beginning(stream: TaskStream) -> list[TaskItem]:
    """Everything up to the first chunk, or the end."""
    begun: list[TaskItem] = []
    async for item in stream:
        begun.append(item)
        if not isinstance(item, RouteChosen):
            break
    return begun


def _fault(item: TaskItem) -> RequestFault | None:
    if not isinstance(item, FailTask):
        return None
    retry_after_ms = item.retry_after_ms or None
    return RequestFault(
        item.code, item.detail, param=item.param or None, retry_after_ms=retry_after_ms
    )


class _Onward:
    """A stream whose beginning was looked at."""

    def __init__(self, stream: TaskStream, begun: list[TaskItem]) -> None:
        self._stream = stream
        self._begun = deque(begun)

    @property
    def task(self) -> TaskId:
        """The task's id."""
        return self._stream.task

    def __aiter__(self) -> TaskStream:
        return self

    async def __anext__(self) -> TaskItem:
        """The next item."""
        return self._begun.popleft() if self._begun else await anext(self._stream)

    def take_nowait(self) -> TaskItem | None:
        """The next item if it is there already."""
        return self._begun.popleft() if self._begun else self._stream.take_nowait()


class _Held:
    """An answer that was held, or why there is none."""

    def __init__(self, tried: _Tried) -> None:
        self.task = tried.task or TaskId("")
        self._items = deque(tried.items)
        if tried.fault is not None:
            fault = tried.fault
            retry, param = fault.retry_after_ms or 0, fault.param or ""
            self._items = deque([FailTask(self.task, fault.code, fault.detail, retry, param)])

    def __aiter__(self) -> TaskStream:
        return self

    async def __anext__(self) -> TaskItem:
        """The next item."""
        await trio.lowlevel.checkpoint()
        if not self._items:
            raise StopAsyncIteration
        return self._items.popleft()

    def take_nowait(self) -> TaskItem | None:
        """The next item if there is one."""
        return self._items.popleft() if self._items else None
