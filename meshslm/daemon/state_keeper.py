"""Keeps shared documents of a running node: joins core, journal and desk, from start to end.

Rules:
- The journal is opened before the core hears of it, and closed after its last write.
- A node that ends in any other way than by `close` did not end cleanly, and its next life begins
  new parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from meshslm.adapters.sqlite_journal import SqliteJournal
from meshslm.core.state_events import (
    HistoryFound,
    Persist,
    ReadDeltas,
    ReloadPart,
    StateChanged,
    StateOpened,
    StateWritten,
)
from meshslm.daemon.pump import Pump
from meshslm.daemon.state_desk import StateDesk

CLOSE_S = 2.0
"""Time for the last writes to reach the disk."""


class StateKeeper:
    """The outside of one node's documents."""

    def __init__(self, journal: SqliteJournal, opened: StateOpened, pump: Pump, desk: StateDesk):
        self._journal = journal
        self._opened: StateOpened | None = opened
        self._pump = pump
        self.desk = desk

    def performers(self) -> dict[type, Callable[[Any], None]]:
        """For the executor's table."""
        return {
            Persist: self._journal.perform,
            ReadDeltas: self._journal.perform,
            ReloadPart: self._journal.perform,
            StateWritten: self.desk.answer,
            StateChanged: self.desk.tell,
            HistoryFound: self.desk.found,
        }

    def begin(self) -> None:
        """Tell the core what the journal holds; after `Started`."""
        opened, self._opened = self._opened, None
        assert opened is not None, "begun once"
        self._pump.handle(opened)

    async def run(self) -> None:
        """Serve the journal, for ever."""
        await self._journal.run(self._pump.handle)

    async def close(self, boot: int) -> None:
        """The node ends: what was asked for is written, and the file says that all is well."""
        with trio.move_on_after(CLOSE_S) as late:
            await self._journal.drained()
        if late.cancelled_caught:
            return
        self._journal.close(boot)
