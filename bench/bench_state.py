"""What shared documents cost: bytes and time to synchronise, writes a second, memory, restarts.

Synchronisation is measured between two cores of production that hand each other encoded messages
at once, with real signatures; durable writes with a real journal; how soon a change is seen, and
how long replicas take to agree, in the simulator.
"""

from __future__ import annotations

import gc
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import psutil
import trio

from bench.table import Row, spread
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.signing import node_signer, signed_by
from meshslm.adapters.sqlite_journal import SqliteJournal
from meshslm.adapters.system_clock import SystemClock
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    Effect,
    Event,
    PeerConnected,
    Send,
    Started,
    StartTimer,
    StopTimer,
    TimerFired,
    TimerKey,
)
from meshslm.core.node import NodeCore
from meshslm.core.state_config import StateConfig
from meshslm.core.state_events import (
    Change,
    Persist,
    ReadDeltas,
    ReloadPart,
    StateOpened,
    StateWrite,
    StoredPart,
)
from meshslm.daemon.pump import Pump
from meshslm.daemon.state_desk import StateDesk
from meshslm.daemon.state_keeper import StateKeeper
from meshslm.daemon.timers import Timers
from meshslm.ids import Instant, NodeId, after
from meshslm.sim.disk import Disk
from meshslm.sim.state_run import StateRun
from meshslm.state.entry import Entry, pack
from meshslm.state.part import Part, PartKey
from meshslm.state.validate import check_update
from meshslm.wire.codec import decode
from meshslm.wire.state import StateDeltas, StateDigests, StateHave, StateSummary, StateVector

DOC = "memory/bench"
VALUE = 64
STATE = (StateSummary, StateDigests, StateVector, StateDeltas, StateHave)
WRITES_S = 5_000
DELTA_BYTES = 400
RESTART_S = 1.0
VISIBLE_MS = 1_000
BATCH = 500


class Two:
    """Two cores on a virtual clock, whose messages arrive at once."""

    def __init__(self) -> None:
        self.now = Instant(1_000_000)
        self.cores: dict[NodeId, NodeCore] = {}
        self.disks: dict[NodeId, Disk] = {}
        self.queue: deque[tuple[NodeId, Event]] = deque()
        self.timers: dict[tuple[NodeId, TimerKey], tuple[Instant, int]] = {}
        self.connected = False
        self.sent: list[tuple[NodeId, int, type]] = []
        self.busy_s = 0.0
        self.mirror: Callable[[Persist], None] = lambda _effect: None
        """Who writes the same to a real disk."""

    def add(self, parts: tuple[StoredPart, ...] = ()) -> NodeId:
        """A node with what its disk holds."""
        key = NodeKey.generate()
        state = StateConfig(sign=node_signer(key.secret), verify=signed_by)
        config = CoreConfig(key.node_id, f"n{len(self.cores)}", state=state)
        self.cores[key.node_id] = NodeCore(config, Chance.from_int(len(self.cores)))
        disk = self.disks[key.node_id] = Disk()
        disk.restore(parts)
        self.give(key.node_id, Started(len(self.cores), (f"/memory/x/p2p/{key.node_id}",)))
        self.give(key.node_id, StateOpened(disk.parts()))
        return key.node_id

    def connect(self) -> None:
        """Link the two."""
        one, other = self.cores
        self.connected = True
        self.queue.append((one, PeerConnected(other, f"/memory/x/p2p/{other}")))
        self.give(other, PeerConnected(one, ""))

    def give(self, node: NodeId, event: Event) -> None:
        """Hand an event to a node, and let all that follows happen."""
        self.queue.append((node, event))
        began = time.perf_counter()
        while self.queue:
            who, what = self.queue.popleft()
            for effect in self.cores[who].handle(what, self.now):
                self._perform(who, effect)
        self.busy_s += time.perf_counter() - began

    def _perform(self, node: NodeId, effect: Effect) -> None:
        disk = self.disks[node]
        if isinstance(effect, Send):
            kind = type(decode(effect.message))
            self.sent.append((node, len(effect.message), kind))
            if self.connected:
                self.queue.append((effect.peer, BytesReceived(node, effect.message)))
        elif isinstance(effect, StartTimer):
            at = after(self.now, effect.after_ms)
            self.timers[node, effect.key] = (at, effect.generation)
        elif isinstance(effect, StopTimer):
            self.timers.pop((node, effect.key), None)
        elif isinstance(effect, Persist):
            disk.write(effect)
            self.mirror(effect)
            self.queue.append((node, disk.sync(effect.number)))
        elif isinstance(effect, ReadDeltas):
            self.queue.append((node, disk.read(effect)))
        elif isinstance(effect, ReloadPart):
            self.queue.append((node, disk.reload(effect)))

    def pass_time(self, ms: float) -> None:
        """Let virtual time go on."""
        end = after(self.now, ms)
        while due := [entry for entry in self.timers.items() if entry[1][0] <= end]:
            (node, key), (at, generation) = min(due, key=lambda e: (e[1][0], e[1][1]))
            self.now = max(self.now, at)
            del self.timers[node, key]
            self.give(node, TimerFired(key, generation))
        self.now = end

    def fill(self, node: NodeId, keys: int, tag: str = "k") -> None:
        """Let a node write so many entries."""
        for start in range(0, keys, BATCH):
            changes = tuple(
                Change(f"{tag}/{n}", secrets.token_bytes(VALUE))
                for n in range(start, min(keys, start + BATCH))
            )
            self.give(node, StateWrite(start, DOC, changes, 1_700_000_000_000))

    def measured(self) -> tuple[int, float]:
        """Bytes about documents and milliseconds of work since the last look."""
        size = sum(size for _, size, kind in self.sent if kind in STATE)
        spent = self.busy_s * 1000
        self.sent, self.busy_s = [], 0.0
        return size, spent


def _agree(two: Two) -> bool:
    digests = [core.documents.holdings.documents[DOC].digest() for core in two.cores.values()]
    return digests[0] == digests[1]


def _synchronise() -> list[Row]:
    rows = []
    two = Two()
    one, other = two.add(), two.add()
    two.connect()
    two.fill(one, 1_000)
    two.pass_time(1_000)
    two.measured()
    two.pass_time(31_000)
    sums = [size for _, size, kind in two.sent if kind is StateSummary]
    rows.append(Row("in sync: one comparison", f"{max(sums)} B"))
    two.measured()
    two.give(one, StateWrite(0, DOC, (Change("k/7", bytes(VALUE)),), 1_700_000_000_000))
    (delta,) = [size for _, size, kind in two.sent if kind is StateDeltas]
    _, spent = two.measured()
    rows.append(
        Row(
            "one change: pushed",
            f"{delta} B",
            target=f"{DELTA_BYTES} B",
            reached=delta <= DELTA_BYTES,
        )
    )
    rows.append(Row("one change: work of both nodes", f"{spent:.2f} ms"))
    two.connected = False
    two.fill(one, 1_000, "k")
    two.fill(other, 1_000, "mine")
    two.pass_time(100)
    two.connected = True
    two.measured()
    while not _agree(two):
        two.pass_time(1_000)
    size, spent = two.measured()
    rows.append(
        Row("1,000 against 1,000 divergent edits", f"{size / 1000:.0f} KB, {spent:.0f} ms of work")
    )
    rows += [_newcomer(keys) for keys in (1_000, 10_000, 100_000)]
    return rows


def _newcomer(keys: int) -> Row:
    two = Two()
    one = two.add()
    two.fill(one, keys)
    two.add()
    two.measured()
    two.connect()
    two.pass_time(10)
    while not _agree(two):
        two.pass_time(100)
    size, spent = two.measured()
    return Row(
        f"a new node joins: {keys:,} keys", f"{size / 1000:,.0f} KB, {spent:,.0f} ms of work"
    )


async def _durable(folder: Path, seconds: float, writers: int) -> float:
    """Durable writes a second of one node."""
    key = NodeKey.generate()
    clock = SystemClock()
    state = StateConfig(sign=node_signer(key.secret), verify=signed_by)
    core = NodeCore(CoreConfig(key.node_id, "n", state=state), Chance.from_int(1))
    pump = Pump(core, clock)
    timers = Timers(clock, pump.handle)
    journal = SqliteJournal(folder / "state.sqlite")
    opened = journal.start()
    desk = StateDesk(core.documents, pump, lambda: 1_700_000_000_000)
    keeper = StateKeeper(journal, opened, pump, desk)
    performers = {
        StartTimer: timers.start,
        StopTimer: lambda effect: timers.stop(effect.key),
        **keeper.performers(),
    }
    pump.attach(lambda effect: performers.get(type(effect), lambda _: None)(effect))
    pump.handle(Started(1, ()))
    keeper.begin()
    done = 0

    async def write(writer: int) -> None:
        nonlocal done
        while True:
            change = Change(f"{writer}/{done % 100}", secrets.token_bytes(VALUE))
            await desk.write(DOC, (change,))
            done += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        nursery.start_soon(keeper.run)
        for writer in range(writers):
            nursery.start_soon(write, writer)
        await trio.sleep(seconds / 2)
        done, began = 0, time.perf_counter()
        await trio.sleep(seconds)
        rate = done / (time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    journal.abandon()
    return rate


def _writes() -> list[Row]:
    rows = []
    for writers in (1, 256):
        with tempfile.TemporaryDirectory() as folder:
            rate = trio.run(_durable, Path(folder), 4.0, writers)
        row = Row(f"durable writes, {writers} at a time", f"{rate:,.0f}/s")
        if writers > 1:
            row = replace(row, target=f"{WRITES_S:,}/s", reached=rate >= WRITES_S)
        rows.append(row)
    return rows


def _checks() -> list[Row]:
    part = Part(PartKey(DOC, NodeId("author"), 1))
    updates = []
    for number in range(5_000):
        before = part.clock
        change = {f"key/{number % 500}": pack(Entry(bytes(VALUE), number + 1, 1))}
        updates.append((part.write(change), before))
    began = time.perf_counter()
    for update, before in updates:
        check_update(update, part.client, before)
    spent = time.perf_counter() - began
    rate = len(updates) / spent
    return [Row("updates checked", f"{rate:,.0f}/s, {spent / len(updates) * 1e6:.0f} us each")]


def _memory() -> list[Row]:
    rows = []
    process = psutil.Process()
    for documents, keys in ((1_000, 1), (1, 100_000)):
        gc.collect()
        before = process.memory_info().rss
        kept = []
        for number in range(documents):
            part = Part(PartKey(f"memory/{number}", NodeId("author"), 1))
            for start in range(0, keys, BATCH):
                some = range(start, min(keys, start + BATCH))
                part.write({f"key/{n}": pack(Entry(bytes(VALUE), 1, 1)) for n in some})
            kept.append(part)
        grown = (process.memory_info().rss - before) / documents
        rows.append(Row(f"memory of a document of {keys:,} keys", f"{grown / 1024:,.0f} KiB"))
    return rows


def _restart() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.sqlite"
        trio.run(partial(_stored, path, 100_000))
        times = []
        for boot in range(2, 7):
            began = time.perf_counter()
            journal = SqliteJournal(path)
            opened = journal.start()
            key = NodeKey.generate()
            state = StateConfig(sign=node_signer(key.secret), verify=signed_by)
            core = NodeCore(CoreConfig(key.node_id, "n", state=state), Chance.from_int(boot))
            core.handle(Started(boot, ()), Instant(0))
            core.handle(opened, Instant(0))
            times.append(time.perf_counter() - began)
            assert sum(1 for _ in core.documents.keys(DOC)) == 100_000
            journal.abandon()
    took = median(times)
    return [
        Row(
            "restart with 100,000 keys",
            spread(times, "s", 2),
            target=f"{RESTART_S:.0f} s",
            reached=took <= RESTART_S,
        )
    ]


async def _stored(path: Path, keys: int) -> None:
    """A journal as a node leaves it that is killed after so many writes."""
    two = Two()
    node = two.add()
    journal = SqliteJournal(path)
    journal.start()
    two.mirror = journal.perform
    two.fill(node, keys)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run, lambda _event: None)
        await journal.drained()
        nursery.cancel_scope.cancel()
    journal.abandon()


def _simulated() -> list[Row]:
    rows = []
    run = StateRun(50, seed=1, check_every=1 << 20)
    run.start(20.0)
    draw = run.chance.fork("bench")
    for number in range(200):
        run.write(draw.pick(run.nodes), DOC, f"k{number}")
        run.run(0.05)
    run.run(2.0)
    times = sorted(t / 1000 for each in run.visible.values() for t in each)
    complete = sum(len(each) == 50 for each in run.visible.values())
    slowest = sorted(max(each) / 1000 for each in run.visible.values())
    p99 = slowest[int(len(slowest) * 0.99)]
    rows.append(
        Row(
            "a change is seen by all of 50 nodes, p99",
            f"{p99:.0f} ms; {complete} of 200 by all, the median node after {median(times):.1f} ms",
            target=f"{VISIBLE_MS} ms",
            reached=p99 <= VISIBLE_MS and complete == len(run.visible) == 200,
        )
    )
    return [*rows, *map(_healed, (5, 50, 200))]


def _healed(nodes: int) -> Row:
    run = StateRun(nodes, seed=1, check_every=1 << 20)
    run.start(20.0)
    half = nodes // 2
    run.world.network.split([list(range(half)), list(range(half, nodes))])
    run.run(5.0)
    draw = run.chance.fork("bench")
    for number in range(100):
        run.write(draw.pick(run.nodes), DOC, f"k{number % 40}")
        run.run(0.1)
    run.world.network.heal()
    found = run.until_agreed(180.0, 0.25)
    told = "not in 180 s" if found is None else f"{found:.1f} s"
    return Row(f"{nodes} nodes agree after a partition heals", told)


def measure() -> list[Row]:
    """All of it."""
    return [
        *_synchronise(),
        *_writes(),
        *_checks(),
        *_memory(),
        *_restart(),
        *_simulated(),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
