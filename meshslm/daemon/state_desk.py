"""Shared documents as the faces of a node use them: write and wait until it is durable, follow.

    revisions = await desk.write("memory/x", (Change("k", b"v"),))
    async with desk.follow("memory/*") as changes:
        async for change in changes: ...            # `StateChanged`, durable, in order
    desk.documents.read("memory/x", "k")            # at once; see `core.documents`

Rules:
- A follower so slow that `FOLLOWED_CHANGES` pile up is cut off; it reads anew and follows again.
- Reading needs no waiting: everything is in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from meshslm import state_limits
from meshslm.core.documents import Documents
from meshslm.core.state_events import (
    Change,
    DayIs,
    HistoryAsked,
    HistoryFound,
    StateChanged,
    StateCheckAsked,
    StateWrite,
    StateWritten,
)
from meshslm.daemon.pump import Pump
from meshslm.errors import RequestFault
from meshslm.state.names import matches


@dataclass(slots=True)
class _Asked:
    """A write whose answer is waited for."""

    answer: StateWritten | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class StateDesk:
    """The documents of one node, for its faces."""

    def __init__(self, documents: Documents, pump: Pump, unix_ms: Callable[[], int]) -> None:
        self.documents = documents
        self._pump = pump
        self._unix_ms = unix_ms
        self._asked: dict[int, _Asked] = {}
        self._numbers = 0
        self._histories: dict[int, trio.MemorySendChannel[HistoryFound]] = {}
        self._followers: list[tuple[str, trio.MemorySendChannel[StateChanged]]] = []

    def now_ms(self) -> int:
        """Milliseconds since 1970, by which entries run out."""
        return self._unix_ms()

    async def write(self, document: str, changes: tuple[Change, ...]) -> tuple[int, ...]:
        """Change a document and wait until that is durable here; the new revisions, in order.

        Raises `RequestFault` where it was not done, or not yet.
        """
        self._numbers += 1
        number = self._numbers
        asked = self._asked[number] = _Asked()
        try:
            self._pump.handle(StateWrite(number, document, changes, self._unix_ms()))
            await asked.answered.wait()
        finally:
            del self._asked[number]
        answer = asked.answer
        assert answer is not None, "answered means that there is an answer"
        if answer.code is not None:
            raise RequestFault(answer.code, answer.detail)
        return answer.revisions

    def answer(self, effect: StateWritten) -> None:
        """The core answers a write."""
        asked = self._asked.get(effect.request)
        if asked is not None:
            asked.answer = effect
            asked.answered.set()

    @asynccontextmanager
    async def follow(self, pattern: str) -> AsyncIterator[trio.MemoryReceiveChannel[StateChanged]]:
        """Changes of documents that `pattern` covers, from now on."""
        send, receive = trio.open_memory_channel[StateChanged](state_limits.FOLLOWED_CHANGES)
        self._followers.append((pattern, send))
        try:
            async with receive:
                yield receive
        finally:
            self._followers = [entry for entry in self._followers if entry[1] is not send]
            send.close()

    def tell(self, effect: StateChanged) -> None:
        """The core tells of a change."""
        for pattern, send in tuple(self._followers):
            if matches(pattern, effect.document):
                try:
                    send.send_nowait(effect)
                except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                    send.close()
                    self._followers = [e for e in self._followers if e[1] is not send]

    async def past(self, task: str = "", limit: int = 1, state: str = "") -> HistoryFound:
        """What became of a task, or of the newest ones, that entered at other members."""
        self._numbers += 1
        number = self._numbers
        send, receive = trio.open_memory_channel[HistoryFound](1)
        self._histories[number] = send
        try:
            self._pump.handle(HistoryAsked(number, task, limit, state))
            return await receive.receive()
        finally:
            del self._histories[number]

    def found(self, effect: HistoryFound) -> None:
        """The core answers; whoever asked may have gone."""
        waiting = self._histories.get(effect.number)
        if waiting is not None:
            waiting.send_nowait(effect)

    def day(self) -> None:
        """Tell the core what day it is: what is over is sealed, and dropped in the end."""
        self._pump.handle(DayIs(self._unix_ms()))

    def compare(self) -> None:
        """Compare all documents with all members, now; the status tells what comes of it."""
        self._pump.handle(StateCheckAsked())
