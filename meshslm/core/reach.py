"""How this node is reached, and how others are through it: the door to witnesses, relays, upgrades.

Events: peers join and part, their messages, trial dials and reservations end, the timers.
Effects: `TryDial`, `Reserve`, `OfferRelay`, `PunchTo`, `Send`, timers.

Rules:
- Switched off, it sends nothing and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from meshslm import limits
from meshslm.core import upgrades
from meshslm.core.config import CoreConfig
from meshslm.core.dial_backs import DialBacks
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.reach_events import DialTried, NotReserved, Reserved
from meshslm.core.relays import Relays
from meshslm.core.upgrades import Upgrades
from meshslm.core.views import ReachView
from meshslm.core.ways import relayed
from meshslm.core.witnesses import UNKNOWN, Witnesses
from meshslm.ids import Instant, NodeId
from meshslm.wire.reach import DialBack, DialedBack, Punch, Seen

TIMER: Final = "reach"


class Reach:
    """Everything about reaching and being reached."""

    def __init__(self, config: CoreConfig, directory: Directory, out: Outbox) -> None:
        self._on = config.relay is not None
        self._directory = directory
        self._out = out
        self._witnesses = Witnesses(config.node, out)
        self._dial_backs = DialBacks(directory, out, on=self._on)
        self._relays = Relays(config, directory, out)
        self._upgrades = Upgrades(directory, out, self._witnesses.direct_addresses)
        self.announce: Callable[[tuple[str, ...], Instant], None] = lambda _addresses, _now: None
        """Tells everybody of addresses through relays."""

    def event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """What comes of its effects."""
        relays = self._relays
        return {
            DialTried: lambda e, _: self._dial_backs.tried(e),
            Reserved: lambda e, now: self._announce(relays.reserved(e, now), now),
            NotReserved: lambda e, now: self._announce(relays.refused(e, now), now),
        }

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """What members say about it."""
        return {
            Seen: lambda p, m, _: self._witnesses.on_seen(p, m),
            DialBack: self._dial_backs.asked,
            DialedBack: lambda p, m, _: self._witnesses.on_answer(p, m),
            Punch: self._upgrades.on_punch,
        }

    def timer_handlers(self) -> dict[str, Callable[[str, Instant], None]]:
        """By kind of timer."""
        return {
            TIMER: lambda _, now: self._tick(now),
            upgrades.TIMER: lambda s, _: self._upgrades.timer(NodeId(s)),
        }

    def start(self, addresses: tuple[str, ...]) -> None:
        """Begin to look."""
        self._witnesses.own = addresses
        if self._on:
            self._relays.offer(UNKNOWN)
            self._out.start_timer(TIMER, "", limits.REACH_MS)

    def stop(self) -> None:
        """Ask nobody any more."""
        self._out.stop_timer(TIMER, "")
        self._on = False
        self._witnesses.stop()

    def moved(self, addresses: tuple[str, ...]) -> None:
        """This node listens elsewhere."""
        self._witnesses.moved(addresses)

    def joined(self, peer: Peer, now: Instant) -> None:
        """A peer is linked, and its hello was taken."""
        if self._on:
            self._witnesses.joined(peer)
            self._upgrades.joined(peer, now)
            at = peer.came_from if peer.incoming and not relayed(peer) else ""
            if at or self._relays.offering:
                self._out.send(peer.node, Lane.CONTROL, Seen(at, self._relays.offering))

    def parted(self, node: NodeId, now: Instant) -> None:
        """A peer's link is gone."""
        self._witnesses.parted(node)
        self._upgrades.parted(node)
        self._announce(self._relays.parted(node), now)

    def may_relay(self, node: NodeId) -> bool:
        """Whether a peer may reserve a place here, or connect through this node."""
        return self._relays.may_use(node)

    def _tick(self, now: Instant) -> None:
        self._out.start_timer(TIMER, "", limits.REACH_MS)
        self._witnesses.ask_one(now)
        verdict = self._witnesses.verdict()
        self._relays.offer(verdict)
        self._announce(self._relays.keep(verdict, self._witnesses.relays(), now), now)
        self._relays.use(now)
        self._upgrades.tick(now)

    def _announce(self, changed: bool, now: Instant) -> None:  # noqa: FBT001 - one door for all
        if changed and self._on:
            self.announce(self._relays.addresses(), now)

    def view(self, now: Instant) -> ReachView:
        """How this node is reached."""
        return ReachView(
            state=self._witnesses.verdict(),
            reason=self._witnesses.reason() if self._on else "this node does not look into it",
            witnesses=self._witnesses.views(),
            relays=self._relays.views(now),
            offers_relay=self._relays.offering,
            relayed=tuple(peer.node for peer in self._directory.alive() if relayed(peer)),
        )

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        alive = [peer.node for peer in self._directory.alive()]
        self._witnesses.check(alive if self._on else [])
        self._dial_backs.check()
        self._relays.check()
        self._upgrades.check()
