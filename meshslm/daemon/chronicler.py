"""Writes a node's journal and ledger into its documents, a moment after it happened.

Rules:
- Tasks never wait for it: what happened is gathered, and written every `WRITE_S` in one go.
- While nothing can be written, what is gathered stays in memory, within bounds. A write that is
  refused `ATTEMPTS` times is given up, with a word in the log.
- Once an hour the core hears what day it is, so that past days are sealed, and dropped in the end.
"""

from __future__ import annotations

import logging

import trio

from meshslm.core.chronicle import Chronicle, day_of
from meshslm.core.events import FailTask, FinishTask, RouteChosen
from meshslm.core.state_events import Change
from meshslm.daemon.state_desk import StateDesk
from meshslm.errors import FaultCode, RequestFault
from meshslm.ids import TaskId
from meshslm.state.names import DocumentClass, named
from meshslm.wire.messages import TaskRequest

WRITE_S = 0.5
DAY_S = 3_600.0
RETRY_S = 10.0
ATTEMPTS = 30
"""A disk that is full for five minutes loses no line of the journal."""

_log = logging.getLogger("meshslm.state")


class Chronicler:
    """The journal and ledger of a running node."""

    def __init__(self, desk: StateDesk, boot: int, *, texts: bool) -> None:
        self._desk = desk
        self._chronicle = Chronicle(boot, texts=texts)
        self._something = trio.Event()
        self._day = ""

    def arrived(self, task: TaskId, request: TaskRequest) -> None:
        """A task enters."""
        self._chronicle.arrived(task, request, self._desk.now_ms())
        self._something.set()

    def told(self, effect: RouteChosen | FinishTask | FailTask) -> None:
        """Its client is told something other than text."""
        now = self._desk.now_ms()
        if isinstance(effect, RouteChosen):
            self._chronicle.routed(effect, now)
        else:
            self._chronicle.ended(effect, now)
        self._something.set()

    def dropped(self, task: TaskId) -> None:
        """Its client left."""
        self._chronicle.dropped(task, self._desk.now_ms())
        self._something.set()

    async def run(self) -> None:
        """Write, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_days)
            while True:
                await self._something.wait()
                self._something = trio.Event()
                await trio.sleep(WRITE_S)
                await self.write()

    async def _watch_days(self) -> None:
        while True:
            self._desk.day()
            await trio.sleep(DAY_S)

    async def write(self) -> None:
        """Write what was gathered."""
        today = day_of(self._desk.now_ms())
        fresh, self._day = today != self._day, today
        if fresh:
            self._chronicle.knows(today, self._written(today))
        while self._chronicle.waiting:
            for document, changes in self._chronicle.take().items():
                await self._write(document, changes)

    def _written(self, day: str) -> list[str]:
        """Tasks that an earlier life wrote into the journal of a day, the oldest first."""
        name, documents = named(DocumentClass.JOURNAL, day), self._desk.documents
        found = ((documents.read(name, key), key) for key in documents.keys(name))
        at = [(entry.written_ms, key) for entry, key in found if entry is not None]
        return [key for _, key in sorted(at)]

    async def _write(self, document: str, changes: tuple[Change, ...]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._desk.write(document, changes)
            except RequestFault as fault:
                hopeless = fault.code is FaultCode.BAD_REQUEST or attempt == ATTEMPTS
                what = "given up" if hopeless else "trying again"
                _log.warning("%s is not written, %s: %s", document, what, fault.detail)
                if hopeless:
                    return
                await trio.sleep(RETRY_S)
            else:
                return
