"""Timers, pump, service and defaults: the shell without a network."""

from __future__ import annotations

import tracemalloc
from typing import cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    Effect,
    EmitChunk,
    EngineReady,
    Event,
    FailTask,
    FinishTask,
    HostingChanged,
    RouteChosen,
    RunEnded,
    RunProduced,
    Started,
    StartTimer,
    TimerFired,
    TimerKey,
)
from meshslm.core.node import NodeCore
from meshslm.daemon.chronicler import Chronicler
from meshslm.daemon.defaults import fill
from meshslm.daemon.executor import Executor
from meshslm.daemon.pump import Pump
from meshslm.daemon.service import NodeService
from meshslm.daemon.task_stream import ClientEffect, TaskStream, weight
from meshslm.daemon.timers import Timers
from meshslm.ids import Instant, NodeId, RunId, TaskId
from meshslm.ports import Post
from meshslm.profiles import Profile, SamplingDefaults
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Hardware,
    Sampling,
    Specialist,
    TaskRequest,
    Timings,
    Usage,
)
from tests.daemon.box import NoLink


class TrioClock:
    """Trio's own time, so that a mock clock moves it."""

    def now(self) -> Instant:
        return Instant(int(trio.current_time() * 1e6))


# --- timers -------------------------------------------------------------------------------------
async def test_timers_fire_in_order_once_and_the_replaced_ones_never(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fired: list[tuple[float, str, int]] = []
    began = trio.current_time()
    timers = Timers(
        TrioClock(),
        lambda *told: fired.extend(
            (trio.current_time() - began, f.key.kind, f.generation) for f in told
        ),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        timers.start(StartTimer(TimerKey("b"), 1, 2000))
        await trio.sleep(0.1)
        timers.start(StartTimer(TimerKey("a"), 2, 400))
        timers.start(StartTimer(TimerKey("stopped"), 3, 500))
        timers.start(StartTimer(TimerKey("b"), 4, 4900))
        timers.stop(TimerKey("stopped"))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [(round(at, 3), kind, number) for at, kind, number in fired] == [
        (0.5, "a", 2),
        (5.0, "b", 4),
    ]


async def test_timers_that_are_due_together_are_told_together_within_a_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[list[str]] = []
    timers = Timers(TrioClock(), lambda *due: told.append([f.key.subject for f in due]))
    count = limits.EVENTS_PER_TURN + 3
    for number in range(count):
        timers.start(StartTimer(TimerKey("t", str(number)), number, 400))
    timers.start(StartTimer(TimerKey("t", "later"), count, 900))
    with trio.move_on_after(5):
        await timers.run()
    subjects = [str(number) for number in range(count)]
    at_once = limits.EVENTS_PER_TURN
    assert told == [subjects[:at_once], subjects[at_once:], ["later"]]


async def test_replaced_timers_do_not_pile_up(autojump_clock: trio.testing.MockClock) -> None:
    fired: list[TimerFired] = []
    timers = Timers(TrioClock(), lambda *told: fired.extend(told))
    tracemalloc.start()
    try:
        for generation in range(20_000):
            timers.start(StartTimer(TimerKey("again"), generation, 1000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000, "a timer takes more than 100 bytes, so 20,000 take more than 2 MB"
    with trio.move_on_after(2):
        await timers.run()
    assert fired == [TimerFired(TimerKey("again"), 19_999)]


# --- pump ---------------------------------------------------------------------------------------
def make_core() -> NodeCore:
    return NodeCore(CoreConfig(NodeId("a"), "a"), Chance.from_int(1))


async def test_events_that_come_up_meanwhile_wait_for_their_turn() -> None:
    core = make_core()
    pump = Pump(core, TrioClock())
    order: list[str] = []

    def perform(effect: Effect) -> None:
        order.append(type(effect).__name__)
        if isinstance(effect, StartTimer) and len(order) == 1:
            pump.handle(HostingChanged((), Hardware()))
            order.append("returned")

    pump.attach(perform)
    pump.handle(Started(1, ()))
    assert order == ["StartTimer", "returned", "StartTimer"]
    assert core.status(Instant(0)).boot == 1


async def test_a_flood_of_events_lets_others_have_their_turn() -> None:
    pump = Pump(make_core(), TrioClock())
    pump.attach(lambda _effect: None)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(10 * limits.EVENTS_PER_TURN):
            await pump.post(HostingChanged((), Hardware()))
        nursery.cancel_scope.cancel()
    assert turns >= 9


# --- a node with a hand-driven engine -----------------------------------------------------------
class HandEngine:
    """An engine whose answers the test writes."""

    model = "tiny"

    def __init__(self) -> None:
        self.started: list[tuple[RunId, TaskRequest]] = []
        self.stopped: list[RunId] = []

    def start_run(self, run: RunId, request: TaskRequest, *, coalesce: bool = False) -> None:
        self.started.append((run, request))

    def stop_run(self, run: RunId) -> None:
        self.stopped.append(run)

    async def run(self, post: Post) -> None:
        await post(EngineReady(self.model, 2))
        await trio.sleep_forever()


class NoLoader:
    """Engines are up, or the test says when."""

    def load(self, model: str) -> None: ...

    def unload(self, model: str) -> None: ...


PROFILE = Profile(name="coder", model="tiny", system_prompt="Be brief.")
ASK = TaskRequest("coder", (ChatMessage("user", "hi"),))


class Node:
    """Core, pump, executor and service, joined."""

    def __init__(self) -> None:
        clock = TrioClock()
        core = make_core()
        self.engine = HandEngine()
        self.pump = Pump(core, clock)
        self.service = NodeService(
            core, self.pump, clock, Chance.from_int(2), readiness=lambda: (True, "")
        )
        executor = Executor(NoLink(), Timers(clock, self.pump.handle), self.service, self.pump)
        executor.host({"tiny": self.engine}, {"coder": PROFILE}, NoLoader())
        self.pump.attach(executor.perform)
        self.events: list[Event] = [
            Started(1, ()),
            HostingChanged((Specialist("coder", "tiny", "d", "Q8_0", 2048, 2),), Hardware()),
            EngineReady("tiny", 2),
        ]
        for event in self.events:
            self.pump.handle(event)


async def test_a_stream_brings_route_chunks_and_one_end() -> None:
    node = Node()
    got: list[ClientEffect] = []
    async with node.service.submit(ASK) as stream:
        run, request = node.engine.started[0]
        assert request.messages[0] == ChatMessage("system", "Be brief.")
        node.pump.handle(RunProduced(run, Chunk(0, (1,), "hel")))
        node.pump.handle(RunProduced(run, Chunk(0, (2,), "lo", finish="stop")))
        node.pump.handle(RunEnded(run, Usage(1, 2), Timings()))
        got.extend([item async for item in stream])
    assert [type(item) for item in got] == [RouteChosen, EmitChunk, FinishTask]
    assert [i.chunk.text for i in got if isinstance(i, EmitChunk)] == ["hello"]  # it was behind
    assert node.engine.stopped == []
    assert node.service.status().tasks.finished == 1


async def test_a_reader_that_waits_is_woken() -> None:
    node = Node()
    got: list[str] = []
    began = trio.Event()

    async def read() -> None:
        async with node.service.submit(ASK) as stream:
            async for item in stream:
                began.set()
                if isinstance(item, EmitChunk):
                    got.append(item.chunk.text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await began.wait()
        run, _ = node.engine.started[0]
        node.pump.handle(RunProduced(run, Chunk(0, (1,), "x")))
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["x"]
        node.pump.handle(RunEnded(run, Usage(), Timings()))


@pytest.mark.parametrize("how", ["leave", "cancel"])
async def test_hanging_up_stops_the_run(how: str) -> None:
    node = Node()
    with trio.CancelScope() as scope:
        async with node.service.submit(ASK) as stream:
            if how == "cancel":
                scope.cancel()
                await trio.sleep_forever()
            await anext(stream)
    assert node.engine.stopped == [node.engine.started[0][0]]
    assert node.service.status().tasks.cancelled == 1


async def test_a_reader_too_slow_loses_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_BYTES", 3 * weight(Chunk(0, (1,), "x")))
    node = Node()
    async with node.service.submit(ASK) as stream:
        run, _ = node.engine.started[0]
        for _ in range(5):
            node.pump.handle(RunProduced(run, Chunk(0, (1,), "x")))
        assert node.engine.stopped == [run]
        items = [item async for item in stream]
    assert isinstance(items[-1], FailTask)
    texts = [item.chunk.text for item in items if isinstance(item, EmitChunk)]
    assert "".join(texts) == "xxx"


async def test_a_run_on_an_engine_that_is_gone_fails_clearly() -> None:
    node = Node()
    executor = Executor(NoLink(), Timers(TrioClock(), node.pump.handle), node.service, node.pump)
    node.pump.attach(executor.perform)
    request = TaskRequest("coder", (ChatMessage("user", "hi"),), deadline_ms=1)
    async with node.service.submit(request) as stream:
        assert isinstance(await anext(stream), RouteChosen)
    assert node.service.status().tasks.cancelled == 1


def test_a_stream_keeps_nothing_after_its_end() -> None:
    stream = TaskStream(TaskId("t"))
    assert stream.push(FinishTask(stream.task, Usage(), Timings()))
    assert stream.push(EmitChunk(stream.task, Chunk(0, (1,), "late")))
    assert isinstance(stream.take_nowait(), FinishTask)
    assert stream.take_nowait() is None


# --- defaults -----------------------------------------------------------------------------------
def test_the_client_wins_over_the_profile() -> None:
    profile = Profile(
        name="p",
        model="m",
        system_prompt="S",
        max_tokens=7,
        sampling=SamplingDefaults(temperature=0.5, top_k=40),
    )
    asked = TaskRequest(
        "p",
        (ChatMessage("system", "mine"), ChatMessage("user", "x")),
        max_tokens=3,
        sampling=Sampling(temperature=0.0),
    )
    filled = fill(asked, profile)
    assert filled.messages == asked.messages
    assert filled.max_tokens == 3
    assert filled.sampling == Sampling(temperature=0.0, top_k=40)
    assert fill(TaskRequest("p", prompt="raw"), profile).messages == ()
    assert fill(TaskRequest("p", prompt="raw"), profile).max_tokens == 7


@given(
    st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 2),
        top_p=st.none() | st.floats(0, 1),
        seed=st.none() | st.integers(0, 9),
    )
)
def test_filling_twice_changes_nothing(sampling: Sampling) -> None:
    request = TaskRequest("coder", (ChatMessage("user", "x"),), sampling=sampling)
    once = fill(request, PROFILE)
    assert fill(once, PROFILE) == once


def test_every_sampling_default_of_a_profile_exists_in_a_request() -> None:
    assert set(SamplingDefaults.__struct_fields__) <= set(Sampling.__slots__)


async def test_what_becomes_of_a_task_is_written_down_where_its_client_reads_too_slowly() -> None:
    node, notes = Node(), Notes()
    node.service.chronicler = cast(Chronicler, notes)
    async with node.service.submit(ASK) as stream:
        run, _ = node.engine.started[0]
        for _ in range(5):
            node.pump.handle(RunProduced(run, Chunk(0, (1,), "x" * limits.MIB)))
        assert stream.ended
    assert notes.ends == [stream.task]
    assert node.engine.stopped == [run]


class Notes:
    """A chronicler that remembers which tasks ended."""

    def __init__(self) -> None:
        self.ends: list[TaskId] = []

    def arrived(self, task: TaskId, _request: TaskRequest) -> None: ...

    def told(self, effect: ClientEffect) -> None:
        if not isinstance(effect, RouteChosen):
            self.ends.append(effect.task)

    def dropped(self, task: TaskId) -> None:
        self.ends.append(task)
