"""Members that mean ill: a core of production whose words are twisted on their way out.

Why so: a stranger is refused at the door; what a mesh must stand is a member that speaks the
protocol, and then lies, repeats, floods or sends rubbish.

Rules:
- The core inside stays sound; only what it hears and says is used against the others.
- Checkers judge honest nodes only. What a hostile node makes up as an answer is not judged, for
  nobody could tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from meshslm.chance import Chance
from meshslm.core.events import BytesReceived, Event, Send, Started
from meshslm.core.views import PeerView, StatusView
from meshslm.errors import PeerFault
from meshslm.ids import MICROSECONDS_PER_MS, Instant, NodeId
from meshslm.sim.node import Core, identity
from meshslm.sim.relays import Relaying
from meshslm.sim.tables import Count, NotNegative, Share, Table
from meshslm.wire.admission import Signed
from meshslm.wire.codec import decode, encode
from meshslm.wire.detection import News, Ping, Pong
from meshslm.wire.growth import Record
from meshslm.wire.messages import (
    Capability,
    Hello,
    Message,
    Presence,
    Specialist,
    TaskAccepted,
    TaskChunk,
    TaskEnded,
    TaskFailed,
    TaskRefused,
)
from meshslm.wire.whereabouts import Whereabouts

REMEMBERED = 64
"""Messages of others that a node can send again."""

FLOOD = 30
"""How often a message is repeated by a node that floods."""

_REPLIES = (TaskAccepted, TaskRefused, TaskChunk, TaskEnded, TaskFailed)

Deed = Literal["garbage", "replay", "lie", "swallow", "flood"]


class Hostile(Table, frozen=True, kw_only=True):
    """Nodes that mean ill."""

    does: Deed
    """`garbage`: random and damaged bytes; `replay`: what others said before; `lie`: idle engines,
    models that it has not, forged addresses, deaths; `swallow`: takes tasks and never answers;
    `flood`: everything many times."""
    count: Count = 1
    nodes: tuple[int, ...] = ()
    """Which ones, counted from 0; empty: `count` drawn, of those that nobody is configured to
    dial where there are others."""
    from_s: NotNegative = 5.0
    """Honest for so long after each start."""
    share: Share = 0.2
    """Of its messages, which it twists or adds to."""


class HostileCore:
    """Production's core behind a mouth that cannot be trusted."""

    def __init__(self, inner: Core, deeds: tuple[Hostile, ...], chance: Chance) -> None:
        self._inner = inner
        self._deeds = deeds
        self._chance = chance
        self._started = Instant(0)
        self._heard: deque[bytes] = deque(maxlen=REMEMBERED)
        self._lives: dict[NodeId, int] = {}
        """Boots of those that said hello."""
        self._claims: dict[str, Specialist] = {}
        """Specialists of others by their profiles."""
        self._twists: dict[str, Callable[[Send], list[Send]]] = {
            "garbage": self._garbage,
            "replay": self._replay,
            "lie": self._lie,
            "swallow": self._swallow,
            "flood": lambda send: [send] * FLOOD,
        }

    def handle(self, event: Event, now: Instant) -> list[Any]:
        """What the core inside decides, twisted."""
        if isinstance(event, Started):
            self._started = now
        elif isinstance(event, BytesReceived):
            self._listen(event.peer, event.message)
        effects = self._inner.handle(event, now)
        since_s = (now - self._started) / MICROSECONDS_PER_MS / 1000
        for deed in self._deeds:
            if since_s >= deed.from_s:
                effects = self._twisted(effects, deed)
        return effects

    def check(self) -> None:
        """See `Core`."""
        self._inner.check()

    def peers(self, now: Instant) -> tuple[PeerView, ...]:
        """See `Core`."""
        return self._inner.peers(now)

    def status(self, now: Instant) -> StatusView:
        """See `Core`."""
        return self._inner.status(now)

    def may_relay(self, node: NodeId) -> bool:
        """See `Relaying`."""
        return isinstance(self._inner, Relaying) and self._inner.may_relay(node)

    def _twisted(self, effects: list[Any], deed: Hostile) -> list[Any]:
        twist = self._twists[deed.does]
        twisted: list[Any] = []
        for effect in effects:
            if type(effect) is Send and self._chance.unit() < deed.share:
                twisted.extend(twist(effect))
            else:
                twisted.append(effect)
        return twisted

    def _listen(self, peer: NodeId, message: bytes) -> None:
        self._heard.append(message)
        said = _decoded(message)
        if isinstance(said, Hello):
            self._lives[peer] = said.boot
        elif isinstance(said, Capability):
            self._claims.update((known.profile, known) for known in said.specialists)

    # --- what it makes of a message -------------------------------------------------------------
    def _garbage(self, send: Send) -> list[Send]:
        chance, message = self._chance, send.message
        kind = chance.below(3)
        if kind == 0:
            rubbish = bytes(chance.below(256) for _ in range(chance.below(200)))
        elif kind == 1:
            rubbish = message[: chance.below(len(message))]
        else:
            place = chance.below(len(message))
            flipped = message[place] ^ (1 << chance.below(8))
            rubbish = message[:place] + bytes((flipped,)) + message[place + 1 :]
        return [send, replace(send, message=rubbish)]

    def _replay(self, send: Send) -> list[Send]:
        if not self._heard:
            return [send]
        return [send, replace(send, message=self._chance.pick(tuple(self._heard)))]

    def _swallow(self, send: Send) -> list[Send]:
        return [] if isinstance(_decoded(send.message), _REPLIES) else [send]

    def _lie(self, send: Send) -> list[Send]:
        said = _decoded(send.message)
        if isinstance(said, Presence):
            idle = tuple(
                replace(load, ready=True, running=0, queued=0, free_slots=64, decode_tps=1e6)
                for load in said.loads
            )
            said = replace(said, loads=idle)
        elif isinstance(said, Capability):
            said = replace(said, specialists=tuple(self._claims.values())[:16] or said.specialists)
        elif isinstance(said, Whereabouts):
            said = Whereabouts(tuple(map(self._forged, said.records)))
        elif isinstance(said, Ping | Pong) and self._lives:
            said = replace(said, news=tuple(self._death() for _ in range(4)))
        else:
            return [send]
        return [replace(send, message=encode(said))]

    def _death(self) -> News:
        node = self._chance.pick(list(self._lives))
        return News(node, "dead", self._lives[node], 0, identity(self._chance))

    def _forged(self, signed: Signed) -> Signed:
        """Somebody's record with an address of nobody, under the signature that it had."""
        record = decode(signed.payload)
        if not isinstance(record, Record):
            return signed
        return replace(signed, payload=encode(replace(record, addresses=("/memory/nobody",))))


def _decoded(message: bytes) -> Message | None:
    try:
        return decode(message)
    except PeerFault:  # rubbish of its own, or of another of its kind
        return None
