"""Writes a node's journal and ledger into its documents, a moment after it happened.

Rules:
- Tasks never wait for it: what happened is gathered, and written every `WRITE_S` in one go.
- While nothing can be written, what is gathered stays in memory: the last state of each task and
  sum, so it is bounded by them.
- Journals older than they are kept are emptied.
"""

from __future__ import annotations

import logging
from itertools import islice

import trio

from meshslm import state_limits
from meshslm.core.chronicle import Chronicle, day_of, outdated
from meshslm.core.events import FailTask, FinishTask, RouteChosen
from meshslm.core.state_events import Change
from meshslm.daemon.state_desk import StateDesk
from meshslm.errors import RequestFault
from meshslm.ids import TaskId
from meshslm.wire.messages import TaskRequest

WRITE_S = 0.5
RETRY_S = 10.0

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
        while True:
            await self._something.wait()
            self._something = trio.Event()
            await trio.sleep(WRITE_S)
            await self.write()

    async def write(self) -> None:
        """Write what was gathered."""
        while self._chronicle.waiting:
            for document, changes in self._chronicle.take().items():
                await self._write(document, changes)
        today = day_of(self._desk.now_ms())
        if today != self._day:
            self._day = today
            await self._empty_old(today)

    async def _write(self, document: str, changes: tuple[Change, ...]) -> None:
        while True:
            try:
                await self._desk.write(document, changes)
            except RequestFault as fault:
                _log.warning("%s is not written, trying again: %s", document, fault.detail)
                await trio.sleep(RETRY_S)
            else:
                return

    async def _empty_old(self, today: str) -> None:
        documents = self._desk.documents
        for name in tuple(outdated(documents, today)):
            held = (key for key in documents.keys(name) if documents.read(name, key) is not None)
            while keys := tuple(islice(held, state_limits.UPDATE_CHANGES)):
                await self._write(name, tuple(Change(key, None) for key in keys))
                held = (k for k in documents.keys(name) if documents.read(name, k) is not None)
