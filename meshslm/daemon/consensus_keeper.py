"""A coordinator's log at run time: writes what the core wants kept, and says when it is on disk.

Rules:
- Writes are done in a thread, in order; all that wait are one transaction, so that many decisions
  share one sync.
- A log that cannot be read or written takes this node out of the group until it is restarted, and
  nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from meshslm.core.consensus.events import LogFailed, LogPersisted, LogRecovered, PersistLog
from meshslm.core.events import Event
from meshslm.errors import OurFault

log = logging.getLogger("meshslm.consensus")


class KeptLog(Protocol):
    """Where the log is. Both methods raise `OurFault` and are called by one thread at a time."""

    def recover(self, store: int) -> LogRecovered:
        """What it holds; `store` is the number of a log that is made only now."""
        ...

    def persist(self, changes: list[PersistLog]) -> None:
        """Write changes durably, all or none."""
        ...


class ConsensusKeeper:
    """Performs `PersistLog`."""

    def __init__(self, kept: KeptLog, handle: Callable[[Event], None]) -> None:
        self._kept = kept
        self._handle = handle
        self._waiting: list[PersistLog] = []
        self._more = trio.Event()
        self._failed = False

    def begin(self, store: int) -> None:
        """Read the log and tell the core, before anybody connects."""
        try:
            self._handle(self._kept.recover(store))
        except OurFault as fault:
            self._fail(fault)

    def persist(self, effect: PersistLog) -> None:
        """Write soon. The core bounds how many wait, by what it proposes."""
        if not self._failed:
            self._waiting.append(effect)
            self._more.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while not self._failed:
            await self._more.wait()
            self._more = trio.Event()
            changes, self._waiting = self._waiting, []
            try:
                await trio.to_thread.run_sync(self._kept.persist, changes)
            except OurFault as fault:
                self._fail(fault)
                return
            self._handle(LogPersisted(changes[-1].number))

    def _fail(self, fault: OurFault) -> None:
        self._failed = True
        self._waiting.clear()
        log.error("this node decides nothing until it is restarted: %s", fault)
        self._handle(LogFailed(str(fault)))
