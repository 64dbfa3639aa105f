"""Which models are in memory: loads on demand, evictions, turns, pins, and what never happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import (
    EngineLoading,
    EngineLost,
    EngineReady,
    EngineUnloaded,
    Event,
    FailTask,
    FinishTask,
    HostingChanged,
    Keep,
    LoadModel,
    ModelNeed,
    Residency,
    RunEnded,
    RunFailed,
    StartRun,
    TaskArrived,
    UnloadModel,
)
from meshslm.core.views import ModelView
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, TaskId
from meshslm.wire.messages import ChatMessage, Hardware, TaskRequest, Timings, Usage
from tests.core.mesh import SLOTS, Mesh, specialist


class Node:
    """One node whose engines do what the test says."""

    def __init__(
        self, *needs: ModelNeed, budget_mib: int = 100, idle_ms: int = 0, warm: bool = True
    ) -> None:
        self.mesh = Mesh()
        self.core = self.mesh.add("a")
        specialists = tuple(specialist(f"p-{n.model}", model=n.model) for n in needs)
        residency = Residency(needs, budget_mib, idle_ms)
        self.tasks = 0
        self.give(HostingChanged(specialists, Hardware(), residency))
        if warm:
            for model in self.loads():
                self.give(EngineReady(model, SLOTS))

    def give(self, event: Event) -> None:
        self.mesh.give("a", event)

    def loads(self) -> list[str]:
        return [effect.model for effect in self.mesh.effects("a", LoadModel)]

    def unloads(self) -> list[str]:
        return [effect.model for effect in self.mesh.effects("a", UnloadModel)]

    def runs(self) -> list[StartRun]:
        return self.mesh.effects("a", StartRun)

    def view(self, model: str) -> ModelView:
        return next(m for m in self.core.status(self.mesh.now).models if m.model == model)

    def ask(self, model: str, deadline_ms: int = limits.DEADLINE_MS) -> TaskId:
        self.tasks += 1
        task = TaskId(f"t{self.tasks}")
        words = (ChatMessage("user", "x"),)
        self.give(TaskArrived(task, TaskRequest(model, words, deadline_ms=deadline_ms)))
        return task

    def end(self, run: StartRun) -> None:
        self.give(RunEnded(run.run, Usage(1, 1), Timings()))

    def outcome(self, task: TaskId) -> FinishTask | FailTask | None:
        done = self.mesh.boxes[NodeId("a")].done
        ends = [e for e in done if isinstance(e, FinishTask | FailTask) and e.task == task]
        assert len(ends) <= 1
        return ends[0] if ends else None


def need(model: str, mib: int = 40, keep: Keep = Keep.START) -> ModelNeed:
    return ModelNeed(model, mib, keep)


# --- the start ----------------------------------------------------------------------------------
def test_what_fits_is_loaded_at_the_start_pinned_ones_first() -> None:
    node = Node(need("a"), need("b", 50), need("c", 30, Keep.ALWAYS), need("d", 20), warm=False)
    assert node.loads() == ["c", "a", "d"]
    assert node.view("b").state == "absent"
    assert node.core.unready() == (
        "a is loading (0%)",
        "c is loading (0%)",
        "d is loading (0%)",
    )
    node.give(EngineLoading("a", 0.25))
    assert node.view("a").loaded == 0.25
    assert "a is loading (25%)" in node.core.unready()
    for model in ("a", "c", "d"):
        node.give(EngineReady(model, SLOTS))
    assert node.core.unready() == ()


def test_without_a_budget_everything_is_loaded() -> None:
    node = Node(need("a", 10**6), need("b", 10**6), budget_mib=0)
    assert node.loads() == ["a", "b"]


# --- on demand ----------------------------------------------------------------------------------
def test_a_run_for_a_model_that_is_not_loaded_waits_for_it() -> None:
    node = Node(need("a", keep=Keep.DEMAND))
    assert node.loads() == []
    assert node.core.unready() == ()
    task = node.ask("a")
    assert node.loads() == ["a"]
    assert node.runs() == []
    assert not node.core.loads()[0].ready
    node.give(EngineReady("a", SLOTS))
    node.end(node.runs()[0])
    assert isinstance(node.outcome(task), FinishTask)


def test_a_waiting_run_keeps_its_deadline() -> None:
    node = Node(need("a", keep=Keep.DEMAND))
    task = node.ask("a", deadline_ms=500)
    node.mesh.pass_time(501)
    end = node.outcome(task)
    assert isinstance(end, FailTask)
    assert end.code is FaultCode.DEADLINE


def test_the_least_recently_used_gives_way_and_only_as_many_as_needed() -> None:
    node = Node(need("a"), need("b"), need("c", 50, Keep.DEMAND), budget_mib=100)
    for model in ("a", "b", "a"):
        node.mesh.pass_time(10)
        node.ask(model)
        node.end(node.runs()[-1])
    node.ask("c")
    assert node.unloads() == ["b"]
    assert node.loads() == ["a", "b"], "not before the memory is free"
    node.give(EngineUnloaded("b"))
    assert node.loads() == ["a", "b", "c"]
    assert node.view("b").state == "absent"


def test_what_can_never_fit_is_refused_with_the_numbers() -> None:
    node = Node(need("big", 90, Keep.DEMAND), need("kept", 30, Keep.ALWAYS))
    end = node.outcome(node.ask("big"))
    while end is None:
        node.mesh.pass_time(1000)
        end = node.outcome(TaskId("t1"))
    assert isinstance(end, FailTask)
    assert end.code is FaultCode.NOT_READY
    for number in ("90 MiB", "100 MiB", "30 MiB"):
        assert number in end.detail
    assert node.loads() == ["kept"]


def test_whoever_waits_in_vain_gives_up_its_place() -> None:
    node = Node(need("a", 90), need("b", 90, Keep.DEMAND))
    node.ask("a")
    node.mesh.pass_time(limits.MODEL_TURN_MS + 2)
    node.ask("b", deadline_ms=1000)
    assert node.view("a").state == "draining"
    node.mesh.pass_time(1001)
    assert (node.view("a").state, node.view("b").state) == ("ready", "absent")
    node.ask("a")
    assert len(node.runs()) == 2


# --- in use -------------------------------------------------------------------------------------
def test_a_model_in_use_keeps_its_memory_until_its_runs_are_over() -> None:
    node = Node(need("a", 90), need("b", 90, Keep.DEMAND))
    node.ask("a")
    node.ask("b")
    assert node.unloads() == []
    node.end(node.runs()[0])
    assert node.unloads() == ["a"]


def test_busy_models_take_turns() -> None:
    node = Node(need("a", 90), need("b", 90, Keep.DEMAND))
    node.ask("a")
    node.ask("b")
    later = node.ask("a")
    assert len(node.runs()) == 2, "its turn lasts a while"
    node.mesh.pass_time(limits.MODEL_TURN_MS + 2)
    assert node.view("a").state == "draining"
    last = node.ask("a")
    assert len(node.runs()) == 2, "a model that gives way takes no new runs"
    for run in node.runs():
        node.end(run)
    assert node.unloads() == ["a"]
    assert isinstance(node.outcome(later), FinishTask)
    node.give(EngineUnloaded("a"))
    assert node.view("a").state == "waiting"
    node.give(EngineReady("b", SLOTS))
    node.end(node.runs()[2])
    assert node.unloads() == ["a", "b"]
    node.give(EngineUnloaded("b"))
    node.give(EngineReady("a", SLOTS))
    node.end(node.runs()[3])
    assert isinstance(node.outcome(last), FinishTask)


def test_a_small_model_does_not_overtake_a_large_one() -> None:
    node = Node(need("a", 60), need("big", 90, Keep.DEMAND), need("small", 10, Keep.DEMAND))
    node.ask("a")
    node.ask("big")
    node.ask("small")
    assert node.loads() == ["a"]
    node.end(node.runs()[0])
    node.give(EngineUnloaded("a"))
    assert node.loads() == ["a", "big", "small"]


# --- idleness and pins --------------------------------------------------------------------------
def test_an_idle_model_is_unloaded_and_comes_back() -> None:
    node = Node(need("a"), need("kept", keep=Keep.ALWAYS), idle_ms=5000)
    node.ask("a")
    node.mesh.pass_time(60_000)
    assert node.unloads() == [], "a run of a minute is no idleness"
    node.end(node.runs()[0])
    node.mesh.pass_time(4990)
    assert node.unloads() == []
    node.mesh.pass_time(20)
    assert node.unloads() == ["a"]
    node.give(EngineUnloaded("a"))
    assert node.core.unready() == ()
    node.ask("a")
    assert node.loads()[-1] == "a"


def test_models_that_are_hosted_no_more_leave_when_idle() -> None:
    node = Node(need("a"), need("b"))
    node.ask("a")
    node.give(HostingChanged((), Hardware(), Residency((), 100)))
    assert node.unloads() == ["b"]
    node.end(node.runs()[0])
    assert node.unloads() == ["b", "a"]
    node.give(EngineUnloaded("a"))
    node.give(EngineUnloaded("b"))
    assert node.core.status(node.mesh.now).models == ()


# --- failures -----------------------------------------------------------------------------------
def test_a_run_on_a_crashed_engine_waits_for_its_restart() -> None:
    node = Node(need("a"))
    task = node.ask("a")
    node.give(EngineLost("a", "signal 9"))
    assert node.view("a").state == "restarting"
    assert node.core.unready() == ("a was lost: signal 9",)
    node.mesh.pass_time(limits.RETRY_WAIT_MS + 1)
    assert len(node.runs()) == 1
    node.give(EngineReady("a", SLOTS))
    assert len(node.runs()) == 2, "asked again, and queued until then"
    assert node.loads() == ["a"], "who restarts it does so unasked"
    node.end(node.runs()[1])
    assert isinstance(node.outcome(task), FinishTask)


def test_a_failed_load_is_told_at_once_and_tried_again_later() -> None:
    node = Node(need("a", keep=Keep.DEMAND))
    node.ask("a")
    node.give(EngineLost("a", "no such file", final=True))
    assert node.core.unready() == ("a failed: no such file",)
    end = node.outcome(node.ask("a", deadline_ms=20_000))
    while end is None:
        node.mesh.pass_time(1000)
        end = node.outcome(TaskId("t2"))
    assert isinstance(end, FailTask)
    assert "no such file" in end.detail
    assert node.loads() == ["a"]
    node.mesh.pass_time(limits.MODEL_RETRY_MS)
    node.ask("a")
    assert node.loads() == ["a", "a"]


def test_each_failure_waits_longer() -> None:
    node = Node(need("a", keep=Keep.DEMAND))
    waits = []
    for _ in range(8):
        loads = len(node.loads())
        passed = 0
        while len(node.loads()) == loads:
            node.ask("a", deadline_ms=1)
            node.mesh.pass_time(1000)
            passed += 1000
        waits.append(passed)
        node.give(EngineLost("a", "no", final=True))
    assert waits == sorted(waits)
    assert waits[-1] <= limits.MODEL_RETRY_MOST_MS + 2000


@pytest.mark.parametrize("late", [EngineReady("a", SLOTS), EngineLost("a", "crash")])
def test_what_an_engine_says_on_its_way_out_is_not_heard(late: Event) -> None:
    node = Node(need("a", 90), need("b", 90, Keep.DEMAND))
    node.ask("b")
    node.give(late)
    assert node.view("a").state == "unloading"
    node.give(EngineUnloaded("a"))
    assert node.loads() == ["a", "b"]


def test_reports_of_unknown_engines_are_ignored() -> None:
    node = Node(need("a"))
    for event in (EngineReady("x", 1), EngineLost("x", "?"), EngineLoading("x", 0.5)):
        node.give(event)
    assert [m.model for m in node.core.status(node.mesh.now).models] == ["a"]


# --- laws ---------------------------------------------------------------------------------------
MODELS = ("a", "b", "c", "d")
sizes = st.lists(st.integers(10, 100), min_size=4, max_size=4)
keeps = st.lists(st.sampled_from([Keep.DEMAND, Keep.START]), min_size=4, max_size=4)
steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "fail", "ready", "lost", "dead", "left", "wait"]),
        st.integers(0, 3),
    ),
    max_size=80,
)


class World:
    """Engines that load, die and leave as told, and a judge of what the core asks of them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.loading: set[str] = set()
        self.ready: set[str] = set()
        self.leaving: set[str] = set()
        self.open: list[StartRun] = []
        self._seen = [0, 0, 0]
        self.look()

    def look(self) -> None:
        """Take over what the core has asked for since."""
        loads, unloads, runs = self.node.loads(), self.node.unloads(), self.node.runs()
        for model in loads[self._seen[0] :]:
            assert model not in self.loading | self.ready | self.leaving, "loaded twice"
            self.loading.add(model)
        for model in unloads[self._seen[1] :]:
            assert model in self.loading | self.ready
            assert all(run.model != model for run in self.open), "unloaded while in use"
            self.loading.discard(model)
            self.ready.discard(model)
            self.leaving.add(model)
        for run in runs[self._seen[2] :]:
            assert run.model in self.ready, "a run on an engine that is not there"
            self.open.append(run)
        self._seen = [len(loads), len(unloads), len(runs)]

    def step(self, what: str, number: int) -> None:
        """Something happens."""
        model = MODELS[number]
        if what == "ask":
            self.node.ask(model)
        elif what == "wait":
            self.node.mesh.pass_time(3000 * number)
        elif what in ("end", "fail") and self.open:
            run = self.open.pop(number % len(self.open))
            failed = RunFailed(run.run, FaultCode.BAD_REQUEST, "no")
            self.node.give(failed if what == "fail" else RunEnded(run.run, Usage(), Timings()))
        elif what == "ready" and model in self.loading:
            self.move(model, self.loading, self.ready, EngineReady(model, SLOTS))
        elif what == "lost" and model in self.ready:
            self.open = [run for run in self.open if run.model != model]
            self.move(model, self.ready, self.loading, EngineLost(model, "crash"))
        elif what == "dead" and model in self.loading:
            self.move(model, self.loading, None, EngineLost(model, "broken", final=True))
        elif what == "left" and model in self.leaving:
            self.move(model, self.leaving, None, EngineUnloaded(model))
        self.look()

    def move(self, model: str, whence: set[str], whither: set[str] | None, event: Event) -> None:
        whence.discard(model)
        if whither is not None:
            whither.add(model)
        self.node.give(event)

    def settle(self) -> None:
        """Let everything that was begun come to its end."""
        while self.loading or self.leaving or self.open:
            for number, model in enumerate(MODELS):
                self.step("left" if model in self.leaving else "ready", number)
            for _ in list(self.open):
                self.step("end", 0)


@given(sizes=sizes, keeps=keeps, plan=steps, idle_ms=st.sampled_from([0, 4000]))
def test_nothing_waits_for_ever_and_the_budget_holds(
    sizes: list[int], keeps: list[Keep], plan: list[tuple[str, int]], idle_ms: int
) -> None:
    """The budget and the stages are invariants of the core, checked after every event."""
    needs = [ModelNeed(m, s, k) for m, s, k in zip(MODELS, sizes, keeps, strict=True)]
    node = Node(*needs, budget_mib=100, idle_ms=idle_ms, warm=False)
    world = World(node)
    for what, number in plan:
        world.step(what, number)
    world.settle()
    assert all(load.queued == load.running == 0 for load in node.core.loads())
    assert all(view.state != "waiting" for view in node.core.status(node.mesh.now).models)
