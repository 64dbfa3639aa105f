"""What the faces of a node (HTTP, dashboard) may do with it.

Rules:
- A stream is opened by `submit` and closed by leaving its block; whoever leaves before the end has
  hung up, and the task is cancelled wherever it runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from meshslm.chance import Chance
from meshslm.core.candidates import Decision
from meshslm.core.consensus.events import DecisionMade, DecisionWanted, SeatOrdered
from meshslm.core.consensus.view import ConsensusView
from meshslm.core.drain_events import Drained, DrainRequested
from meshslm.core.events import (
    EmitChunk,
    Event,
    TaskArrived,
    TaskDropped,
)
from meshslm.core.node import NodeCore
from meshslm.core.reading_events import RequestRead, RequestShown
from meshslm.core.residency import ModelOrdered, Order, OrderAnswered
from meshslm.core.views import DhtView, DrainView, ModelView, PeerView, StatusView
from meshslm.daemon.chronicler import Chronicler
from meshslm.daemon.pump import Pump
from meshslm.daemon.task_stream import ClientEffect, TaskStream
from meshslm.errors import RequestFault
from meshslm.ids import NodeId, TaskId
from meshslm.ports import Clock
from meshslm.wire.consensus import Command
from meshslm.wire.messages import TaskRequest


class NodeService:
    """One node, as its faces see it."""

    def __init__(
        self,
        core: NodeCore,
        pump: Pump,
        clock: Clock,
        chance: Chance,
        *,
        readiness: Callable[[], tuple[bool, str]],
    ) -> None:
        self._core = core
        self._pump = pump
        self._clock = clock
        self._chance = chance
        self._readiness = readiness
        self._streams: dict[TaskId, TaskStream] = {}
        self.free_to_go = trio.Event()
        """Set when a node that was asked to leave has nothing left to do."""
        self.chronicler: Chronicler | None = None
        """Who writes down what becomes of tasks."""
        self.dht: Callable[[], DhtView] | None = None
        """Tells how members are looked for through a DHT, where they are."""
        self.refuses: Callable[[TaskRequest], Mapping[str, str]] = lambda _: {}
        """Models that would refuse a request at once, by bounds that the core does not know."""
        self._reads: dict[int, trio.Event] = {}
        self._orders = 0
        self._answer: OrderAnswered | None = None
        self._decisions: dict[int, tuple[trio.Event, list[DecisionMade]]] = {}

    @asynccontextmanager
    async def submit(self, request: TaskRequest) -> AsyncIterator[TaskStream]:
        """Ask the mesh; the stream yields what comes back."""
        stream = TaskStream(self._chance.task_id())
        self._streams[stream.task] = stream
        if self.chronicler is not None:
            self.chronicler.arrived(stream.task, request)
        try:
            self._pump.handle(TaskArrived(stream.task, request))
            yield stream
        finally:
            del self._streams[stream.task]
            if self.chronicler is not None and not stream.ended:
                self.chronicler.dropped(stream.task)
            if not stream.ended:
                self._pump.handle(TaskDropped(stream.task))

    def deliver(self, effect: ClientEffect) -> None:
        """Hand an effect of the core to the stream it is for."""
        if self.chronicler is not None and not isinstance(effect, EmitChunk):
            self.chronicler.told(effect)
        stream = self._streams.get(effect.task)
        if stream is not None and not stream.push(effect):
            if self.chronicler is not None:
                self.chronicler.dropped(effect.task)
            self._pump.handle(TaskDropped(effect.task))

    def order_model(self, model: str, order: Order, *, at_once: bool = False) -> ModelView:
        """Give an order about a model of this node; how the model stands then.

        Raises `RequestFault` where it cannot be carried out. `status` tells what comes of it.
        """
        self._orders += 1
        self._pump.handle(ModelOrdered(self._orders, model, order, at_once))
        answer, self._answer = self._answer, None
        assert answer is not None, "no face of the node acts while an event is handled"
        assert answer.number == self._orders
        if answer.refusal is not None:
            raise RequestFault(answer.refusal, answer.detail, param="model")
        return next(view for view in self.status().models if view.model == model)

    def drain(self, limit_ms: int) -> DrainView:
        """Have this node finish its work and leave, within `limit_ms`; what is left now."""
        self._pump.handle(DrainRequested(limit_ms))
        view = self.status().drain
        assert view is not None, "no face of the node acts while an event is handled"
        return view

    def drained(self, _effect: Drained) -> None:
        """The node may go."""
        self.free_to_go.set()

    def answer_order(self, effect: OrderAnswered) -> None:
        """Take the core's answer to the order that is being given."""
        self._answer = effect

    async def read(self, request: TaskRequest) -> None:
        """Let the node read a request that `explain` is to judge; bounded by `reading.SHOWN_MS`."""
        self._orders += 1
        number = self._orders
        self._reads[number] = read = trio.Event()
        try:
            self._pump.handle(RequestShown(number, request))
            await read.wait()
        finally:
            del self._reads[number]

    def request_read(self, effect: RequestRead) -> None:
        """Take that it was read; whoever waited for it may have gone."""
        if effect.number in self._reads:
            self._reads[effect.number].set()

    def explain(self, request: TaskRequest) -> Decision:
        """Who would be asked for it now, and why; nothing is run."""
        return self._core.explain(request, self._clock.now(), self.refuses(request))

    async def decide(
        self, command: Command | None, kind: str = "", subject: str = ""
    ) -> DecisionMade:
        """Have something decided or, without a command, hear what is; within seconds."""
        return await self._decision(lambda number: DecisionWanted(number, command, kind, subject))

    async def seat(self, order: str, node: NodeId) -> DecisionMade:
        """Found a group of coordinators, or change who is in it; answered at once."""
        return await self._decision(lambda number: SeatOrdered(number, order, node))

    async def _decision(self, event: Callable[[int], Event]) -> DecisionMade:
        self._orders += 1
        number, made = self._orders, trio.Event()
        answers: list[DecisionMade] = []
        self._decisions[number] = (made, answers)
        try:
            self._pump.handle(event(number))
            await made.wait()
        finally:
            del self._decisions[number]
        return answers[0]

    def answer_decision(self, effect: DecisionMade) -> None:
        """Take what became of a decision; whoever waited for it may have gone."""
        if effect.number in self._decisions:
            made, answers = self._decisions[effect.number]
            answers.append(effect)
            made.set()

    def consensus(self) -> ConsensusView:
        """The group of coordinators, seen from here."""
        return self._core.consensus.view()

    def peers(self) -> tuple[PeerView, ...]:
        """Every node known here, this one first."""
        return self._core.peers(self._clock.now())

    def status(self) -> StatusView:
        """This node about itself."""
        status = self._core.status(self._clock.now())
        return status if self.dht is None else replace(status, dht=self.dht())

    def ready(self) -> tuple[bool, str]:
        """Whether this node can answer, and why not."""
        return self._readiness()
