"""What a node does otherwise while the mesh is too large for a link between every two.

It publishes what it is as a signed record, keeps everybody else's, has some neighbours instead of
all, and looks for specialists through coordinators. Up to `CoreConfig.full_mesh` others nothing of
that happens.

Events: the tick, links and messages, a statement was sealed.
Effects: `SealStatement`, and those of the machines that it joins.

Rules:
- A mesh counts as large from `full_mesh` others on, and until it has shrunk to three quarters.
- Nothing is believed of a member but what it has signed itself; that it is gone, by what several
  others have signed. Who hears that it is gone itself begins another life.
- Whoever hands on what it cannot have checked breaks the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from meshslm.chance import Chance
from meshslm.core import coordinators, spread, telling
from meshslm.core.admission import Admission
from meshslm.core.conduct import Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.coordinators import Coordinators
from meshslm.core.detection import Detection
from meshslm.core.dialling import Dialling
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.events import Lane
from meshslm.core.exchange import Exchange
from meshslm.core.finding import Finding
from meshslm.core.growth_events import StatementSealed
from meshslm.core.growth_hooks import Hooks
from meshslm.core.hearing import Hearing
from meshslm.core.member_views import views
from meshslm.core.members import Members
from meshslm.core.on_demand import OnDemand
from meshslm.core.outbox import Outbox
from meshslm.core.overlay import Overlay
from meshslm.core.own_record import OwnRecord, Self
from meshslm.core.records import Fact, addresses_of
from meshslm.core.rendezvous import Rendezvous
from meshslm.core.spread import Spread
from meshslm.core.upkeep import Upkeep
from meshslm.core.views import PeerView
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.growth import (
    Accusation,
    Answer,
    Ask,
    Beat,
    Digest,
    Facts,
    Marks,
    Part,
    Prune,
    Record,
    Wanted,
)
from meshslm.wire.messages import Capability, Presence

SETTLE_MS = 15_000
"""A mesh that has just grown does not shrink before: its table is still filling."""


class Growth:
    """The large mesh, as one node sees it."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        dialling: Dialling,
        detection: Detection,
        admission: Admission,
        conduct: Conduct,
        out: Outbox,
        chance: Chance,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._directory = directory
        self._dialling = dialling
        self._detection = detection
        self._admission = admission
        self._conduct = conduct
        self._out = out
        self._hooks = hooks
        self._chance = chance
        self.large = False
        self.now = Instant(0)
        """Of the present event."""
        self._since = Instant(0)
        self._heard_of_large = False
        node = config.node
        self.members = Members(self._came, self._gone)
        self.overlay = Overlay(
            node,
            directory,
            self.members,
            detection,
            out,
            chance.fork("overlay"),
            reach=self._reach_out,
            accuse=self._accuse,
        )
        self.spread = Spread(self.members, self.overlay.neighbours, out)
        self._own = OwnRecord(config, self.members, self.spread, out, chance.fork("record"))
        self.exchange = Exchange(
            config, directory, dialling, admission, conduct, self._own, out, chance.fork("exchange")
        )
        self._hearing = Hearing(
            config, self.members, self._own, self.overlay, self.spread, admission, conduct
        )
        self.coordinators = Coordinators(
            node,
            directory,
            self.members,
            out,
            chance.fork("coordinators"),
            own=hooks.own,
        )
        self.finding = Finding(self.members, self.coordinators, hooks.arrive, hooks.likely)
        self._on_demand = OnDemand(
            directory, out, lambda n: self._reach_out(n, self.now), hooks.unreached
        )
        self._upkeep = Upkeep(
            node,
            directory,
            self.members,
            chance.fork("upkeep"),
            reach=self._reach_out,
            configured=dialling.wake,
            accuse=self._accuse,
            close=hooks.close,
        )

    # --- tables for the node --------------------------------------------------------------------
    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """For messages of members; what is only ever signed is a fault by itself."""
        return {
            Beat: self._on_beat,
            Part: lambda peer, _message, now: self.overlay.on_part(peer, now),
            Facts: self._hearing.on_facts,
            Prune: lambda peer, _message, _now: self.spread.on_prune(peer),
            Digest: self.spread.on_digest,
            Marks: self.spread.on_marks,
            Wanted: self.spread.on_wanted,
            Ask: self.coordinators.on_ask,
            Answer: self.coordinators.on_answer,
            **self.exchange.message_handlers(),
            **dict.fromkeys((Record, Accusation), _refuse),
        }

    def timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer."""
        return {
            spread.TIMER: lambda _, now: self.spread.flush(now),
            coordinators.TIMER: self.coordinators.timer,
            telling.TIMER: lambda _, now: self.coordinators.telling.tell(now),
        }

    # --- time -----------------------------------------------------------------------------------
    def start(self, boot: int) -> None:
        """A new life of this node begins."""
        self._own.start(boot)

    def on_sealed(self, event: StatementSealed, now: Instant) -> None:
        """A statement of this node is signed."""
        self._own.on_sealed(event, now)

    def says(self) -> Record:
        """What this node would say of itself, if it were there for long."""
        return self._own.record(replace(self._describe(self._hooks.own()[0]), dialled=True))

    def resume(self, table: Members, coordinating: Rendezvous, now: Instant) -> None:
        """Go on by a table in which everybody is, this node as it `says`, as one who was there."""
        self.members.adopt(table)
        self.coordinators.adopt(coordinating)
        self._own.resume(replace(self._describe(self._hooks.own()[0]), dialled=True), now)

    def _describe(self, capability: Capability) -> Self:
        return Self(self._hooks.addresses(), capability, self._admission.credential)

    def publish(self, capability: Capability, now: Instant) -> None:
        """Say what this node is, if that is not what it said last."""
        if self._config.verify_node is not None:
            self._own.publish_changes(self._describe(capability), now)

    def tick(self, now: Instant) -> bool:
        """Once a second; true where the mesh is large, and everything for this second is done."""
        if self._config.verify_node is None:
            return False
        alive = self._directory.alive()
        self._sense(len(alive), now)
        if not self.large:
            if self._heard_of_large:
                self._own.share(now)
                self._greet_one(alive, now)
            return False
        capability, presence = self._hooks.own()
        self._own.share(now)
        self._hearing.sweep(now)
        self.overlay.tick(self.spread, now)
        self._coordinate(capability, presence, alive, now)
        self._upkeep.audit(now)
        if not self._greet_one(alive, now):
            self._dialling.wake(now)
        self._directory.forget_unlinked(self._out.hold_back)
        return True

    def _sense(self, links: int, now: Instant) -> None:
        """Whether the mesh is large: this node knows it by its links, or by others' records."""
        full = self._config.full_mesh
        members = len(self.members) - 1
        if not self.large:
            enough = 3 * full // 4 if self._heard_of_large else full
            if links > full or members > enough:
                self._grow(now)
        elif max(links, members) <= 3 * full // 4 and ms_between(self._since, now) >= SETTLE_MS:
            self._shrink(now)

    def _grow(self, now: Instant) -> None:
        self.large, self._since = True, now
        self._out.tell("mesh.large", f"{len(self._directory.alive())} links")
        self._out.divert = self._divert
        self._dialling.thin_out(self.overlay.worth_a_dial, self._unreachable)
        self._detection.thin_out()
        for peer in self._directory.alive():
            peer.used = now

    def _shrink(self, now: Instant) -> None:
        self.large, self._heard_of_large = False, False
        self._out.tell("mesh.small", f"{len(self.members)} members")
        known = [fact.record for fact in self.members.all()]
        known += [lost.fact.record for lost in self.members.lost.values()]
        self.leave_questions(now)
        self._out.divert = None
        self._detection.fill_up(now)
        self._dialling.fill_up(now)
        self.overlay.part_all()
        self.members.clear()
        self._own.keep()
        self._directory.reported.clear()
        for peer in self._directory.alive():
            self._hooks.welcome(peer, now)
        for record in known:
            for address in addresses_of(record):
                self._dialling.want(address, now)

    def _coordinate(
        self, capability: Capability, presence: Presence, alive: list[Peer], now: Instant
    ) -> None:
        wanted = self.coordinators.mine(capability)
        for node in wanted:
            if self.coordinators.worth_a_dial(node):
                self._reach_out(node, now)
        self.coordinators.telling.to(wanted, presence, now)
        self.coordinators.learn_cards(now)
        self.coordinators.sweep(now)
        near, waiting = self.overlay.neighbours, self._on_demand
        self._upkeep.close_idle(alive, lambda n: n in near or n in wanted or n in waiting, now)

    def _greet_one(self, linked: list[Peer], now: Instant) -> bool:
        """Tell a linked peer that is no member yet, or anybody while we know nobody, our sum.

        False where nobody is linked any more.
        """
        alive = [peer for peer in linked if peer.state is PeerState.ALIVE]
        alone, members = len(self.members) <= 1, self.members.nodes
        strange = [p for p in alive if alone or p.node not in members]
        if strange:
            beat = self.spread.beat(now, neighbour=False)
            self._out.send(self._chance.pick(strange).node, Lane.CONTROL, beat)
        return bool(alive)

    # --- links ----------------------------------------------------------------------------------
    def introduced(self, peer: Peer, now: Instant) -> bool:
        """A peer's hello was heard; true where nothing else is to be said to it."""
        if not self.large and self._config.verify_node is not None:
            self._sense(len(self._directory.alive()), now)
        if not self.large:
            return False
        peer.used = now
        self._own.dialled = self._own.dialled or peer.incoming
        self.overlay.linked(peer, self.spread, now)
        self._on_demand.linked(peer.node)
        if peer.node not in self.overlay.neighbours:
            beat = self.spread.beat(now, neighbour=False)
            self._out.send(peer.node, Lane.CONTROL, beat)
        return True

    def ended(self, node: NodeId, now: Instant, *, broken: bool, left: bool) -> None:
        """A link is over: `broken` where nobody meant it, `left` where the peer said goodbye."""
        if left and node in self.overlay.neighbours:
            self._accuse(node, now)  # unless its own last word has come
        if self.overlay.ended(node, now, broken=broken):
            self.spread.mend()
        self.spread.forget(node)

    def silent(self, peer: Peer, now: Instant) -> None:
        """A peer is given up for its silence."""
        if self.overlay.silent(peer, now):
            self.spread.mend()

    def _reach_out(self, node: NodeId, now: Instant) -> bool:
        """Dial a member, once; false where it is not known how."""
        peer = self._directory.peers.get(node)
        if peer is not None and peer.connected:
            return True
        lost = self.members.lost.get(node)
        fact = self.members.get(node) or (lost.fact if lost is not None else None)
        addresses = addresses_of(fact.record) if fact is not None else ()
        if addresses:
            self._dialling.reach(node, addresses, now)
        return bool(addresses)

    def _unreachable(self, node: NodeId, now: Instant) -> None:
        """A member could not be dialled."""
        self.overlay.unreachable(node, now)
        self._upkeep.unreachable(node, now)
        self.coordinators.unreachable(node, now)
        self._on_demand.unreachable(node, now)

    def _divert(self, node: NodeId, lane: Lane, message: Any) -> bool:
        if lane is Lane.INTERACTIVE:
            peer = self._directory.peers.get(node)
            if peer is not None:
                peer.used = self.now
        return self._on_demand.divert(node, lane, message)

    def _on_beat(self, peer: Peer, beat: Beat, now: Instant) -> None:
        if self._config.verify_node is None:
            return
        self._heard_of_large = True
        if beat.neighbour and self.large:
            self.overlay.on_beat(peer, self.spread, now)
        elif beat.neighbour:
            self.overlay.refuse(peer)
        self.spread.on_beat(peer, beat, now)
        if self.large:
            self.overlay.listen(now)

    # --- tasks ----------------------------------------------------------------------------------
    def leave_questions(self, now: Instant) -> None:
        """What waits for answers waits no longer."""
        self.coordinators.release(now)
        self.finding.release(now)

    def leave(self, now: Instant) -> None:
        """This node leaves: tell its neighbours, in its own words."""
        if self.large:
            self.leave_questions(now)
            if self._own.farewell is not None:
                for node in self.overlay.neighbours:
                    self._out.send(node, Lane.CONTROL, Facts((self._own.farewell,)))

    def _came(self, fact: Fact) -> None:
        self.coordinators.came(fact)

    def _gone(self, fact: Fact) -> None:
        self.coordinators.gone(fact)
        self._directory.reported.pop(fact.record.node, None)

    def _accuse(self, node: NodeId, _now: Instant) -> None:
        self._own.accuse(node)

    # --- what can be seen -----------------------------------------------------------------------
    @property
    def alive(self) -> int:
        """How many others are there, linked or not."""
        return len(self.members) - 1 if self.large else len(self._directory.alive())

    def views(self, now: Instant) -> tuple[PeerView, ...]:
        """Every member but this node, linked or not; and peers that are no members yet."""
        return views(self._config.node, self._directory, self.members, now)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.members.check()
        self.overlay.check()
        self.exchange.check()
        self.coordinators.check()
        self.finding.check()
        self._hearing.check()
        self._on_demand.check()
        if not self.large:
            assert not self.overlay.neighbours, "neighbours in a small mesh"


def _refuse(_peer: Peer, message: object, _now: Instant) -> None:
    raise PeerFault(f"a {type(message).__name__} is no message by itself")
