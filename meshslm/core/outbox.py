"""Effects of one event, gathered in order, and the generations of timers.

Why: machines of the core share one list of effects, so that their order is the order in which
they were decided; and a timer started twice must fire once.

Rules:
- `take` empties the list; the node calls it at the end of every event.
- A timer's generation is never used twice, so that a stale firing is always recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from meshslm.core.events import Effect, Lane, Send, StartTimer, StopTimer, Tell, TimerKey
from meshslm.ids import NodeId, TaskId
from meshslm.wire.codec import encode
from meshslm.wire.messages import Message

Divert = Callable[[NodeId, Lane, Message], bool]


class Outbox:
    """Where machines put what is to be done."""

    __slots__ = ("_effects", "_generation", "_timers", "divert", "hold_back")

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._timers: dict[tuple[str, str], int] = {}
        """Generations of those that run, by kind and subject: plain pairs, as machines stop many
        timers that may not run, and ask after more."""
        self._generation = 0
        self.hold_back: set[NodeId] = set()
        """Peers without a link for a moment: what is said to them of tasks they will ask for."""
        self.divert: Divert | None = None
        """Of a large mesh: takes what cannot go out now, as there is no link yet."""

    def put(self, effect: Effect) -> None:
        """Append an effect."""
        self._effects.append(effect)

    def send(self, peer: NodeId, lane: Lane, message: Message) -> None:
        """Encode and send a message to one peer."""
        if lane is Lane.INTERACTIVE and peer in self.hold_back:
            return
        if self.divert is None or not self.divert(peer, lane, message):
            self._effects.append(Send(peer, lane, encode(message)))

    def send_encoded(self, peer: NodeId, lane: Lane, message: bytes) -> None:
        """Send what was encoded once for many."""
        if lane is not Lane.INTERACTIVE or peer not in self.hold_back:
            self._effects.append(Send(peer, lane, message))

    def tell(
        self,
        topic: str,
        detail: str = "",
        *,
        peer: NodeId | None = None,
        task: TaskId | None = None,
    ) -> None:
        """Report something worth a log line or a count."""
        self._effects.append(Tell(topic, detail, peer, task))

    def start_timer(self, kind: str, subject: str, after_ms: float) -> None:
        """Fire once after `after_ms` at least; replaces the timer of the same name."""
        self._generation += 1
        self._timers[kind, subject] = self._generation
        key = TimerKey(kind, subject)
        self._effects.append(StartTimer(key, self._generation, max(0, ceil(after_ms))))

    def stop_timer(self, kind: str, subject: str) -> None:
        """Forget a timer, if it runs."""
        if self._timers.pop((kind, subject), None) is not None:
            self._effects.append(StopTimer(TimerKey(kind, subject)))

    def timer_runs(self, kind: str, subject: str) -> bool:
        """Whether a timer of this name is waiting to fire."""
        return (kind, subject) in self._timers

    def timer_is_current(self, key: TimerKey, generation: int) -> bool:
        """Whether a firing is the newest of its key; if so the timer is spent."""
        name = (key.kind, key.subject)
        if self._timers.get(name) != generation:
            return False
        del self._timers[name]
        return True

    def take(self) -> list[Effect]:
        """All effects since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects
