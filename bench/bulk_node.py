"""One of two nodes between which tokens go beside bulk, as a process; `bench_bulk` starts both.

The first word is the role. `answer ADDRESS` listens there, prints its address, and answers:
control messages with themselves, bulk with a few bytes, a report that is asked for with the times
between tokens. `ask ADDRESS WAY SECONDS` dials there and prints what it measured, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from unittest.mock import patch

import trio

from meshslm import limits
from meshslm.adapters import wires
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.core.events import BytesReceived, Event, Lane, PeerConnected
from meshslm.ids import NodeId

NOTHING, UNBOUNDED, LANE, BULK = "nothing", "unbounded", "lane", "bulk"
WAYS = (NOTHING, UNBOUNDED, LANE, BULK)
"""No bulk; in the lane with no bound on what the kernel takes; in the lane; as the link does it."""
PIECE_BYTES = 48 * 1024
PIECES = 68
"""Under way or waiting at any time: 3.2 MiB."""
TOKEN_S, PING_S = 0.02, 0.05
WARM_S = 2.0
REPORT = b"report"
NOBODY = NodeId("")
REPORTS = 2
"""The first one ends the warming up."""


class Answerer:
    """Answers, and keeps the times at which tokens came."""

    def __init__(self, listen: str) -> None:
        self._link = Libp2pLink(NodeKey.generate(), (listen,))
        self._tokens: list[float] = []

    async def run(self) -> None:
        """For ever."""
        await self._link.run(self._post, started=lambda: print(self._link.addresses[0], flush=True))

    async def _post(self, *events: Event) -> None:
        for event in events:
            if not isinstance(event, BytesReceived):
                return
            kind = event.message[:1]
            if kind == b"t":
                self._tokens.append(time.perf_counter())
            elif kind == b"b":
                self._link.send(event.peer, Lane.BACKGROUND, b"b")
            elif event.message == REPORT:
                times = self._tokens
                gaps = [b - a for a, b in pairwise(times)]
                self._link.send(event.peer, Lane.CONTROL, REPORT + json.dumps(gaps).encode())
                self._tokens = []
            else:
                self._link.send(event.peer, Lane.CONTROL, event.message)


@dataclass
class Asker:
    """Sends all three kinds, and measures."""

    address: str
    seconds: float
    bulk: bool
    link: Libp2pLink = field(
        default_factory=lambda: Libp2pLink(NodeKey.generate(), ("/ip4/127.0.0.1/tcp/0",))
    )
    trips: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    pieces: int = 0
    reports: int = 0
    over: bool = False
    """Whether bulk went over a connection of its own."""
    _peer: trio.Event = field(default_factory=trio.Event)
    _done: trio.Event = field(default_factory=trio.Event)
    _id: NodeId = field(default=NOBODY)

    async def run(self) -> None:
        """Measure once."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: self.link.run(self._post, started=self._dial))
            await self._peer.wait()
            for _ in range(PIECES if self.bulk else 0):
                self._more()
            nursery.start_soon(self._tokens)
            await trio.sleep(WARM_S)
            self.trips.clear()
            self.pieces, began = 0, trio.current_time()
            self._send(Lane.CONTROL, REPORT)  # what came until now is not counted
            while trio.current_time() < began + self.seconds:
                self._send(Lane.CONTROL, b"p%r" % time.perf_counter())
                await trio.sleep(PING_S)
            passed = trio.current_time() - began
            rate = self.pieces * PIECE_BYTES / passed
            link = self.link.link_of(self._id)
            assert link is not None, "it holds"
            self.over = link.background.carried
            self._send(Lane.CONTROL, REPORT)
            await self._done.wait()
            told = {"trips": self.trips, "gaps": self.gaps, "bulk": rate, "over": self.over}
            print(json.dumps(told), flush=True)
            nursery.cancel_scope.cancel()

    def _dial(self) -> None:
        self.link.dial(self.address)

    def _send(self, lane: Lane, message: bytes) -> None:
        self.link.send(self._id, lane, message)

    def _more(self) -> None:
        self._send(Lane.BACKGROUND, b"b" * PIECE_BYTES)

    async def _tokens(self) -> None:
        while True:
            self._send(Lane.INTERACTIVE, b"t" * 60)
            await trio.sleep(TOKEN_S)

    async def _post(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, PeerConnected):
                self._id = event.peer
                self._peer.set()
            elif isinstance(event, BytesReceived):
                kind = event.message[:1]
                if kind == b"b":
                    self.pieces += 1
                    self._more()
                elif kind == b"p":
                    self.trips.append(time.perf_counter() - float(event.message[1:]))
                else:
                    self.gaps = json.loads(event.message.removeprefix(REPORT))
                    self.reports += 1
                    if self.reports == REPORTS:
                        self._done.set()


@contextmanager
def as_asked(way: str) -> Iterator[None]:
    """The link as it is, or without one of its means."""
    worth = limits.BULK_WORTH_BYTES if way == BULK else sys.maxsize
    unsent = (1 << 30) if way == UNBOUNDED else wires.UNSENT_BYTES
    with (
        patch.object(limits, "BULK_WORTH_BYTES", worth),
        patch.object(wires, "UNSENT_BYTES", unsent),
    ):
        yield


def main(role: str, address: str, way: str = BULK, seconds: str = "10") -> None:
    """One process."""
    with as_asked(way):
        if role == "answer":
            trio.run(Answerer(address).run)
        else:
            trio.run(Asker(address, float(seconds), way != NOTHING).run)


if __name__ == "__main__":
    main(*sys.argv[1:])
