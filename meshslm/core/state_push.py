"""Telling others of what is durable here: our own changes whole, others' in a few words.

Rules:
- Changes that come together are pushed together, and nobody is pushed more than
  `STATE_PUSH_PER_S`: who would be is told, and asks at its own pace.
- Of what came from others a few are told, who tell a few: so news reaches all of a mesh in which
  not everybody has a link to everybody, and those who missed a push.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from meshslm import mesh_limits, state_limits
from meshslm.chance import Chance
from meshslm.core.documents import Documents
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_packing import messages_of
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.state.names import wanted
from meshslm.state.part import PartKey
from meshslm.wire.state import DocumentDigest, Holding, PartClock, SignedDelta, StateHave

PUSH = "state.push"
TELL = "state.tell"


@dataclass(slots=True)
class Partner:
    """What is known of one peer."""

    boot: int
    interests: tuple[str, ...] = ()
    tokens: float = state_limits.STATE_PUSH_BURST
    """Bytes that may be pushed to it at once."""
    touched: Instant = Instant(0)
    digests: dict[str, DocumentDigest] = field(default_factory=dict)
    """Of a comparison that comes in several messages."""


class StatePush:
    """What goes out unasked."""

    def __init__(
        self,
        documents: Documents,
        partners: Mapping[NodeId, Partner],
        out: Outbox,
        chance: Chance,
        prune: Callable[[], None],
    ) -> None:
        self._documents = documents
        self._library = documents.holdings
        self._partners = partners
        self._out = out
        self._chance = chance
        self._prune = prune
        self._pushing: list[tuple[PartKey, SignedDelta]] = []
        self._telling: dict[PartKey, None] = {}
        self.pushed_bytes = 0

    def publish(self, deltas: tuple[tuple[PartKey, SignedDelta], ...], now: Instant) -> None:
        """Changes of this node are durable: push them, soon and together."""
        self._pushing += deltas
        if not self._out.timer_runs(PUSH, ""):
            self.push(now)

    def push(self, now: Instant) -> None:
        """Push what has gathered, to whoever wants it and takes it."""
        self._prune()
        pushing, self._pushing = self._pushing, []
        if not pushing:
            return
        self._out.start_timer(PUSH, "", state_limits.STATE_PUSH_MS)
        encoded: dict[tuple[int, ...], list[bytes]] = {}
        size = sum(len(signed.payload) for _, signed in pushing)
        left_out = False
        for node, partner in self._partners.items():
            which = tuple(
                place
                for place, (key, _) in enumerate(pushing)
                if wanted(partner.interests, key.document)
            )
            if not which:
                continue
            if not self._may_push(partner, size, now):
                left_out = True
                continue
            if which not in encoded:
                encoded[which] = messages_of([pushing[place][1] for place in which])
            for message in encoded[which]:
                self._out.send_encoded(node, Lane.BACKGROUND, message)
                self.pushed_bytes += len(message)
        if left_out:
            self._tell_of(tuple(key for key, _ in pushing))

    def _may_push(self, partner: Partner, size: int, now: Instant) -> bool:
        passed = max(0.0, ms_between(partner.touched, now)) / 1000
        partner.touched = now
        filled = partner.tokens + passed * state_limits.STATE_PUSH_PER_S
        partner.tokens = min(state_limits.STATE_PUSH_BURST, filled)
        if size > partner.tokens:
            return False
        partner.tokens -= size
        return True

    def heard(self, holdings: tuple[Holding, ...], _now: Instant) -> None:
        """Changes of others are durable here: tell a few, soon and together."""
        self._tell_of(
            tuple(PartKey(h.document, h.part.author, h.part.generation) for h in holdings)
        )

    def _tell_of(self, parts: tuple[PartKey, ...]) -> None:
        self._telling.update(dict.fromkeys(parts))
        if not self._out.timer_runs(TELL, ""):
            self._out.start_timer(TELL, "", state_limits.STATE_TELL_MS)

    def tell(self, _now: Instant) -> None:
        """Tell a few, or everybody of our own that was too much to be pushed."""
        self._prune()
        telling, self._telling = self._telling, {}
        holdings = []
        for key in telling:
            part = self._library.part(key)
            if part is not None:
                clock = PartClock(key.author, key.generation, part.clock)
                holdings.append(Holding(key.document, clock))
        if not holdings:
            return
        authors = {holding.part.author for holding in holdings}
        own = self._documents.node in authors
        # To tell the only author of its own changes would be a chance less for who missed a push.
        nodes = [node for node in self._partners if authors != {node}]
        if len(nodes) > mesh_limits.FANOUT and not own:
            nodes = self._chance.some(nodes, mesh_limits.FANOUT)
        for node in nodes:
            interests = self._partners[node].interests
            told = [h for h in holdings if wanted(interests, h.document)]
            told = [h for h in told if h.part.author != node]
            for start in range(0, len(told), state_limits.HOLDINGS):
                self._out.send(
                    node,
                    Lane.BACKGROUND,
                    StateHave(tuple(told[start : start + state_limits.HOLDINGS])),
                )
