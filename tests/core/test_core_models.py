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
)
from meshslm.core.residency import Keep, ModelNeed, Order, Residency
from meshslm.errors import FaultCode
from meshslm.ids import TaskId
from meshslm.wire.messages import Hardware
from tests.core.mesh import SLOTS
from tests.core.model_node import MODELS, Node, World, need


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


def test_what_a_load_took_is_told() -> None:
    node = Node(need("a", keep=Keep.DEMAND))
    assert node.core.loads()[0].load_ms == 0.0
    node.ask("a")
    node.mesh.pass_time(3_000)
    node.give(EngineReady("a", SLOTS))
    assert node.core.loads()[0].load_ms == 3_000.0
    # A worker that is started again is no load of its own.
    node.give(EngineLost("a", "it died", final=False))
    node.mesh.pass_time(50)
    node.give(EngineReady("a", SLOTS))
    assert node.core.loads()[0].load_ms == 3_000.0


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
sizes = st.lists(st.integers(10, 100), min_size=4, max_size=4)
keeps = st.lists(st.sampled_from([Keep.DEMAND, Keep.START]), min_size=4, max_size=4)
steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "fail", "ready", "lost", "dead", "left", "wait", *Order]),
        st.integers(0, 3),
    ),
    max_size=80,
)


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
