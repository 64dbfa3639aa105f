"""One node's decisions: `handle(event, now) -> effects`.

The only door into the core. It makes the machines, and hands each event to the one that it
concerns; `core.links` reads what peers send, `core.task_machines` joins what tasks pass through.

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
    membership,
    rhythm,
)
from meshslm.core.candidates import Decision
from meshslm.core.certificates import Act
from meshslm.core.conduct import Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.consensus.hook import coordination_of
from meshslm.core.cooling import Cooling
from meshslm.core.counting import task_counts
from meshslm.core.directory import Directory, Peer
from meshslm.core.documents import Documents
from meshslm.core.drain import TIMER as DRAIN
from meshslm.core.drain import Drain
from meshslm.core.drain_events import DrainRequested
from meshslm.core.events import (
    AddressesChanged,
    Effect,
    Event,
    ShutdownRequested,
    Started,
    TaskArrived,
    TaskDropped,
    TimerFired,
)
from meshslm.core.growth_events import StatementSealed
from meshslm.core.hosting import Hosting
from meshslm.core.links import Links
from meshslm.core.outbox import Outbox
from meshslm.core.reach import Reach
from meshslm.core.reading import show
from meshslm.core.reading_events import RequestShown
from meshslm.core.router import Own
from meshslm.core.shared_state import SharedState
from meshslm.core.task_machines import TaskMachines
from meshslm.core.views import PeerView, StatusView
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.detection import Gossip, Ping, Pong, Probe, Probed
from meshslm.wire.draining import Draining
from meshslm.wire.messages import (
    Capability,
    CapabilityWanted,
    EngineLoad,
    Goodbye,
    Hardware,
    Presence,
    Specialist,
    TaskRequest,
)


class NodeCore:
    """All machines of one node behind one door."""

    def __init__(self, config: CoreConfig, chance: Chance) -> None:
        self._config = config
        self._started = Instant(0)
        self._out = Outbox()
        self._directory = Directory()
        self._conduct = Conduct(self._out)
        self._dialling = dialling.Dialling(config.node, self._out, chance.fork("dialling"))
        self._tasks = tasks = TaskMachines(
            config,
            self._directory,
            self._out,
            chance.fork("route"),
            self._own,
            may_ask_others=lambda: self._admission.may(config.node, Act.SUBMIT),
        )
        self._models, self._serving = tasks.models, tasks.serving
        self._reading, self._router, self._origin = tasks.reading, tasks.router, tasks.origin
        self._admission = admission.Admission(
            config,
            self._directory,
            self._out,
            chance.fork("admission"),
            drop=self._drop,
            greet=self._greet,
        )
        self._hosting = Hosting(
            self._models, self._serving, self._reading, self._admission, self._out, self._announce
        )
        self._detection = detection.Detection(
            config.node, self._out, chance.fork("detection"), self._silent
        )
        self.growth = self._growth(chance.fork("growth"))
        self._serving.changed = self.growth.coordinators.telling.changed
        self.state = SharedState(
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
        self.state.forgetting.attach(self.consensus.asking)
        self._links = self._make_links()
        self._handlers = self._event_handlers()
        self._timers = self._timer_handlers()

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
            loads=self._hosting.told_loads,
            growth=self.growth,
        )

    def _make_links(self) -> Links:
        return Links(
            self._config,
            self._directory,
            self._dialling,
            self._admission,
            self._conduct,
            self._membership,
            self.consensus,
            self._out,
            self.state.met,
            self._message_handlers(),
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
            **self.state.event_handlers(),
            StatementSealed: self.growth.on_sealed,
            **self._reach.event_handlers(),
            **self._hosting.event_handlers(),
            **self._links.event_handlers(),
            Started: self._on_started,
            AddressesChanged: lambda e, now: self._membership.moved(e.addresses, now),
            TimerFired: self._on_timer,
            ShutdownRequested: self._on_shutdown,
            DrainRequested: self._drain.begin,
            TaskArrived: self._on_arrived,
            TaskDropped: self._on_dropped,
            RequestShown: lambda e, now: show(self._reading, e, self._out, now),
        }

    def _timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer; each takes the timer's subject."""
        return {
            **self.state.timer_handlers(),
            **self.consensus.timer_handlers(),
            **self._reach.timer_handlers(),
            **self.growth.timer_handlers(),
            **self._hosting.timer_handlers(),
            **self._tasks.timer_handlers(),
            admission.SWEEP: lambda _, now: self._admission.sweep(now),
            rhythm.TICK: lambda _, now: self._on_tick(now),
            membership.HELLO: lambda s, now: self._membership.hello_timer(NodeId(s), now),
            absence.TIMER: lambda s, now: self._membership.absence.timer(NodeId(s), now),
            dialling.TIMER: self._dialling.timer,
            detection.TIMER: lambda _, now: self._detection.timer(now),
            DRAIN: lambda _, now: self._drain.timer(now),
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
            **self.state.message_handlers(),
            Draining: lambda p, m, now: self._drain.told(p.node, m, now),
            **self.growth.message_handlers(),
            **self._reach.message_handlers(),
            **self._hosting.message_handlers(),
            **self._tasks.message_handlers(),
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
        self.state.boot = event.boot
        self.growth.start(event.boot)
        self._membership.start(event.boot, event.addresses, now)

    def _on_timer(self, event: TimerFired, now: Instant) -> None:
        if self._out.timer_is_current(event.key, event.generation):
            self._timers[event.key.kind](event.key.subject, now)

    def _on_tick(self, now: Instant) -> None:
        self._serving.sweep(now)
        self._membership.tick(now)
        self._tasks.learn(now)

    def _on_arrived(self, event: TaskArrived, now: Instant) -> None:
        takes = self.growth.finding if self.growth.large else self._origin
        takes.arrive(event.task, event.request, now)

    def _on_dropped(self, event: TaskDropped, now: Instant) -> None:
        self.growth.finding.drop(event.task)
        self._tasks.drop(event.task, now)

    def _on_shutdown(self, _event: ShutdownRequested, now: Instant) -> None:
        self.growth.leave(now)
        self.consensus.leave(now)
        self._origin.leave(now)
        self._serving.leave(now)
        self._membership.leave()

    # --- what machines ask of those that are made after them ------------------------------------
    def _announce(self, specialists: tuple[Specialist, ...], hardware: Hardware) -> None:
        self._membership.host(() if self._drain.begun else specialists, hardware)

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
        self.state.parted(peer)
        self._serving.peer_gone(peer, now)
        self._origin.peer_gone(peer, reason, now)

    def _own(self) -> Own:
        config = self._config
        capability, loads = self._membership.capability, self._serving.loads()
        return Own(config.node, config.name, capability, loads, self._hosting.upstream)

    # --- what can be seen -----------------------------------------------------------------------
    def explain(
        self, request: TaskRequest, now: Instant, refused: Mapping[str, str] | None = None
    ) -> Decision:
        """Who would be asked now, and why; nothing is run. `refused`: see `Choosing.explain`."""
        return self._tasks.explain(request, now, refused)

    def specialists(self) -> tuple[Specialist, ...]:
        """What this node announces."""
        return self._membership.capability.specialists

    def loads(self) -> tuple[EngineLoad, ...]:
        """How busy this node's engines are."""
        return self._serving.loads()

    @property
    def documents(self) -> Documents:
        """Shared documents, to be read; local programs change them by `StateWrite`."""
        return self.state.documents

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
        own = replace(own, specialists=(*own.specialists, *self._hosting.upstream))
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
            state=self.state.view(),
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
        self.state.check()
        self._membership.check()
        self._reach.check()
        self._detection.check()
        self.growth.check()
        self._tasks.check()
        self.consensus.check()
