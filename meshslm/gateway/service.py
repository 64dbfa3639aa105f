"""What the gateway needs of the node behind it.

Declared here, where it is used: the daemon's service has this form, and so have the fakes of the
tests.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from meshslm.core.candidates import Decision
from meshslm.core.consensus.events import DecisionMade
from meshslm.core.consensus.view import ConsensusView
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.core.residency import Order
from meshslm.core.views import DrainView, ModelView, PeerView, StatusView
from meshslm.ids import NodeId, TaskId
from meshslm.wire.consensus import Command
from meshslm.wire.messages import TaskRequest

TaskItem: TypeAlias = RouteChosen | EmitChunk | FinishTask | FailTask


class TaskStream(Protocol):
    """What becomes of one task.

    `RouteChosen` (again, where it moved before its first token), then `EmitChunk` any number of
    times, then exactly one `FinishTask` or `FailTask`, then the end. A task may fail before it has
    a route.
    """

    @property
    def task(self) -> TaskId:
        """The task's id."""
        ...

    def __aiter__(self) -> TaskStream: ...

    async def __anext__(self) -> TaskItem:
        """The next item, when it is there."""
        ...

    def take_nowait(self) -> TaskItem | None:
        """The next item if it is there already."""
        ...


class Submitting(Protocol):
    """Takes tasks."""

    def submit(self, request: TaskRequest) -> AbstractAsyncContextManager[TaskStream]:
        """Begin a task; leaving the block before its end cancels it everywhere.

        Entering raises `RequestFault` (overloaded, not ready) where the node takes no tasks.
        """
        ...


class NodeService(Submitting, Protocol):
    """A running node."""

    async def read(self, request: TaskRequest) -> None:
        """Let the node read what a request means before `explain` judges it, if it can now."""
        ...

    def explain(self, request: TaskRequest) -> Decision:
        """Who would be asked for it now, and why; nothing is run."""
        ...

    def order_model(self, model: str, order: Order, *, at_once: bool = False) -> ModelView:
        """Give an order about a model of this node; how the model stands then.

        Raises `RequestFault` where it cannot be carried out. `status` tells what comes of it.
        """
        ...

    def drain(self, limit_ms: int) -> DrainView:
        """Have it finish its work and leave, within `limit_ms`; what is left now."""
        ...

    async def decide(
        self, command: Command | None, kind: str = "", subject: str = ""
    ) -> DecisionMade:
        """Have something decided or, without a command, hear what is."""
        ...

    async def seat(self, order: str, node: NodeId) -> DecisionMade:
        """Found a group of coordinators, or change who is in it."""
        ...

    def consensus(self) -> ConsensusView:
        """The group of coordinators, seen from here."""
        ...

    def peers(self) -> tuple[PeerView, ...]:
        """The nodes this node knows, itself among them."""
        ...

    def status(self) -> StatusView:
        """This node about itself."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether it can answer requests, and why not."""
        ...
