"""The `Engine` port around a scripted engine, for tests of the daemon without a model.

Rules:
- It keeps trio's time, so that a test with `MockClock` runs it at once.
"""

from __future__ import annotations

import math

import trio

from meshslm.adapters.scripted_engine import ScriptedEngine, Speed
from meshslm.core.events import EngineLost
from meshslm.ids import Instant, RunId
from meshslm.ports import Post
from meshslm.wire.messages import TaskRequest


class ScriptedPort:
    """An engine that answers from the script."""

    def __init__(self, model: str, speed: Speed | None = None, *, load_ms: float = 0.0) -> None:
        self._engine = ScriptedEngine(model, speed)
        self._load_s = load_ms / 1000
        self._changed = trio.Event()
        self._crash = ""
        self.ready = False

    @property
    def model(self) -> str:
        """Name of the base model."""
        return self._engine.model

    def start_run(self, run: RunId, request: TaskRequest, *, coalesce: bool = False) -> None:
        """Begin a run."""
        del coalesce  # each token comes when the script has it come
        self._engine.start_run(run, request, _now())
        self._changed.set()

    def stop_run(self, run: RunId) -> None:
        """Stop a run; unknown ones are ignored."""
        self._engine.stop_run(run, _now())
        self._changed.set()

    def crash(self, reason: str = "the script says so") -> None:
        """Lose every run, and load again."""
        self._crash = reason
        self._changed.set()

    async def run(self, post: Post) -> None:
        """Serve until cancelled; what ran then is forgotten."""
        try:
            await self._serve(post)
        finally:
            self.ready = False
            self._engine.reset()

    async def _serve(self, post: Post) -> None:
        while True:
            await trio.sleep(self._load_s)
            self.ready = True
            await post(self._engine.loaded())
            while not self._crash:
                at = self._engine.next_at()
                wait = math.inf if at is None else max(0.0, (at - _now()) / 1e6)
                self._changed = trio.Event()
                with trio.move_on_after(wait):
                    await self._changed.wait()
                for event in self._engine.advance(_now()):
                    await post(event)
            reason, self._crash = self._crash, ""
            self.ready = False
            self._engine.reset()
            await post(EngineLost(self.model, reason))


def _now() -> Instant:
    return Instant(round(trio.current_time() * 1e6))
