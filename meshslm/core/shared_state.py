"""Shared documents of one node, joined: writing, taking in, synchronising, rebuilding, mending.

Other machines of the core use `SharedState.documents` (see `core.documents`) and nothing else.

Events: `StateEvent`. Effects: `StateEffect`, `Send`, timers, `Tell`.

Rules:
- Without a `StateConfig` every message about documents is ignored, and nothing is ever sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshslm.chance import Chance
from meshslm.core import (
    histories,
    state_forgetting,
    state_pulls,
    state_push,
    state_rebuild,
    state_sync,
)
from meshslm.core.admission import Admission
from meshslm.core.config import CoreConfig
from meshslm.core.directory import Directory, Peer
from meshslm.core.documents import Documents
from meshslm.core.histories import Histories
from meshslm.core.outbox import Outbox
from meshslm.core.state_authors import StateAuthors
from meshslm.core.state_events import (
    DayIs,
    DeltasRead,
    HistoryAsked,
    PartReloaded,
    StateCheckAsked,
    StateNotPersisted,
    StateOpened,
    StatePersisted,
    StateWrite,
    StateWritten,
)
from meshslm.core.state_forgetting import StateForgetting
from meshslm.core.state_intake import StateIntake
from meshslm.core.state_rebuild import StateRebuild
from meshslm.core.state_repair import StateRepair
from meshslm.core.state_retention import StateRetention
from meshslm.core.state_sync import StateSync
from meshslm.core.state_views import StateView
from meshslm.errors import FaultCode, RequestFault
from meshslm.ids import Instant, NodeId
from meshslm.wire.state import AuthorShown, AuthorWanted, DocumentDigest, Holding


class SharedState:
    """All machines of shared documents behind one door."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        out: Outbox,
        chance: Chance,
        *,
        admission: Admission,
    ) -> None:
        self._out = out
        self.boot = 0
        """Of this life; generations begin with it."""
        self._on = config.state is not None
        self._authors = StateAuthors(config.node, admission, out)
        self.documents = Documents(config.node, config.state, out, self._authors.may_write)
        self._repair = StateRepair(self.documents, out)
        self._intake = StateIntake(self.documents, out, self._authors, self._heard)
        self.forgetting = StateForgetting(self.documents, out, chance.fork("forgetting"))
        self._sync = StateSync(
            self.documents,
            self._intake,
            directory,
            out,
            chance,
            self._repair.diverged,
            lambda vector, peer, now: self._repair.compare(self._sync, vector, peer, now),
            self.forgetting,
        )
        self._histories = Histories(self.documents, out, self._sync.linked)
        self._rebuild = StateRebuild(self.documents, out)
        self._retention = StateRetention(self.documents, out)
        self.documents.attach(self._sync.pushes.publish, self._rebuild)

    def event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """For the node's table: each takes exactly the class that it is listed under."""
        return {
            StateOpened: self._on_opened,
            StatePersisted: lambda e, now: self.documents.journal.persisted(e.number, now),
            StateNotPersisted: lambda e, now: self.documents.not_persisted(e.reason, now),
            DeltasRead: self._sync.read,
            PartReloaded: self._on_reloaded,
            StateWrite: self._on_write,
            StateCheckAsked: lambda _e, _now: self._sync.check_all(),
            DayIs: self._retention.on_day,
            HistoryAsked: self._histories.ask,
        }

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """For messages of members."""
        handlers: dict[type, Callable[[Peer, Any, Instant], None]] = {
            **self._sync.message_handlers(),
            **self._histories.message_handlers(),
            AuthorWanted: self._authors.on_wanted,
            AuthorShown: self._on_shown,
        }
        if self._on:
            return handlers
        return dict.fromkeys(handlers, lambda _peer, _message, _now: None)

    def timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer; each takes the timer's subject."""
        return {
            state_sync.SYNC: lambda _subject, _now: self._sync.sync(),
            state_pulls.TIMER: lambda _, now: self._sync.pull(now),
            state_push.PUSH: lambda _, now: self._sync.pushes.push(now),
            state_push.TELL: lambda _, now: self._sync.pushes.tell(now),
            state_rebuild.TIMER: self._rebuild.step,
            histories.TIMER: self._histories.timer,
            state_forgetting.TIMER: lambda _, now: self.forgetting.look(now),
        }

    def met(self, peer: Peer) -> None:
        """A peer is alive."""
        if self._on:
            self._authors.met(peer.node)
            self._sync.met(peer)

    def parted(self, node: NodeId) -> None:
        """A peer is gone."""
        self._sync.parted(node)

    def digests(self, node: NodeId) -> tuple[DocumentDigest, ...]:
        """What a peer is told when it compares: of each document that both want."""
        partner = self._sync.partners.get(node)
        return () if partner is None else tuple(d.digest() for d in self._sync.shared(partner))

    def view(self) -> StateView | None:
        """What may be seen of it; None where this node has no documents."""
        if not self._on:
            return None
        counts = self._sync.counts
        return StateView(
            ready=self.documents.ready,
            trouble=self.documents.journal.trouble,
            documents=self.documents.statistics(),
            taken=self._intake.taken,
            refused=self._intake.refused,
            compared=counts.compared,
            agreed=counts.agreed,
            diverged=counts.diverged,
            repaired=self._repair.repaired,
            rebuilt=self._rebuild.done,
            checks=self._sync.checks.views(),
            known=self._intake.known,
            waiting=self.documents.waiting,
        )

    def _heard(self, holdings: tuple[Holding, ...], now: Instant) -> None:
        self._sync.pushes.heard(holdings, now)

    # --- events ---------------------------------------------------------------------------------
    def _on_opened(self, event: StateOpened, _now: Instant) -> None:
        if self._on:
            self.documents.take_stored(event, self.boot)
            self.forgetting.start(event.forgotten)
            self._sync.start()

    def _on_reloaded(self, event: PartReloaded, now: Instant) -> None:
        part = self.documents.holdings.reloaded(event.stored)
        if part is not None:
            self.documents.changed(part.key.document, tuple(sorted(part.live)), now)
            self.forgetting.reloaded(part.key.document)

    def _on_shown(self, peer: Peer, message: AuthorShown, now: Instant) -> None:
        if self._authors.on_shown(peer, message, now):
            self._sync.summarise(peer.node)

    def _on_write(self, event: StateWrite, _now: Instant) -> None:
        number = event.request
        revisions: tuple[int, ...] = ()

        def done(failure: str, _now: Instant) -> None:
            if failure:
                code = FaultCode.NOT_READY
                self._out.put(StateWritten(number, code=code, detail=failure))
            else:
                self._out.put(StateWritten(number, revisions))

        try:
            revisions = self.documents.write(
                event.document, event.changes, done=done, unix_ms=event.unix_ms
            )
        except RequestFault as fault:
            self._out.put(StateWritten(number, code=fault.code, detail=fault.detail))

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.documents.check()
        self._sync.check()
        self._histories.check()
