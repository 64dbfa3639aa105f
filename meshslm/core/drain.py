"""Leaving without breaking anything off: no new work, what is under way ends here or elsewhere.

What other nodes serve better than nobody moves to them: the origins of the runs here are told, and
go on elsewhere behind what their clients have. What can go on nowhere else is finished here, and so
is everything that entered here, because its clients hold connections to this node.

Events: a request to drain, the timer.
Effects: `Send`, `Drained` once, what origin and membership decide.

Rules:
- From the request on this node announces no specialists and refuses what is new, with a reason that
  lets it be tried elsewhere.
- It ends: at the latest when its time is up.
- Messages can be lost: origins are told again as long as there are runs of theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits
from meshslm.core.drain_events import Drained, DrainRequested
from meshslm.core.events import Lane
from meshslm.core.origin import Origin
from meshslm.core.outbox import Outbox
from meshslm.core.serving import Serving
from meshslm.core.views import DrainView
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.draining import Draining

TIMER = "drain"


class Drain:
    """Whether and how this node leaves."""

    def __init__(
        self,
        node: NodeId,
        out: Outbox,
        origin: Origin,
        serving: Serving,
        announce_nothing: Callable[[], None],
    ) -> None:
        self._node = node
        self._out = out
        self._origin = origin
        self._serving = serving
        self._announce_nothing = announce_nothing
        self._until: Instant | None = None
        self._looks = 0
        self._over = False

    @property
    def begun(self) -> bool:
        """This node takes nothing new any more."""
        return self._until is not None

    def begin(self, event: DrainRequested, now: Instant) -> None:
        """Take no more work, and let go of what is here."""
        until = after(now, min(event.limit_ms, limits.DRAIN_MS))
        if self._until is not None:
            self._until = min(self._until, until)
            return
        self._until = until
        self._out.tell("node.draining", f"{self._left(now)} ms at most")
        self._origin.draining = self._serving.draining = True
        self._announce_nothing()
        self._look(now)

    def timer(self, now: Instant) -> None:
        """Look again how much is left."""
        self._look(now)

    def told(self, peer: NodeId, _message: Draining, now: Instant) -> None:
        """A node that serves this one leaves."""
        self._origin.move_from(peer, now)

    def view(self, now: Instant) -> DrainView | None:
        """How far it is; None where this node is not leaving."""
        if self._until is None:
            return None
        others = sum(count for origin, count in self._runs())
        return DrainView(self._left(now), self._origin.active, others)

    def _look(self, now: Instant) -> None:
        if self._over:
            return
        runs = self._runs()
        busy = bool(runs) or self._origin.active > 0
        if not busy or self._left(now) <= 0:
            self._over = True
            self._out.put(Drained(whole=not busy))
            return
        if self._looks % limits.DRAIN_TELL_EVERY == 0:
            for origin, _ in runs:
                self._out.send(origin, Lane.CONTROL, Draining(self._left(now)))
        self._looks += 1
        self._out.start_timer(TIMER, "", min(limits.DRAIN_LOOK_MS, self._left(now)))

    def _runs(self) -> list[tuple[NodeId, int]]:
        """Other nodes that have runs here, and how many each."""
        return [(o, n) for o, n in self._serving.origins().items() if o != self._node]

    def _left(self, now: Instant) -> int:
        assert self._until is not None
        return max(0, int(ms_between(now, self._until)))
