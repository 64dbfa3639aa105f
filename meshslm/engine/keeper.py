"""Brings computed beginnings of prompts from disk into slots, and from slots to disk.

Rules:
- Only of the base model: what an adapter computes is worth nothing once its file has changed.
- Nothing here can fail a run: what cannot be read is computed.
"""

from __future__ import annotations

import time
from typing import Final

from meshslm.engine.llama import Model
from meshslm.engine.prefix_cache import TILE, Tiles
from meshslm.engine.schedule import Scheduler
from meshslm.engine.states import LEAST_TILES, StateStore

WORTH_TILES: Final = LEAST_TILES
"""Tiles that a file must have more than the slots, to be read: 256 rows of a 135M model take about
0.7 s, reading them 0.05 s."""


OWN_NAMES: Final = 100_000
"""Names to remember until those that are in no slot are forgotten."""


class Keeper:
    """Between the slots of one engine and its files."""

    def __init__(self, model: Model, scheduler: Scheduler, store: StateStore) -> None:
        self._model = model
        self._scheduler = scheduler
        self._store = store
        self._own: set[bytes] = set()
        """Tiles of prompts of the base model; those in slots at least."""

    def recall(self, tiles: Tiles) -> None:
        """Bring back what a prompt of the base model begins with, if that saves much."""
        if len(self._own) > OWN_NAMES:
            held = self._scheduler.cache.recent()
            self._own &= {name for slot in held for name in self._scheduler.cache.held(slot)}
        self._own.update(tiles)
        found = self._store.find(tiles)
        _, warm = self._scheduler.cache.match(tiles)
        if len(found) - warm < WORTH_TILES:
            return
        loaded = self._store.load(found)
        if loaded is None:
            return
        slot = self._scheduler.adopt(loaded[0])
        if slot is not None and not self._model.restore(slot, loaded[1]):
            self._scheduler.cache.hold(slot, ())
            self._model.keep(slot, 0)

    def keep(self, seconds: float) -> int:
        """Write what is in the slots, the last used first; how many. Nothing runs any more."""
        until = time.monotonic() + seconds
        count = 0
        for slot in self._scheduler.cache.recent():
            tiles = self._scheduler.cache.held(slot)
            if time.monotonic() >= until:
                break
            if tiles[-1] in self._own:
                self._model.keep(slot, len(tiles) * TILE)
                count += self._store.save(tiles, self._model.state(slot))
        return count
