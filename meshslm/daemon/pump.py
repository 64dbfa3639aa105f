"""The one place where a running node's events meet its core.

Whoever has an event hands it in and it is handled there and then: there is no queue between the
network and the decision, so no latency and no bound to choose. All of it runs on trio's one
thread, and an event that comes up while effects are performed waits until they are done.

Rules:
- Events are handled one at a time, in the order in which they were handed in.
- A bug in the core is raised to whoever handed the event in. It ends the node with a trace, as a
  core in an unknown state must not go on. Only the link takes it for its peer's, which it drops:
  one message must not end every node that hears it.
- The flight recorder, where there is one, notes every event with what the core did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from meshslm import limits
from meshslm.core.events import Effect, Event
from meshslm.core.node import NodeCore
from meshslm.daemon.recorder import Recorder
from meshslm.ports import Clock

Perform = Callable[[Effect], None]


def _nothing() -> None:
    pass


class Pump:
    """Events in, effects out."""

    def __init__(self, core: NodeCore, clock: Clock, recorder: Recorder | None = None) -> None:
        self._core = core
        self._clock = clock
        self._recorder = recorder
        self._perform: Perform | None = None
        self._begin = self._end = _nothing
        self._waiting: deque[Event] = deque()
        self._busy = False
        self._turn = 0

    def attach(
        self,
        perform: Perform,
        *,
        begin: Callable[[], None] = _nothing,
        end: Callable[[], None] = _nothing,
    ) -> None:
        """Name the executor; once, before the first event.

        `begin` is called before, and `end` after the events that are handled at a time.
        """
        self._perform = perform
        self._begin, self._end = begin, end

    def handle(self, *events: Event) -> None:
        """Handle events and perform what follows."""
        self._waiting.extend(events)
        if self._busy:
            return
        assert self._perform is not None, "no executor is attached"
        self._busy = True
        self._begin()
        try:
            while self._waiting:
                for effect in self._decide(self._waiting.popleft()):
                    self._perform(effect)
        finally:
            self._busy = False
            self._end()

    def _decide(self, event: Event) -> list[Effect]:
        now = self._clock.now()
        if self._recorder is None:
            return self._core.handle(event, now)
        try:
            effects = self._core.handle(event, now)
        except Exception:
            self._recorder.note(event, now, None)
            raise
        self._recorder.note(event, now, effects)
        return effects

    async def post(self, *events: Event) -> None:
        """Handle events, and let other tasks run every few of them."""
        self.handle(*events)
        self._turn += len(events)
        if self._turn >= limits.EVENTS_PER_TURN:
            self._turn = 0
            await trio.lowlevel.checkpoint()
