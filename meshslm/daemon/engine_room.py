"""Starts and ends engines as the core decides.

Rules:
- One life of an engine at a time: a load waits until the last life is over.
- Before a load the machine is asked whether the memory is there now; a load that would drive it
  into swapping is refused with the numbers.
- Whoever is told to leave has left before `EngineUnloaded` is posted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import trio

from meshslm.core.events import EngineLoading, EngineLost, EngineReady, EngineUnloaded, Event
from meshslm.ports import Engine, Post

log = logging.getLogger("meshslm.hosting")

TELL_S: Final = 2.0
"""Time between two log lines on the progress of one load."""

Room = Callable[[str], str]
"""Why a model cannot be loaded now; empty where it can."""


class EngineRoom:
    """The engines of one node."""

    def __init__(self, engines: Mapping[str, Engine], post: Post, room: Room) -> None:
        self._engines = engines
        self._post = post
        self._room = room
        self._lives: dict[str, trio.CancelScope] = {}
        self._turns = {model: trio.Lock() for model in engines}
        self._nursery: trio.Nursery | None = None
        self._told: dict[str, float] = {}

    async def run(self, started: Callable[[], None]) -> None:
        """Keep engines running until cancelled; calls `started` once `load` may be called."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            started()
            await trio.sleep_forever()

    def load(self, model: str) -> None:
        """Start an engine; ends in `EngineReady`, or in a final `EngineLost`."""
        assert self._nursery is not None
        life = self._lives[model] = trio.CancelScope()
        self._nursery.start_soon(self._live, model, life)

    def unload(self, model: str) -> None:
        """End it; ends in `EngineUnloaded`."""
        self._lives[model].cancel()

    async def _live(self, model: str, life: trio.CancelScope) -> None:
        async with self._turns[model]:
            with life:
                why = self._room(model)
                if why:
                    await self._watched(EngineLost(model, why, final=True))
                else:
                    log.info("%s is being loaded", model)
                    await self._engines[model].run(self._watched)
            if life.cancel_called:
                log.info("%s was unloaded", model)
                await self._post(EngineUnloaded(model))

    async def _watched(self, *events: Event) -> None:
        """Post events, and log what an operator wants to know."""
        for event in events:
            self._log(event)
        await self._post(*events)

    def _log(self, event: Event) -> None:
        match event:
            case EngineLoading(model, fraction):
                now = trio.current_time()
                if now - self._told.setdefault(model, now) >= TELL_S:
                    self._told[model] = now
                    log.info("%s is loaded to %.0f %%", model, 100 * fraction)
            case EngineReady(model):
                self._told.pop(model, None)
                log.info("%s is loaded and takes requests", model)
            case EngineLost(model, reason):
                self._told.pop(model, None)
                log.warning("the engine of %s was lost: %s", model, reason)
            case _:
                pass
