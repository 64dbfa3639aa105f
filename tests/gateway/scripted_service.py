"""A node without a mesh: its tasks follow a script that the test wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from struct import pack
from typing import Any

import trio

from meshslm.core.candidates import Decision, Refusal
from meshslm.core.consensus.events import DecisionMade
from meshslm.core.consensus.view import ConsensusView, SeatView
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.core.residency import Order
from meshslm.core.views import DrainView, ModelView, PeerView, StatusView, TaskCounts
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.service import TaskItem
from meshslm.ids import NodeId, TaskId
from meshslm.wire.consensus import Command
from meshslm.wire.messages import (
    CallPiece,
    Chunk,
    DomainCard,
    EngineLoad,
    Hardware,
    Specialist,
    TaskRequest,
    Timings,
    TokenLogprob,
    Usage,
)

TASK = TaskId("0123456789abcdef0123456789abcdef")
NODE = NodeId("12D3KooWScripted")

Step = TaskItem | trio.Event
Script = Callable[[TaskRequest], Iterable[Step]]


def route(*, node_name: str = "beta", reason: str = "domain code", attempt: int = 1) -> RouteChosen:
    return RouteChosen(TASK, NODE, node_name, "coder", "smollm2", "d" * 64, reason, attempt)


def says(
    text: str,
    *,
    choice: int = 0,
    finish: str = "",
    logprobs: tuple[TokenLogprob, ...] = (),
) -> EmitChunk:
    return EmitChunk(TASK, Chunk(choice, (1,), text, logprobs, finish, queue_ms=4.0))


def finished(prompt: int = 7, completion: int = 3, cached: int = 2) -> FinishTask:
    return FinishTask(
        TASK,
        Usage(prompt, completion, cached, guessed_tokens=5, accepted_tokens=2),
        Timings(4.0, 5.0, 600.0),
    )


def failed(
    code: FaultCode, detail: str = "it went wrong", retry_after_ms: int = 0, param: str = ""
) -> FailTask:
    return FailTask(TASK, code, detail, retry_after_ms, param)


def chunk(**fields: Any) -> EmitChunk:
    return EmitChunk(TASK, Chunk(**{"choice": 0, **fields}))


def calls(
    *made: tuple[str, str, str], thought: str = "", text: str = ""
) -> Callable[[TaskRequest], Iterable[Step]]:
    """A script that thinks, says and calls; a call is an id, a name and arguments, cut in two."""

    def script(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        if thought:
            yield chunk(tokens=(1, 2), reasoning=thought)
        if text:
            yield chunk(tokens=(3,), text=text)
        for index, (call_id, name, arguments) in enumerate(made):
            half = len(arguments) // 2
            yield chunk(tokens=(4,), calls=(CallPiece(index, call_id, name, arguments[:half]),))
            yield chunk(tokens=(5,), calls=(CallPiece(index, arguments=arguments[half:]),))
        yield chunk(finish="tool_calls" if made else "stop")
        yield finished()

    return script


def operation(request: TaskRequest) -> Iterable[Step]:
    """Vectors, scores, tokens and prompts of what was given, small and predictable."""
    match request.operation:
        case "embed":
            for item, text in enumerate(request.inputs or ("",)):
                size = float(len(text) or len(request.given))
                yield chunk(item=item, vector=pack("<3f", 3.0, 4.0, size))
        case "rerank":
            for item, text in enumerate(request.inputs):
                yield chunk(item=item, score=float(len(text)))
        case "tokenize":
            yield chunk(tokens=tuple(request.inputs[0].encode()))
        case "detokenize":
            yield chunk(text="".join(chr(token % 0xD800) for token in request.given))
        case _:
            yield chunk(text="|".join(message.content for message in request.messages))


def greeting(request: TaskRequest) -> Iterable[Step]:
    """Every choice says hello, in three chunks; other operations are done."""
    yield route()
    if request.operation != "generate":
        yield from operation(request)
        yield finished(completion=0)
        return
    for choice in range(request.choices):
        yield says("Hel", choice=choice)
        yield says("lo", choice=choice)
        yield says("!", choice=choice, finish="stop")
    yield finished(completion=3 * request.choices)


def breaking(code: FaultCode, detail: str, *first: TaskItem) -> Script:
    """Some of an answer comes, and while a client reads it the answer breaks off."""

    def script(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield from first
        passing = trio.Event()
        passing.set()
        yield passing
        yield failed(code, detail)

    return script


def nobody_waits() -> trio.Event:
    """A step that never ends."""
    return trio.Event()


@dataclass
class Visit:
    """One task, as the service saw it."""

    request: TaskRequest
    begun: trio.Event = field(default_factory=trio.Event)
    """The script has come to a step that waits, or to its end."""
    left: trio.Event = field(default_factory=trio.Event)
    to_the_end: bool = False


class ScriptedStream:
    """The task's items, in the order of the script; waits where the script waits."""

    task = TASK

    def __init__(self, steps: Iterator[Step], visit: Visit) -> None:
        self._steps = steps
        self._visit = visit
        self._ready: Step | None = None

    def __aiter__(self) -> ScriptedStream:
        return self

    async def __anext__(self) -> TaskItem:
        while True:
            step = self._next()
            if step is None:
                self._visit.begun.set()
                raise StopAsyncIteration
            if not isinstance(step, trio.Event):
                return step
            self._visit.begun.set()
            await step.wait()

    def take_nowait(self) -> TaskItem | None:
        step = self._next()
        if isinstance(step, trio.Event):
            self._ready = step
            return None
        return step

    def _next(self) -> Step | None:
        step, self._ready = self._ready, None
        if step is None:
            step = next(self._steps, None)
        self._visit.to_the_end |= isinstance(step, FinishTask | FailTask)
        return step


class ScriptedService:
    """Answers every request with `script`, and remembers it."""

    def __init__(self, script: Script = greeting) -> None:
        self.script = script
        self.refusal: RequestFault | None = None
        self.readiness = (True, "ready")
        self.visits: list[Visit] = []
        self.known: tuple[PeerView, ...] = (SELF, OTHER, GONE)
        self.drains: list[int] = []
        self.orders: list[tuple[str, Order, bool]] = []
        self.wanted: list[tuple[Command | None, str, str]] = []
        self.seats: list[tuple[str, NodeId]] = []
        self.made = DecisionMade(1, "decided", "", 9)
        self.ordered = "loading"
        """State that a model has after an order."""
        self.explained: list[TaskRequest] = []
        self.read_first: list[TaskRequest] = []
        self.decision = Decision(Refusal(FaultCode.UNKNOWN_MODEL, "nobody hosts it"), "auto", ())
        self._arrival = trio.Event()

    @asynccontextmanager
    async def submit(self, request: TaskRequest) -> AsyncIterator[ScriptedStream]:
        if self.refusal is not None:
            raise self.refusal
        visit = Visit(request)
        self.visits.append(visit)
        self._arrival.set()
        try:
            yield ScriptedStream(iter(self.script(request)), visit)
        finally:
            visit.left.set()

    async def next_visit(self) -> Visit:
        """The newest task, once there is one."""
        await self._arrival.wait()
        self._arrival = trio.Event()
        return self.visits[-1]

    async def read(self, request: TaskRequest) -> None:
        self.read_first.append(request)

    def explain(self, request: TaskRequest) -> Decision:
        self.explained.append(request)
        return self.decision

    def order_model(self, model: str, order: Order, *, at_once: bool = False) -> ModelView:
        if self.refusal is not None:
            raise self.refusal
        self.orders.append((model, order, at_once))
        return ModelView(model, self.ordered, 0.5, 300, order is Order.PIN, "")

    async def decide(
        self, command: Command | None, kind: str = "", subject: str = ""
    ) -> DecisionMade:
        self.wanted.append((command, kind, subject))
        return self.made

    async def seat(self, order: str, node: NodeId) -> DecisionMade:
        self.seats.append((order, node))
        return self.made

    def consensus(self) -> ConsensusView:
        return ConsensusView("g", "leader", 3, NODE, (NODE,), (SeatView(NODE, votes=True),), 7, 8)

    def drain(self, limit_ms: int) -> DrainView:
        self.drains.append(limit_ms)
        return DrainView(float(limit_ms), 1, 2)

    def peers(self) -> tuple[PeerView, ...]:
        return self.known

    def status(self) -> StatusView:
        return StatusView(
            node=SELF.node,
            name=SELF.name,
            mesh="test",
            version="0.0",
            boot=3,
            uptime_ms=1500.0,
            addresses=(SELF.address,),
            peers_alive=1,
            leaving=False,
            tasks=TaskCounts(9, 5, 1, 2, 1, 4, 1, 6, 3),
            loads=SELF.loads,
        )

    def ready(self) -> tuple[bool, str]:
        return self.readiness


def _peer(name: str, state: str, profile: str, domain: str, *, ready: bool) -> PeerView:
    card = DomainCard(domain, f"All about {domain}.", ("an example",))
    return PeerView(
        node=NodeId(f"12D3KooW{name}"),
        name=name,
        state=state,
        agent="meshslm/0.0",
        address="/ip4/127.0.0.1/tcp/4001",
        rtt_ms=None if state == "self" else 12.5,
        heard_ms=None if state == "self" else 250.0,
        specialists=(Specialist(profile, "smollm2", "d" * 64, "Q8_0", 2048, 8, (card,)),),
        hardware=Hardware(2, 8192, ("avx2",), ""),
        loads=(EngineLoad("smollm2", ready, 1, 2, 7, 900.0, 40.0),),
    )


SELF = _peer("alpha", "self", "writer", "writing", ready=True)
OTHER = _peer("beta", "alive", "coder", "code", ready=False)
GONE = _peer("gamma", "unreachable", "doctor", "medicine", ready=True)
