"""One node's decisions: `handle(event, now) -> effects`.

The only door into the core. It decodes what peers send, hands each event to the machine that it
concerns, and turns a peer's fault into the end of that peer's link.

Rules:
- No await, no clock, no randomness of its own, no I/O, no logging.
- The same events at the same times with the same `Chance` give the same effects.
- Whatever a peer sends, `handle` raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from meshslm import __version__
from meshslm.chance import Chance
from meshslm.core import (
    absence,
    admission,
    detection,
    dialling,
    growth,
    growth_hooks,
    hedging,
    membership,
    models,
    origin,
    rhythm,
    serving,
)
from meshslm.core.candidates import Candidate, Decision
from meshslm.core.certificates import Act
from meshslm.core.conduct import TASK_MESSAGES, Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.consensus.hook import coordination_of
from meshslm.core.cooling import Cooling
from meshslm.core.counting import task_counts
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.documents import Documents
from meshslm.core.drain import TIMER as DRAIN
from meshslm.core.drain import Drain
from meshslm.core.drain_events import DrainRequested
from meshslm.core.events import (
    AddressesChanged,
    AddressFound,
    BytesReceived,
    DialFailed,
    Disconnect,
    Effect,
    EngineLoading,
    EngineLost,
    EngineMeasured,
    EngineReady,
    EngineUnloaded,
    Event,
    HostingChanged,
    Lane,
    PeerConnected,
    PeerDisconnected,
    RunEnded,
    RunFailed,
    RunProduced,
    ShutdownRequested,
    Started,
    TaskArrived,
    TaskDropped,
    TimerFired,
)
from meshslm.core.growth_events import StatementSealed
from meshslm.core.outbox import Outbox
from meshslm.core.reach import Reach
from meshslm.core.reading import Reading, show
from meshslm.core.reading_events import RequestShown
from meshslm.core.residency import ModelOrdered, Order, OrderAnswered
from meshslm.core.router import Own, Router
from meshslm.core.shared_state import SharedState
from meshslm.core.views import PeerView, StatusView
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, RunId, TaskId, ms_between
from meshslm.wire.admission import JoinRequest
from meshslm.wire.codec import UnknownKind, decode
from meshslm.wire.detection import Gossip, Ping, Pong, Probe, Probed
from meshslm.wire.draining import Draining
from meshslm.wire.messages import (
    Capability,
    CapabilityWanted,
    EngineLoad,
    Goodbye,
    Hello,
    Presence,
    Specialist,
    TaskAccepted,
    TaskCancel,
    TaskChunk,
    TaskDone,
    TaskEnded,
    TaskFailed,
    TaskRefused,
    TaskRequest,
    TaskResend,
    TaskSubmit,
)

DROPPED = (PeerState.UNREACHABLE, PeerState.LEFT)
"""Of a peer whose link is about to end nothing more is heard."""


class NodeCore:
    """All machines of one node behind one door."""

    def __init__(self, config: CoreConfig, chance: Chance) -> None:
        self._config = config
        self._started = Instant(0)
        self._out = Outbox()
        self._directory = Directory()
        self._conduct = Conduct(self._out)
        self._dialling = dialling.Dialling(config.node, self._out, chance.fork("dialling"))
        self._models = models.Models(self._out, self._usage)
        self._serving = serving.Serving(
            config.node, config.queue_per_engine, self._out, self._models, self._deliver
        )
        self._reading = self._make_reading() if config.semantic else None
        self._upstream: tuple[Specialist, ...] = ()
        self._router = self._make_router(chance.fork("route"))
        self._origin = origin.Origin(
            config.node,
            self._serving,
            self._out,
            self._candidates,
            self._router.route,
            self._router.sent_on,
            config.hedge,
            self._reading.read if self._reading is not None else None,
        )
        self._admission = admission.Admission(
            config,
            self._directory,
            self._out,
            chance.fork("admission"),
            drop=self._drop,
            greet=self._greet,
        )
        self._detection = detection.Detection(
            config.node, self._out, chance.fork("detection"), self._silent
        )
        self.growth = self._growth(chance.fork("growth"))
        self._serving.changed = self.growth.coordinators.telling.changed
        self._state = SharedState(
            config, self._directory, self._out, chance.fork("state"), admission=self._admission
        )
        self._reach = Reach(config, self._directory, self._out)
        self._membership = self._make_membership(chance.fork("membership"))
        self._drain = Drain(
            config.node, self._out, self._origin, self._serving, self._membership.host_nothing
        )
        self.consensus = coordination_of(
            config, self._directory, self._admission, self._out, chance.fork("consensus")
        )
        self._state.forgetting.attach(self.consensus.asking)
        self._handlers = self._event_handlers()
        self._timers = self._timer_handlers()
        self._member_messages = self._message_handlers()

    def _make_membership(self, chance: Chance) -> membership.Membership:
        """Who is there, joined with the machines that were made before it."""
        return membership.Membership(
            self._config,
            self._directory,
            self._dialling,
            self._admission,
            self._detection,
            self._out,
            chance,
            absence.Absence(self._out, self._peer_gone, self._origin.peer_back),
            self._reach,
            loads=self._told_loads,
            growth=self.growth,
        )

    def _growth(self, chance: Chance) -> growth.Growth:
        """The large mesh, and what it needs of the other machines; membership is made after it."""
        hooks = growth_hooks.Hooks(
            own=lambda: (self._membership.capability, self._membership.presence()),
            addresses=lambda: self._membership.addresses,
            close=self._close,
            welcome=self._welcome,
            unreached=self._peer_gone,
            arrive=self._origin.arrive,
            likely=self._router.likely,
        )
        return growth.Growth(
            self._config,
            self._directory,
            self._dialling,
            self._detection,
            self._admission,
            self._conduct,
            self._out,
            chance,
            hooks,
        )

    def _event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """Keyed by class, each handler takes exactly that class: what `Any` cannot say."""
        return {
            **self._admission.event_handlers(),
            **self.consensus.event_handlers(),
            **self._state.event_handlers(),
            StatementSealed: self.growth.on_sealed,
            **self._reach.event_handlers(),
            Started: self._on_started,
            AddressesChanged: lambda e, now: self._membership.moved(e.addresses, now),
            TimerFired: self._on_timer,
            BytesReceived: self._on_bytes,
            PeerConnected: self._on_connected,
            PeerDisconnected: self._on_disconnected,
            DialFailed: self._on_dial_failed,
            AddressFound: lambda e, now: self._dialling.want(e.address, now),
            ShutdownRequested: self._on_shutdown,
            DrainRequested: self._drain.begin,
            TaskArrived: self._on_arrived,
            TaskDropped: self._on_dropped,
            HostingChanged: self._on_hosting,
            ModelOrdered: self._on_ordered,
            RequestShown: lambda e, now: show(self._reading, e, self._out, now),
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

    def _timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer; each takes the timer's subject."""
        return {
            **self._state.timer_handlers(),
            **self.consensus.timer_handlers(),
            **self._reach.timer_handlers(),
            admission.SWEEP: lambda _, now: self._admission.sweep(now),
            rhythm.TICK: lambda _, now: self._on_tick(now),
            membership.HELLO: lambda s, now: self._membership.hello_timer(NodeId(s), now),
            absence.TIMER: lambda s, now: self._membership.absence.timer(NodeId(s), now),
            dialling.TIMER: self._dialling.timer,
            detection.TIMER: lambda _, now: self._detection.timer(now),
            DRAIN: lambda _, now: self._drain.timer(now),
            **self.growth.timer_handlers(),
            models.TIMER: lambda _, now: self._models.timer(now),
            serving.DEADLINE: lambda s, now: self._serving.deadline(RunId(int(s)), now),
            origin.DEADLINE: lambda s, now: self._origin.deadline(TaskId(s), now),
            origin.WATCH: lambda s, now: self._origin.watch(TaskId(s), now),
            origin.GAP: lambda s, _: self._origin.gap(TaskId(s)),
            hedging.TIMER: lambda s, now: self._origin.late(TaskId(s), now),
            origin.RETRY: lambda s, now: self._origin.retry(TaskId(s), now),
        }

    def _message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """What a member may send once its hello was heard."""
        member = self._membership
        return {
            Presence: member.on_presence,
            Ping: self._detection.on_ping,
            Pong: self._detection.on_pong,
            Probe: self._detection.on_probe,
            Probed: lambda _, m, now: self._detection.on_probed(m, now),
            Gossip: self._detection.on_gossip,
            Capability: lambda p, m, _: member.on_capability(p, m),
            CapabilityWanted: lambda p, _m, _: member.on_capability_wanted(p),
            Goodbye: lambda p, m, now: member.on_goodbye(p.node, m, now),
            **self._admission.message_handlers(),
            **self.consensus.message_handlers(),
            **self._state.message_handlers(),
            Draining: lambda p, m, now: self._drain.told(p.node, m, now),
            **self.growth.message_handlers(),
            **self._reach.message_handlers(),
            TaskSubmit: self._on_submit,
            TaskResend: lambda p, m, now: self._serving.resend(p.node, m, now),
            TaskDone: lambda p, m, _: self._serving.done(p.node, m),
            TaskCancel: lambda p, m, now: self._serving.cancel(p.node, m, now),
            **dict.fromkeys(
                (TaskAccepted, TaskRefused, TaskChunk, TaskEnded, TaskFailed),
                lambda p, m, now: self._origin.reply(p.node, m, now),
            ),
        }

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Everything that follows from `event`, in the order in which it is to be done."""
        self._router.now = self.growth.now = now
        self._handlers[type(event)](event, now)
        effects = self._out.take()
        self._router.learn(effects)
        return effects

    # --- events that concern several machines ---------------------------------------------------
    def _on_started(self, event: Started, now: Instant) -> None:
        self._started = now
        self._admission.start()
        self._state.boot = event.boot
        self.growth.start(event.boot)
        self._membership.start(event.boot, event.addresses, now)

    def _on_connected(self, event: PeerConnected, now: Instant) -> None:
        refusal = self._conduct.refusal(event.peer, now)
        if refusal:
            self._dialling.failed(event.address, now, reason=refusal)
            self._out.put(Disconnect(event.peer, refusal))
        else:
            self._membership.connected(event.peer, event.address, event.came_from, now)

    def _on_disconnected(self, event: PeerDisconnected, now: Instant) -> None:
        if event.fault:
            self._conduct.strike(event.peer, event.reason, now)
        self._membership.disconnected(event.peer, event.reason, now, fault=event.fault)

    def _on_dial_failed(self, event: DialFailed, now: Instant) -> None:
        linked = event.peer == self._config.node or (
            event.peer in self._directory.peers and self._directory.peers[event.peer].connected
        )
        self._dialling.failed(event.address, now, event.peer if linked else None, event.reason)
        if event.refused:
            self._membership.absence.refused(event.address, now)

    def _on_timer(self, event: TimerFired, now: Instant) -> None:
        if self._out.timer_is_current(event.key, event.generation):
            self._timers[event.key.kind](event.key.subject, now)

    def _on_tick(self, now: Instant) -> None:
        self._serving.sweep(now)
        self._membership.tick(now)
        if self._reading is not None:
            self._router.know()
            self._reading.learn(now)

    def _on_arrived(self, event: TaskArrived, now: Instant) -> None:
        takes = self.growth.finding if self.growth.large else self._origin
        takes.arrive(event.task, event.request, now)

    def _on_dropped(self, event: TaskDropped, now: Instant) -> None:
        self.growth.finding.drop(event.task)
        self._router.dropped(event.task)
        self._origin.drop(event.task, now)

    def _on_hosting(self, event: HostingChanged, now: Instant) -> None:
        everything = (*event.specialists, *event.upstream)
        self._upstream = event.upstream
        self._serving.host(everything)
        if self._reading is not None:
            self._reading.host(event.specialists)
        names = tuple(dict.fromkeys(s.model for s in everything))
        self._models.host(names, event.residency, now)
        self._membership.host(() if self._drain.begun else event.specialists, event.hardware)

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

    def _on_shutdown(self, _event: ShutdownRequested, now: Instant) -> None:
        self.growth.leave(now)
        self.consensus.leave(now)
        self._origin.leave(now)
        self._serving.leave(now)
        self._membership.leave()

    def _on_bytes(self, event: BytesReceived, now: Instant) -> None:
        peer = self._directory.peers.get(event.peer)
        if peer is None or not peer.connected or peer.state in DROPPED:
            return
        try:
            self._hear(peer, event.message, now)
        except PeerFault as fault:
            self._out.tell("peer.fault", str(fault), peer=event.peer)
            self._conduct.strike(event.peer, str(fault), now)
            self._membership.drop(peer, f"fault: {fault}", now)

    def _hear(self, peer: Peer, encoded: bytes, now: Instant) -> None:
        message = None
        self._admission.hear(peer, len(encoded))
        try:
            message = decode(encoded)
        except UnknownKind as unknown:
            self._out.tell("peer.unknown-message", str(unknown), peer=peer.node)
        alive = peer.state is PeerState.ALIVE
        if not (alive and self._is_free(peer, message)):
            self._conduct.spend(peer.node, now)
        if type(message) is Hello:
            self._membership.on_hello(peer.node, message, now)
            if peer.state is PeerState.ALIVE:
                self._state.met(peer)
        elif message is not None and (alive or type(message) in (Goodbye, JoinRequest)):
            peer.heard = now
            if type(message) in TASK_MESSAGES:
                peer.used = now
            self._member_messages[type(message)](peer, message, now)

    def _is_free(self, peer: Peer, message: object) -> bool:
        """Whether a member may send as much of it as the link brings."""
        return type(message) in TASK_MESSAGES or self.consensus.heard_freely(peer.node, message)

    def _on_submit(self, peer: Peer, message: TaskSubmit, now: Instant) -> None:
        outside = any(s.profile == message.profile for s in self._upstream)
        if self._admission.may(peer.node, Act.SUBMIT) and not outside:
            self._serving.submit(peer.node, message, now)
        else:
            self._out.send(peer.node, Lane.CONTROL, admission.forbidden(message))

    def _usage(self, model: str) -> tuple[int, int]:
        return self._serving.usage(model)

    def _drop(self, peer: Peer, reason: str, now: Instant) -> None:
        self._membership.drop(peer, reason, now)

    def _close(self, peer: Peer, reason: str, now: Instant) -> None:
        self._membership.close(peer, reason, now)

    def _welcome(self, peer: Peer, now: Instant) -> None:
        self._membership.welcome(peer, now)

    def _silent(self, peer: Peer, reason: str, now: Instant) -> None:
        self.growth.silent(peer, now)
        self._membership.drop(peer, reason, now)

    def _greet(self, now: Instant) -> None:
        self._membership.greet_all(now)

    def _peer_gone(self, peer: NodeId, reason: str, now: Instant) -> None:
        self._state.parted(peer)
        self._serving.peer_gone(peer, now)
        self._origin.peer_gone(peer, reason, now)

    # --- routing --------------------------------------------------------------------------------
    def _deliver(self, node: NodeId, reply: serving.Reply, now: Instant) -> None:
        if self._reading is not None and self._reading.owns(reply.task):
            self._reading.reply(reply, now)
        else:
            self._origin.reply(node, reply, now)

    def _make_router(self, chance: Chance) -> Router:
        return Router(
            self._directory,
            chance,
            self._own,
            strategy=self._config.strategy,
            tiers=self._config.tiers,
            reading=self._reading,
        )

    def _make_reading(self) -> Reading:
        return Reading(
            self._config.node,
            self._serving,
            self._out,
            self._models.takes_runs,
            lambda task, now: self._origin.was_read(task, now),  # noqa: PLW0108 - made later
            self._config.unsure_below,
        )

    def _own(self) -> Own:
        config = self._config
        capability, loads = self._membership.capability, self._serving.loads()
        return Own(config.node, config.name, capability, loads, self._upstream)

    def _told_loads(self) -> tuple[EngineLoad, ...]:
        """What peers hear of: not an upstream, which is for this node's own clients."""
        outside = [s.model for s in self._upstream]
        return tuple(load for load in self._serving.loads() if load.model not in outside)

    def _candidates(self) -> list[Candidate]:
        return self._router.candidates(others=self._admission.may(self._config.node, Act.SUBMIT))

    def explain(
        self, request: TaskRequest, now: Instant, refused: Mapping[str, str] | None = None
    ) -> Decision:
        """Who would be asked now, and why; nothing is run. `refused`: see `Choosing.explain`."""
        decide = self._router.explaining(request, now)
        return self._origin.choosing.explain(refused or {}, now, decide)

    # --- what can be seen -----------------------------------------------------------------------
    def specialists(self) -> tuple[Specialist, ...]:
        """What this node announces."""
        return self._membership.capability.specialists

    def loads(self) -> tuple[EngineLoad, ...]:
        """How busy this node's engines are."""
        return self._serving.loads()

    @property
    def documents(self) -> Documents:
        """Shared documents, to be read; local programs change them by `StateWrite`."""
        return self._state.documents

    def may_relay(self, node: NodeId) -> bool:
        """Whether a peer may reserve a place here, or connect through this node."""
        return self._reach.may_relay(node)

    def announced(self) -> PeerView:
        """This node, with what it tells others of itself."""
        config, member = self._config, self._membership
        capability = member.capability
        return PeerView(
            config.node,
            config.name,
            "self",
            config.agent,
            member.addresses[0] if member.addresses else "",
            0.0,
            0.0,
            capability.specialists,
            capability.hardware,
            self._serving.loads(),
            member.addresses,
        )

    def peers(self, now: Instant) -> tuple[PeerView, ...]:
        """Every node known here, this one first."""
        own = self.announced()
        own = replace(own, specialists=(*own.specialists, *self._upstream))
        if self.growth.large:
            return (own, *self.growth.views(now))
        return (own, *(peer.view(now) for peer in self._directory.peers.values()))

    def status(self, now: Instant) -> StatusView:
        """This node about itself."""
        return StatusView(
            node=self._config.node,
            name=self._config.name,
            mesh=self._config.mesh,
            version=__version__,
            boot=self._membership.boot,
            uptime_ms=ms_between(self._started, now),
            addresses=self._membership.addresses,
            peers_alive=self.growth.alive,
            leaving=self._membership.leaving,
            tasks=task_counts(self._origin, self._serving),
            loads=self._serving.loads(),
            models=self._models.views(),
            memory_budget_mib=self._models.budget_mib,
            bootstrap=self._dialling.configured(now),
            banned=self._conduct.banned(now),
            state=self._state.view(),
            drain=self._drain.view(now),
            reach=self._reach.view(now),
        )

    @property
    def cooling(self) -> Cooling:
        """Which engines are left alone for a while."""
        return self._origin.cooling

    def unready(self) -> tuple[str, ...]:
        """What keeps this node's own models from being as its settings want them."""
        return self._models.unready()

    def check(self) -> None:
        """Raise `AssertionError` where an invariant of any machine is broken."""
        self._conduct.check()
        self._dialling.check()
        self._admission.check()
        self._state.check()
        self._membership.check()
        self._reach.check()
        self._detection.check()
        self.growth.check()
        self._models.check()
        self._serving.check()
        self.consensus.check()
        self._origin.check()
        self._router.check()
