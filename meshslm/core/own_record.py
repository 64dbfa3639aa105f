"""What this node says of itself, and in a large mesh of others it has lost.

Effects: `SealStatement`; what comes back sealed is told, and in a large mesh spread.

Rules:
- A record goes out when what it says has changed, and not again for what can wait.
- Who hears that it is gone begins another life, and says so.
- A record of this node that it does not know is of a life that it forgot: it counts on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.growth_events import SealStatement, StatementSealed
from meshslm.core.members import Members, Outcome
from meshslm.core.outbox import Outbox
from meshslm.core.records import Charge, Fact, checked, services_of
from meshslm.core.spread import Spread
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.admission import Credential, Signed
from meshslm.wire.codec import encode
from meshslm.wire.growth import Accusation, Record
from meshslm.wire.messages import Capability

DIALLED_MS = 30_000
"""That others have dialled this node is told so long after the last record, and up to half sooner
or later: it can wait, and a mesh whose nodes all start together is not to tell it all at once."""


@dataclass(frozen=True, slots=True)
class Self:
    """What a record says of this node, but for its numbers."""

    addresses: tuple[str, ...]
    capability: Capability
    credential: Credential | None
    dialled: bool = False


class OwnRecord:
    """This node's own word."""

    def __init__(
        self,
        config: CoreConfig,
        members: Members,
        spread: Spread,
        out: Outbox,
        chance: Chance,
    ) -> None:
        self._config = config
        self._members = members
        self._spread = spread
        self._out = out
        self._chance = chance
        self._boot = self._counter = self._life = 0
        self._published: Self | None = None
        self._published_at = Instant(0)
        self._wait_ms = 0.0
        self._shared = False
        """All of a large mesh keep it."""
        self.fact: Fact | None = None
        """What it said last, signed."""
        self.signed: Callable[[Fact, Fact | None], None] = lambda _new, _before: None
        """Told of what it says now, and of what it said before."""
        self.dialled = False
        """Somebody has dialled this node."""
        self.farewell: Signed | None = None
        """What it says when it leaves."""

    def start(self, boot: int) -> None:
        """A new life of the process begins."""
        self._boot = boot

    def publish_changes(self, own: Self, now: Instant) -> None:
        """Say what this node is, if that is not what it said last."""
        published = self._published
        if published is not None:
            may_wait = ms_between(self._published_at, now) < self._wait_ms
            dialled = published.dialled if may_wait else self.dialled
            own = Self(own.addresses, own.capability, own.credential, dialled)
        if own != published:
            self._published = own
            self._publish(own, now)

    def resume(self, own: Self, now: Instant) -> None:
        """This was said already: everybody has `record(own)`."""
        self.dialled, self._published, self._shared = own.dialled, own, True
        self.fact = self._members.get(self._config.node)
        self._draw_wait(now)

    def _publish(self, own: Self, now: Instant) -> None:
        self._counter += 1
        self._draw_wait(now)
        record = self.record(own)
        farewell = replace(record, counter=self._counter + 1, left=True, addresses=(), services=())
        self._out.put(SealStatement(encode(record), encode(farewell)))

    def record(self, own: Self) -> Record:
        """What says so, by the newest number."""
        config = self._config
        suffix = f"/p2p/{config.node}"
        return Record(
            config.mesh,
            config.node,
            self._boot,
            self._counter,
            self._life,
            name=config.name,
            addresses=tuple(a.removesuffix(suffix) for a in own.addresses),
            roles=own.capability.roles,
            services=services_of(own.capability.specialists),
            credential=own.credential,
            dialled=own.dialled,
        )

    def on_sealed(self, event: StatementSealed, now: Instant) -> None:
        """This node's word, to be told."""
        if self._published is None or self._config.verify_node is None:
            return
        statement = checked(event.signed, self._config.verify_node)
        if isinstance(statement, Charge):
            if self._members.charge(statement, now) is Outcome.NEWS:
                self._spread.add(event.signed, self._config.node, now)
            return
        if statement.record != self.record(self._published):
            return  # it says something else by now
        before, self.fact, self.farewell = self.fact, statement, event.farewell
        self.signed(statement, before)
        if self._shared:
            self.share(now)

    def share(self, now: Instant) -> None:
        """The mesh is large, or somebody says so: all keep this node's record from now on."""
        if not self._shared:
            self._draw_wait(now)
        self._shared = True
        if self.fact is not None and self._members.take(self.fact, now) is Outcome.NEWS:
            self._spread.add(self.fact.signed, self._config.node, now)

    def _draw_wait(self, now: Instant) -> None:
        self._published_at = now
        self._wait_ms = DIALLED_MS * self._chance.between(0.5, 1.5)

    def accuse(self, node: NodeId) -> None:
        """This node has lost a member."""
        fact = self._members.get(node)
        if fact is not None and self._published is not None:
            said = Accusation(node, fact.record.boot, fact.record.life, self._config.node)
            self._out.put(SealStatement(encode(said)))

    def refute(self, said: Accusation, now: Instant) -> None:
        """Somebody says that this node is gone."""
        own = self._published
        if own is not None and (said.boot, said.life) == (self._boot, self._life):
            self._life += 1
            self._out.tell("peer.refuted", "said to be gone", peer=said.by)
            self._publish(own, now)

    def heard(self, fact: Fact, now: Instant) -> Outcome:
        """Our own record came back."""
        record = fact.record
        if (record.boot, record.counter) <= (self._boot, self._counter):
            return Outcome.KNOWN
        self._boot, self._counter, self._life = record.boot, record.counter, record.life + 1
        if self._published is not None:
            self._publish(self._published, now)
        return Outcome.REFUSED

    def keep(self) -> None:
        """The mesh is small again: only those who are linked hear it."""
        self._shared = False
