"""How long a choice takes where the request is read first, by the real model in its own process.

A node of the daemon's real parts, without a network: a request arrives as from a client, its text
goes to the worker of the embedding model and comes back as a vector, and the node decides. Requests
are held-out ones of every kind, and none comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Final

import trio

from bench.bench_decision import SIZES, loads_of, peer_of
from bench.engines import library
from bench.labelled import Labelled, cards, labelled
from bench.table import Row
from bench.turns import say
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import Event, HostingChanged, RouteChosen, RunEnded, Started
from meshslm.core.node import NodeCore
from meshslm.core.residency import ModelNeed, Residency
from meshslm.daemon.executor import Executor
from meshslm.daemon.pump import Pump
from meshslm.daemon.service import NodeService
from meshslm.daemon.timers import Timers
from meshslm.ids import NodeId
from meshslm.profiles import Profile
from meshslm.wire.messages import ChatMessage, Hardware, Specialist, TaskRequest
from tests.daemon.box import NoLink, TrioClock

MODEL: Final = "multilingual-e5-small"
BOUND_MS: Final = 25.0
REQUESTS: Final = 144
"""Of the held-out ones for each size, every third: 434 for all sizes together."""
CONTEXT: Final = 512
LEARNING_S: Final = 180.0
HOW_TO_GET_IT: Final = f"not measured: `meshslm models pull {MODEL}` fetches the model"


@dataclass
class _Times:
    """In milliseconds."""

    whole: list[float] = field(default_factory=list)
    computing: list[float] = field(default_factory=list)
    """Of them in the model, as its worker says."""
    unread: int = 0
    """Requests that were routed by words, as the vector was late."""


class _Node:
    """A node that hosts the embedding model and knows as many others as it is told."""

    def __init__(self, path: Path) -> None:
        clock = TrioClock()
        config = CoreConfig(NodeId("a"), "a", semantic=True, full_mesh=2 * max(SIZES))
        core = NodeCore(config, Chance.from_int(1))
        assert core._reading is not None, "it is semantic"  # noqa: SLF001 - as in the next line
        self.reading, self._detection = core._reading, core._detection  # noqa: SLF001 - a look inside
        self._directory = core._directory  # noqa: SLF001 - others are made up, without links
        self.pump = Pump(core, clock)
        self.timers = Timers(clock, self.pump.handle)
        chance = Chance.from_int(2)
        ready = lambda: (True, "")  # noqa: E731 - nobody asks
        self.service = NodeService(core, self.pump, clock, chance, readiness=ready)
        executor = Executor(NoLink(), self.timers, self.service, self.pump)
        self.pump.attach(executor.perform)
        self.engine = EngineProcess(EngineSpec(MODEL, path, CONTEXT))
        executor.host({MODEL: self.engine}, {MODEL: Profile(name=MODEL, model=MODEL)}, self)
        self.nursery: trio.Nursery | None = None
        self.computing: list[float] = []
        self._loads = 0

    def load(self, _model: str) -> None:
        """Start the worker."""
        assert self.nursery is not None
        self.nursery.start_soon(self.engine.run, self._post)

    def unload(self, _model: str) -> None:
        """Nothing asks for that here."""

    async def _post(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, RunEnded):
                self.computing.append(event.timings.prefill_ms)
            await self.pump.post(event)

    async def start(self) -> None:
        """Host the model, and read all cards."""
        reader = Specialist(MODEL, MODEL, "d", "Q8_0", CONTEXT, 4, operations=("embed",))
        needs = Residency((ModelNeed(MODEL, 1),), 0, 0)
        self.pump.handle(Started(1, ()))
        self.pump.handle(HostingChanged((reader,), Hardware(), needs))
        self.know(SIZES[0])
        with trio.fail_after(LEARNING_S):
            while not self.reading.up_to_date:
                self.hear()
                await trio.sleep(0.1)

    def know(self, others: int) -> None:
        """So many other nodes, with the cards of all domains dealt round."""
        known = cards()
        peers = self._directory.peers
        for node in peers:
            self._detection.part(node)
        peers.clear()
        now = TrioClock().now()
        for number in range(others):
            peer = peer_of(number)
            assert peer.capability is not None, "they all have one"
            (specialist,) = peer.capability.specialists
            specialist = replace(specialist, domains=(known[number % len(known)],))
            peer.capability = replace(peer.capability, specialists=(specialist,))
            peers[peer.node] = peer
            self._detection.join(peer, now)
        self._directory.cards_version += 1
        self.hear()

    def hear(self) -> None:
        """News of everybody's load."""
        self._loads += 1
        now = TrioClock().now()
        for place, peer in enumerate(self._directory.peers.values()):
            peer.loads, peer.told, peer.heard = loads_of(place, self._loads + place), now, now

    async def decide(self, asked: Labelled, times: _Times) -> None:
        """From a request's arrival until somebody is chosen."""
        roles = ("user", "assistant")
        turns = tuple(ChatMessage(roles[n % 2], text) for n, text in enumerate(asked.turns))
        request = TaskRequest("auto", turns, max_tokens=64)
        computed = len(self.computing)
        begun = perf_counter()
        async with self.service.submit(request) as stream:
            async for item in stream:
                assert isinstance(item, RouteChosen), item
                times.whole.append((perf_counter() - begun) * 1000.0)
                break
        if self.reading.has_read(request):
            times.computing += self.computing[computed:]
        else:
            times.unread += 1
            await trio.sleep(0.2)  # its worker is still at it


def measure() -> list[Row]:
    """Each size; one line where the model is not here."""
    found = library().ready(MODEL)
    if found is None:
        return [Row("a choice with its embedding", HOW_TO_GET_IT)]
    return trio.run(_measure, found.path)


async def _measure(path: Path) -> list[Row]:
    node = _Node(path)
    rows = []
    async with trio.open_nursery() as nursery:
        node.nursery = nursery
        nursery.start_soon(node.timers.run)
        say("the node reads its cards")
        await node.start()
        with _requests() as requests:
            for size in SIZES:
                node.know(size)
                times = _Times()
                for number in range(REQUESTS):
                    if number % 10 == 0:
                        node.hear()
                        await trio.sleep(0.01)
                    await node.decide(next(requests), times)
                rows.append(_row(size, times))
        nursery.cancel_scope.cancel()
    return rows


@contextmanager
def _requests() -> Iterator[Iterator[Labelled]]:
    """Held-out ones of all kinds, mixed, each once."""
    known = labelled("held_out")
    stride = len(known) // REQUESTS
    yield (known[n] for start in range(stride) for n in range(start, len(known), stride))


def _row(size: int, times: _Times) -> Row:
    p50, p95 = _percentiles(times.whole)
    inside50, inside95 = _percentiles(times.computing)
    bound = size == SIZES[1]
    late = f"; {times.unread} of {len(times.whole)} judged by words" if times.unread else ""
    return Row(
        what=f"a choice among {size:,} nodes, with its embedding: p50 and p95",
        value=f"{p50:.1f} ms, {p95:.1f} ms",
        against=f"of it in the model {inside50:.1f} ms, {inside95:.1f} ms{late}",
        target=f"p95 at most {BOUND_MS:g} ms" if bound else "",
        reached=p95 <= BOUND_MS if bound else None,
    )


def _percentiles(samples: list[float]) -> tuple[float, float]:
    ordered = sorted(samples)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
