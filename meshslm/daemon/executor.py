"""Performs a core's effects: the one place where decisions become deeds.

Rules:
- Effects are performed in order and return at once.
- What goes wrong comes back as an event; nothing raises into the pump.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from meshslm.core.admission_events import IssueCredential, KeepCredential, KeepNotice
from meshslm.core.consensus.events import DecisionMade, PersistLog
from meshslm.core.drain_events import Drained
from meshslm.core.events import (
    Dial,
    Disconnect,
    Effect,
    EmitChunk,
    FailTask,
    FinishTask,
    LoadModel,
    RouteChosen,
    RunFailed,
    Send,
    StartRun,
    StartTimer,
    StopRun,
    StopTimer,
    Tell,
    UnloadModel,
)
from meshslm.core.growth_events import SealStatement, StatementSealed
from meshslm.core.reach_events import OfferRelay, PunchTo, Reserve, TryDial
from meshslm.core.reading_events import RequestRead
from meshslm.core.residency import OrderAnswered
from meshslm.daemon.defaults import fill
from meshslm.daemon.membership_keeper import MembershipKeeper
from meshslm.daemon.pump import Pump
from meshslm.daemon.service import NodeService
from meshslm.daemon.state_keeper import StateKeeper
from meshslm.daemon.timers import Timers
from meshslm.errors import FaultCode
from meshslm.ports import Engine, Link, Reach
from meshslm.profiles import Profile
from meshslm.wire.admission import Signed

log = logging.getLogger("meshslm.node")

QUIET = frozenset({"peer.unknown-message", "task.moved"})
"""Topics that are logged for debugging only."""
LOUD = frozenset({"dial.failed", "mesh.expelled", "mesh.not-renewed"})
"""Topics that somebody has to do something about."""


class Loader(Protocol):
    """Who starts and ends engines."""

    def load(self, model: str) -> None:
        """Start the engine of a model; ends in `EngineReady`, or in a final `EngineLost`."""
        ...

    def unload(self, model: str) -> None:
        """End it; ends in `EngineUnloaded`."""
        ...


class Executor:
    """The hands of one node."""

    def __init__(self, link: Link, timers: Timers, service: NodeService, pump: Pump) -> None:
        self._link = link
        self._timers = timers
        self._service = service
        self._pump = pump
        self._engines: Mapping[str, Engine] = {}
        self._profiles: Mapping[str, Profile] = {}
        self._loader: Loader | None = None
        self._do: dict[type, Callable[..., None]] = {
            Send: lambda e: link.send(e.peer, e.lane, e.message),
            EmitChunk: service.deliver,
            StartTimer: timers.start,
            StopTimer: lambda e: timers.stop(e.key),
            LoadModel: self._load,
            UnloadModel: self._unload,
            StartRun: self._start_run,
            StopRun: self._stop_run,
            RouteChosen: service.deliver,
            FinishTask: service.deliver,
            FailTask: service.deliver,
            Drained: service.drained,
            OrderAnswered: service.answer_order,
            DecisionMade: service.answer_decision,
            RequestRead: service.request_read,
            Dial: lambda e: link.dial(e.address),
            Disconnect: lambda e: link.disconnect(e.peer, e.reason),
            Tell: self._tell,
        }

    def seal_with(self, seal: Callable[[bytes], Signed]) -> None:
        """This node's key, with which it signs what it says of itself to a large mesh."""

        def perform(effect: SealStatement) -> None:
            farewell = seal(effect.farewell) if effect.farewell else None
            self._pump.handle(StatementSealed(seal(effect.payload), farewell))

        self._do[SealStatement] = perform

    def keep_membership(self, keeper: MembershipKeeper) -> None:
        """Of a private mesh: who signs, and writes down."""
        self._do[IssueCredential] = keeper.issue
        self._do[KeepCredential] = keeper.keep_credential
        self._do[KeepNotice] = keeper.keep_notice

    def keep_state(self, keeper: StateKeeper) -> None:
        """Who keeps shared documents."""
        self._do.update(keeper.performers())

    def keep_log(self, persist: Callable[[PersistLog], None]) -> None:
        """Of a coordinator: who writes its log."""
        self._do[PersistLog] = persist

    def reach_by(self, reach: Reach) -> None:
        """Of a node that looks into how it is reached: what does so."""
        self._do[TryDial] = lambda e: reach.try_dial(e.number, e.address)
        self._do[Reserve] = lambda e: reach.reserve(e.relay)
        self._do[OfferRelay] = lambda e: reach.offer_relay(on=e.on)
        self._do[PunchTo] = lambda e: reach.punch(e.address)

    def host(
        self, engines: Mapping[str, Engine], profiles: Mapping[str, Profile], loader: Loader
    ) -> None:
        """Engines by model and profiles by name, from now on, and who starts them."""
        self._engines = engines
        self._profiles = profiles
        self._loader = loader

    def perform(self, effect: Effect) -> None:
        """Do it."""
        self._do[type(effect)](effect)

    def _load(self, effect: LoadModel) -> None:
        assert self._loader is not None, "the core hosts what the executor does not"
        self._loader.load(effect.model)

    def _unload(self, effect: UnloadModel) -> None:
        assert self._loader is not None, "the core hosts what the executor does not"
        self._loader.unload(effect.model)

    def _start_run(self, effect: StartRun) -> None:
        engine = self._engines.get(effect.model)
        profile = self._profiles.get(effect.profile)
        if engine is None or profile is None:
            gone = f"{effect.profile} on {effect.model} is not hosted here any more"
            self._pump.handle(RunFailed(effect.run, FaultCode.NOT_READY, gone))
            return
        request = fill(effect.request, profile)
        engine.start_run(effect.run, request, coalesce=effect.coalesce)

    def _stop_run(self, effect: StopRun) -> None:
        engine = self._engines.get(effect.model)
        if engine is not None:
            engine.stop_run(effect.run)

    def _tell(self, effect: Tell) -> None:
        level = logging.DEBUG if effect.topic in QUIET else logging.INFO
        if effect.topic in LOUD:
            level = logging.WARNING
        about = effect.peer or effect.task or ""
        log.log(level, "%s %s %s", effect.topic, about, effect.detail)
