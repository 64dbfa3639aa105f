"""What an operator orders of models: load, unload, pin, unpin."""

from __future__ import annotations

import pytest

from meshslm import limits
from meshslm.core.events import (
    EngineLost,
    EngineReady,
    EngineUnloaded,
    FailTask,
    FinishTask,
    HostingChanged,
)
from meshslm.core.residency import Keep, Order, Residency
from meshslm.errors import FaultCode
from meshslm.wire.messages import Hardware
from tests.core.mesh import SLOTS, specialist
from tests.core.model_node import Node, need

LOAD, UNLOAD, PIN, UNPIN = Order.LOAD, Order.UNLOAD, Order.PIN, Order.UNPIN


def refused(node: Node, order: Order, model: str) -> str:
    answer = node.order(order, model)
    assert answer.refusal is FaultCode.BAD_REQUEST
    return answer.detail


# --- load ---------------------------------------------------------------------------------------
def test_a_model_is_loaded_without_a_request() -> None:
    node = Node(need("a", keep=Keep.DEMAND))
    assert node.order(LOAD, "a").refusal is None
    assert node.loads() == ["a"]
    assert node.order(LOAD, "a").refusal is None
    node.give(EngineReady("a", SLOTS))
    assert node.order(LOAD, "a").refusal is None
    assert node.loads() == ["a"], "once"
    assert node.view("a").state == "ready"


@pytest.mark.parametrize("order", list(Order))
def test_an_unknown_model_is_told_with_the_known_ones(order: Order) -> None:
    answer = Node(need("a"), need("b")).order(order, "c")
    assert answer.refusal is FaultCode.UNKNOWN_MODEL
    assert "'c'; known are a, b" in answer.detail
    assert "hosts none" in Node().order(order, "c").detail


@pytest.mark.parametrize("order", [LOAD, PIN])
def test_what_does_not_fit_the_budget_is_refused_with_the_numbers(order: Order) -> None:
    node = Node(need("big", 90, Keep.DEMAND), need("kept", 30, Keep.ALWAYS))
    why = refused(node, order, "big")
    assert all(number in why for number in ("90 MiB", "100 MiB", "30 MiB"))
    assert (node.view("big").state, node.view("big").pinned) == ("absent", False)


def test_the_least_recently_used_gives_way_to_what_was_ordered() -> None:
    node = Node(need("a"), need("b"), need("c", 50, Keep.DEMAND))
    node.mesh.pass_time(10)
    node.order(LOAD, "a")
    assert node.order(LOAD, "c").refusal is None
    assert node.unloads() == ["b"], "an order counts as use"
    node.give(EngineUnloaded("b"))
    node.give(EngineReady("c", SLOTS))
    assert [node.view(m).state for m in "abc"] == ["ready", "absent", "ready"]


def test_an_ordered_model_waits_for_a_busy_one_however_long_it_takes() -> None:
    node = Node(need("a", 90), need("b", 90, Keep.DEMAND))
    node.ask("a")
    node.order(LOAD, "b")
    node.mesh.pass_time(limits.MODEL_TURN_MS + 2)
    assert (node.view("a").state, node.view("b").state) == ("draining", "waiting")
    node.end(node.runs()[0])
    node.give(EngineUnloaded("a"))
    assert node.loads() == ["a", "b"]


def test_an_order_does_not_wait_out_an_earlier_failure() -> None:
    node = Node(need("a"), warm=False)
    node.give(EngineLost("a", "no such file", final=True))
    node.order(LOAD, "a")
    assert node.loads() == ["a", "a"]


# --- unload -------------------------------------------------------------------------------------
def test_an_idle_model_is_unloaded_and_comes_back_with_the_next_request() -> None:
    node = Node(need("a"))
    assert node.order(UNLOAD, "a").refusal is None
    assert node.unloads() == ["a"]
    node.give(EngineUnloaded("a"))
    assert node.view("a").state == "absent"
    assert node.order(UNLOAD, "a").refusal is None, "as it is already"
    assert node.unloads() == ["a"]
    node.ask("a")
    assert node.loads() == ["a", "a"]


def test_unloading_waits_for_what_runs_and_hands_back_what_waits() -> None:
    node = Node(need("a"))
    tasks = [node.ask("a") for _ in range(2 * SLOTS + limits.RUN_AHEAD)]
    running = node.runs()
    assert len(running) < len(tasks)
    assert node.order(UNLOAD, "a").refusal is None
    assert node.view("a").state == "draining"
    assert not node.core.loads()[0].ready
    assert node.core.loads()[0].queued == 0
    assert not node.stopped()
    late = node.ask("a", deadline_ms=500)
    for run in running:
        node.end(run)
    assert node.unloads() == ["a"]
    assert len(node.runs()) == len(running)
    assert sum(isinstance(node.outcome(task), FinishTask) for task in tasks) == len(running)
    node.mesh.pass_time(501)
    end = node.outcome(late)
    assert isinstance(end, FailTask)
    assert "by order" in end.detail


def test_at_once_what_runs_is_handed_back_too() -> None:
    node = Node(need("a"))
    task = node.ask("a", deadline_ms=5000)
    assert node.order(UNLOAD, "a", at_once=True).refusal is None
    assert node.stopped() == {run.run for run in node.runs()}
    assert node.unloads() == ["a"]
    node.give(EngineUnloaded("a"))
    node.mesh.pass_time(limits.RETRY_WAIT_MS + 1)
    assert node.loads() == ["a", "a"], "it had produced nothing, so it is asked again"
    node.give(EngineReady("a", SLOTS))
    node.end(node.runs()[-1])
    assert isinstance(node.outcome(task), FinishTask)


def test_a_load_under_way_or_waited_for_is_called_off() -> None:
    node = Node(need("a", 90), need("b", 90, Keep.DEMAND), warm=False)
    node.order(LOAD, "b")
    assert node.view("b").state == "waiting"
    node.order(UNLOAD, "b")
    assert node.view("b").state == "absent"
    node.order(UNLOAD, "a")
    assert node.unloads() == ["a"]
    node.give(EngineReady("a", SLOTS))
    assert node.view("a").state == "unloading", "said on its way out"
    node.order(LOAD, "a")
    node.give(EngineUnloaded("a"))
    assert node.loads() == ["a", "a"], "the last order counts"


def test_a_load_ends_the_wait_for_an_unload() -> None:
    node = Node(need("a"))
    node.ask("a")
    node.order(UNLOAD, "a")
    node.order(LOAD, "a")
    node.end(node.runs()[0])
    assert node.unloads() == []
    assert node.view("a").state == "ready"


# --- pins ---------------------------------------------------------------------------------------
def test_a_pin_loads_and_keeps_until_it_is_taken_back() -> None:
    node = Node(need("a", 60, Keep.DEMAND), need("b", 60, Keep.DEMAND), idle_ms=1000)
    assert node.order(PIN, "a").refusal is None
    node.give(EngineReady("a", SLOTS))
    assert node.view("a").pinned
    node.mesh.pass_time(5000)
    assert node.unloads() == []
    assert "60 MiB of it kept" in refused(node, LOAD, "b")
    assert "60 MiB of it kept" in refused(node, PIN, "b")
    assert "unpin it first" in refused(node, UNLOAD, "a")
    assert node.order(UNPIN, "a").refusal is None
    assert node.unloads() == ["a"], "idle for long"
    assert not node.view("a").pinned


def test_nothing_is_pinned_that_leaves_another_waiting_in_vain() -> None:
    node = Node(need("a", 60), need("b", 60, Keep.DEMAND))
    node.ask("a")
    node.ask("b")
    assert node.view("b").state == "waiting"
    assert "b could not be loaded beside it" in refused(node, PIN, "a")
    node.end(node.runs()[0])
    assert node.unloads() == ["a"]


@pytest.mark.parametrize("order", [UNLOAD, UNPIN])
def test_a_profiles_pin_is_not_an_orders_to_take(order: Order) -> None:
    node = Node(need("a", keep=Keep.ALWAYS))
    assert "pinned by a profile" in refused(node, order, "a")
    assert node.view("a").pinned


def test_a_pin_ends_with_a_model_that_is_given_up() -> None:
    node = Node(need("a", 90, Keep.DEMAND), need("b", 90, Keep.DEMAND))
    node.order(PIN, "a")
    node.give(EngineLost("a", "broken", final=True))
    assert not node.view("a").pinned
    assert node.order(LOAD, "b").refusal is None


# --- what is hosted changes ---------------------------------------------------------------------
def test_announcing_anew_loads_nothing_that_was_unloaded() -> None:
    node = Node(need("a"))
    node.order(UNLOAD, "a")
    node.give(EngineUnloaded("a"))
    again = (specialist("p-a", model="a"), specialist("p-b", model="b"))
    node.give(HostingChanged(again, Hardware(), Residency((need("a"), need("b")), 100)))
    assert node.loads() == ["a", "b"]
