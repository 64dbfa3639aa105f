"""How busy this node is, told to the coordinators of what it hosts.

Events: once a second in a large mesh, and whenever a run comes or ends.
Effects: `Send`, a timer.

Rules:
- What has changed is told within `mesh_limits.TELL_MS`, and never more often: what others know of a
  queue is worth the less the older it is.
- What has not changed is told every `mesh_limits.IDLE_PRESENCE_MS`.
- In a small mesh nothing is told here: there everybody hears everybody's presence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshslm import limits, mesh_limits
from meshslm.core.directory import Directory
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.codec import encode
from meshslm.wire.messages import Capability, EngineLoad, Presence

TIMER = "tell"


class Telling:
    """What this node's coordinators know of its load."""

    def __init__(
        self, directory: Directory, out: Outbox, own: Callable[[], tuple[Capability, Presence]]
    ) -> None:
        self._directory = directory
        self._out = out
        self._own = own
        self._wanted: dict[NodeId, None] = {}
        self._told: dict[NodeId, tuple[Instant, tuple[EngineLoad, ...]]] = {}
        """What each coordinator heard of us last."""

    def to(self, wanted: dict[NodeId, None], presence: Presence, now: Instant) -> None:
        """Give each of these this node's load, where it changed or it is time."""
        self._wanted = wanted
        for node in [n for n in self._told if n not in wanted]:
            del self._told[node]
        self._give(presence, now)

    def changed(self) -> None:
        """A run came or ended."""
        if self._wanted and not self._out.timer_runs(TIMER, ""):
            self._out.start_timer(TIMER, "", mesh_limits.TELL_MS)

    def tell(self, now: Instant) -> None:
        """It is time to tell of a change."""
        if self._wanted:
            self._give(self._own()[1], now)

    def _give(self, presence: Presence, now: Instant) -> None:
        loads, encoded = presence.loads, b""
        due = mesh_limits.IDLE_PRESENCE_MS - limits.PRESENCE_MS / 2
        for node in self._wanted:
            if self._directory.get_alive(node) is None:
                self._told.pop(node, None)
                continue
            last, said = self._told.get(node, (None, ()))
            if last is None or said != loads or ms_between(last, now) >= due:
                self._told[node] = (now, loads)
                if not encoded:
                    encoded = encode(replace(presence, next_ms=mesh_limits.IDLE_PRESENCE_MS))
                self._out.send_encoded(node, Lane.CONTROL, encoded)

    def release(self) -> None:
        """The mesh is small, or this node leaves."""
        self._wanted = {}
        self._told.clear()
        self._out.stop_timer(TIMER, "")
