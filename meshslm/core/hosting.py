"""What this node hosts: the models of its own engines, and what it may ask outside the mesh.

Joins the table of models (`core.models`), the runs on them (`core.serving`), and what is announced
of both.

Events: what is hosted changes, engines come and go, runs say tokens, models are ordered.
Effects: `OrderAnswered`, and what the two decide.

Rules:
- Peers hear nothing of an upstream, and may send it nothing: it is for this node's own clients.
- A run by a peer needs the peer's right to submit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshslm.core import models, serving
from meshslm.core.admission import Admission, forbidden
from meshslm.core.certificates import Act
from meshslm.core.directory import Peer
from meshslm.core.events import (
    EngineLoading,
    EngineLost,
    EngineMeasured,
    EngineReady,
    EngineUnloaded,
    HostingChanged,
    Lane,
    RunEnded,
    RunFailed,
    RunProduced,
)
from meshslm.core.models import Models
from meshslm.core.outbox import Outbox
from meshslm.core.reading import Reading
from meshslm.core.residency import ModelOrdered, Order, OrderAnswered
from meshslm.core.serving import Serving
from meshslm.ids import Instant, RunId
from meshslm.wire.messages import (
    EngineLoad,
    Hardware,
    Specialist,
    TaskCancel,
    TaskDone,
    TaskResend,
    TaskSubmit,
)

Announce = Callable[[tuple[Specialist, ...], Hardware], None]
"""Says to all what is hosted here from now on."""


class Hosting:
    """Specialists of one node, with their models and runs."""

    def __init__(
        self,
        hosted: Models,
        runs: Serving,
        reading: Reading | None,
        admission: Admission,
        out: Outbox,
        announce: Announce,
    ) -> None:
        self._models = hosted
        self._serving = runs
        self._reading = reading
        self._admission = admission
        self._out = out
        self._announce = announce
        self.upstream: tuple[Specialist, ...] = ()
        """What this node's own clients can be answered with outside the mesh."""

    def event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """By class of event."""
        return {
            HostingChanged: self._on_hosting,
            ModelOrdered: self._on_ordered,
            EngineLoading: lambda e, _: self._models.loading(e.model, e.fraction),
            EngineReady: self._on_engine_ready,
            EngineLost: self._on_engine_lost,
            EngineUnloaded: lambda e, now: self._models.unloaded(e.model, now),
            EngineMeasured: lambda e, _: self._serving.engine_measured(
                e.model, e.prefill_tps, e.decode_tps, e.warm
            ),
            RunProduced: self._serving.produced,
            RunEnded: self._serving.ended,
            RunFailed: self._serving.failed,
        }

    def timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer; each takes the timer's subject."""
        return {
            models.TIMER: lambda _, now: self._models.timer(now),
            serving.DEADLINE: lambda s, now: self._serving.deadline(RunId(int(s)), now),
        }

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """What a member may ask of the runs here."""
        return {
            TaskSubmit: self._on_submit,
            TaskResend: lambda p, m, now: self._serving.resend(p.node, m, now),
            TaskDone: lambda p, m, _: self._serving.done(p.node, m),
            TaskCancel: lambda p, m, now: self._serving.cancel(p.node, m, now),
        }

    def told_loads(self) -> tuple[EngineLoad, ...]:
        """What peers hear of how busy the engines are."""
        outside = [s.model for s in self.upstream]
        return tuple(load for load in self._serving.loads() if load.model not in outside)

    def _on_hosting(self, event: HostingChanged, now: Instant) -> None:
        everything = (*event.specialists, *event.upstream)
        self.upstream = event.upstream
        self._serving.host(everything)
        if self._reading is not None:
            self._reading.host(event.specialists)
        names = tuple(dict.fromkeys(s.model for s in everything))
        self._models.host(names, event.residency, now)
        self._announce(event.specialists, event.hardware)

    def _on_ordered(self, event: ModelOrdered, now: Instant) -> None:
        refusal = self._models.order(event, now)
        if refusal is not None:
            self._out.put(OrderAnswered(event.number, *refusal))
            return
        if event.order is Order.UNLOAD:
            why = f"{event.model} was unloaded by order"
            self._serving.hand_back(event.model, why, now, running=event.at_once)
            self._models.settle(now)
        self._out.put(OrderAnswered(event.number))

    def _on_engine_ready(self, event: EngineReady, now: Instant) -> None:
        if self._models.ready(event.model, now):
            self._serving.engine_ready(event.model, event.slots, now)

    def _on_engine_lost(self, event: EngineLost, now: Instant) -> None:
        self._models.lost(event.model, event.reason, final=event.final, now=now)
        self._serving.engine_lost(event.model, event.reason, now)

    def _on_submit(self, peer: Peer, message: TaskSubmit, now: Instant) -> None:
        outside = any(s.profile == message.profile for s in self.upstream)
        if self._admission.may(peer.node, Act.SUBMIT) and not outside:
            self._serving.submit(peer.node, message, now)
        else:
            self._out.send(peer.node, Lane.CONTROL, forbidden(message))
