"""The machines of one node that tasks pass through, made and joined.

A task of a local client is perhaps read first (`core.reading`), routed (`core.router`) and followed
until its answer is complete (`core.origin`). Where this node answers, for its own clients or for
peers, it is a run (`core.serving`) on a model (`core.models`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshslm.chance import Chance
from meshslm.core import hedging, origin
from meshslm.core.candidates import Candidate, Decision
from meshslm.core.config import CoreConfig
from meshslm.core.directory import Directory, Peer
from meshslm.core.models import Models
from meshslm.core.outbox import Outbox
from meshslm.core.reading import Reading
from meshslm.core.router import Own, Router
from meshslm.core.serving import Reply, Serving
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.wire.messages import (
    TaskAccepted,
    TaskChunk,
    TaskEnded,
    TaskFailed,
    TaskRefused,
    TaskRequest,
)


class TaskMachines:
    """Makes each, and what only they need of each other."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        out: Outbox,
        chance: Chance,
        own: Callable[[], Own],
        may_ask_others: Callable[[], bool],
    ) -> None:
        """`own`: this node as routing sees it; both are asked when a task is routed."""
        self._may_ask_others = may_ask_others
        self.models = Models(out, lambda model: self.serving.usage(model))  # noqa: PLW0108 - made next
        self.serving = Serving(
            config.node, config.queue_per_engine, out, self.models, self._deliver
        )
        self.reading = self._reading(config, out) if config.semantic else None
        self.router = Router(
            directory,
            chance,
            own,
            strategy=config.strategy,
            tiers=config.tiers,
            reading=self.reading,
        )
        self.origin = origin.Origin(
            config.node,
            self.serving,
            out,
            self._candidates,
            self.router.route,
            self.router.sent_on,
            config.hedge,
            self.reading.read if self.reading is not None else None,
        )

    def _reading(self, config: CoreConfig, out: Outbox) -> Reading:
        return Reading(
            config.node,
            self.serving,
            out,
            self.models.takes_runs,
            lambda task, now: self.origin.was_read(task, now),  # noqa: PLW0108 - made later
            config.unsure_below,
        )

    def timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer; each takes the timer's subject, a task of a local client."""
        return {
            origin.DEADLINE: lambda s, now: self.origin.deadline(TaskId(s), now),
            origin.WATCH: lambda s, now: self.origin.watch(TaskId(s), now),
            origin.GAP: lambda s, now: self.origin.gap(TaskId(s), now),
            hedging.TIMER: lambda s, now: self.origin.late(TaskId(s), now),
            origin.RETRY: lambda s, now: self.origin.retry(TaskId(s), now),
        }

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """What a member may say of tasks that it was asked for from here."""
        replies = (TaskAccepted, TaskRefused, TaskChunk, TaskEnded, TaskFailed)
        return dict.fromkeys(replies, lambda p, m, now: self.origin.reply(p.node, m, now))

    def _deliver(self, node: NodeId, reply: Reply, now: Instant) -> None:
        """A run here, asked for by this node itself, goes on."""
        if self.reading is not None and self.reading.owns(reply.task):
            self.reading.reply(reply, now)
        else:
            self.origin.reply(node, reply, now)

    def _candidates(self) -> list[Candidate]:
        return self.router.candidates(others=self._may_ask_others())

    def explain(
        self, request: TaskRequest, now: Instant, refused: Mapping[str, str] | None = None
    ) -> Decision:
        """Who would be asked now, and why; nothing is run. `refused`: see `Choosing.explain`."""
        decide = self.router.explaining(request, now)
        return self.origin.choosing.explain(refused or {}, now, decide)

    def learn(self, now: Instant) -> None:
        """Once a presence interval: read the cards that are new."""
        if self.reading is not None:
            self.router.know()
            self.reading.learn(now)

    def drop(self, task: TaskId, now: Instant) -> None:
        """The client of a task is gone."""
        self.router.dropped(task)
        self.origin.drop(task, now)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.models.check()
        self.serving.check()
        self.origin.check()
        self.router.check()
