"""Engines that fail are left alone for a while, tried again by one request, and asked at need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.cooling import FAILURES, Cooling
from meshslm.core.events import RouteChosen, RunEnded, RunFailed, RunProduced, TaskArrived
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, RunId, TaskId, after
from meshslm.wire.messages import ChatMessage, Chunk, TaskRequest, Timings, Usage
from tests.core.mesh import Mesh, specialist

B = NodeId("b")
MODEL = "tiny"
START = Instant(1_000_000)


def ask(mesh: Mesh, name: str, selector: str = "coder") -> str:
    """Where a new task goes first."""
    before = len(mesh.effects("a", RouteChosen))
    request = TaskRequest(selector, (ChatMessage("user", "tell"),))
    mesh.give("a", TaskArrived(TaskId(name), request))
    return mesh.effects("a", RouteChosen)[before].node


def crash(mesh: Mesh, node: str, run: int = 1) -> None:
    mesh.give(node, RunFailed(RunId(run), FaultCode.WORKER_LOST, "killed"))


def answer(mesh: Mesh, node: str, run: int) -> None:
    mesh.give(node, RunProduced(RunId(run), Chunk(0, (1,), "x", finish="stop")))
    mesh.give(node, RunEnded(RunId(run), Usage(1, 1), Timings()))


def other(node: str) -> str:
    return "c" if node == "b" else "b"


# --- the machine by itself ----------------------------------------------------------------------
@given(st.integers(min_value=1, max_value=40))
def test_the_wait_doubles_up_to_its_bound(strikes: int) -> None:
    cooling, now = Cooling(), START
    for strike in range(strikes):
        cooling.failed(B, MODEL, FaultCode.PEER_LOST, now)
        wait = min(limits.COOL_MS * 2**strike, limits.COOL_MOST_MS)
        assert cooling.left_ms(B, MODEL, now) == wait
        assert cooling.cools(B, MODEL, after(now, wait - 1))
        now = after(now, wait)
        assert not cooling.cools(B, MODEL, now)
        cooling.chosen(B, MODEL, now)


Step = st.tuples(
    st.sampled_from(["failed", "worked", "chosen", "wait"]),
    st.sampled_from(["b", "c"]),
    st.sampled_from([*FaultCode]),
    st.integers(min_value=0, max_value=30_000),
)


@given(st.lists(Step, max_size=60))
def test_at_most_one_trial_is_under_way_and_none_lasts_for_ever(
    steps: list[tuple[str, str, FaultCode, int]],
) -> None:
    cooling, now = Cooling(), START
    for what, name, code, ms in steps:
        node = NodeId(name)
        if what == "failed":
            cooling.failed(node, MODEL, code, now)
            assert code in FAILURES or not cooling.left_ms(node, "another", now)
        elif what == "worked":
            cooling.worked(node, MODEL)
            assert not cooling.cools(node, MODEL, now)
        elif what == "chosen" and not cooling.cools(node, MODEL, now):
            known = cooling.left_ms(node, MODEL, now)
            cooling.chosen(node, MODEL, now)
            assert known == 0
            assert cooling.left_ms(node, MODEL, now) in (0, limits.COOL_TRIAL_MS)
        else:
            now = after(now, ms)
        assert cooling.left_ms(node, MODEL, now) <= limits.COOL_MOST_MS
        cooling.check()
    assert not cooling.cools(B, MODEL, after(now, limits.COOL_MOST_MS))


def test_streams_that_fail_together_count_once() -> None:
    cooling = Cooling()
    for _ in range(8):
        cooling.failed(B, MODEL, FaultCode.PEER_LOST, START)
    assert cooling.left_ms(B, MODEL, START) == limits.COOL_MS


def test_to_be_busy_is_no_failure() -> None:
    cooling = Cooling()
    for code in (FaultCode.OVERLOADED, FaultCode.NOT_READY, FaultCode.DEADLINE):
        cooling.failed(B, MODEL, code, START)
    assert not cooling.cools(B, MODEL, START)


def test_the_table_is_bounded() -> None:
    cooling = Cooling()
    for number in range(limits.COOLING_ENGINES + 5):
        cooling.failed(NodeId(str(number)), MODEL, FaultCode.PEER_LOST, START)
        cooling.check()


# --- in a mesh ----------------------------------------------------------------------------------
def test_who_failed_gets_no_work_until_a_trial_went_well(twins: Mesh) -> None:
    bad = ask(twins, "t0")
    crash(twins, bad)
    good = other(bad)
    run = 1
    answer(twins, good, run)
    for number in range(1, 4):
        assert ask(twins, f"soon-{number}") == good
        run += 1
        answer(twins, good, run)
    twins.pass_time(limits.COOL_MS)
    first = [ask(twins, f"later-{number}") for number in range(6)]
    assert first.count(NodeId(bad)) == 1  # the trial: the others wait for its outcome
    answer(twins, bad, 2)
    assert NodeId(bad) in [ask(twins, f"healed-{number}") for number in range(12)]


def test_a_failed_trial_makes_the_wait_longer(twins: Mesh) -> None:
    bad = ask(twins, "t0")
    crash(twins, bad)
    twins.pass_time(limits.COOL_MS)
    number = 0
    while ask(twins, f"later-{number}") != bad:
        number += 1
        assert number < 50, "no trial"
    crash(twins, bad, run=2)
    cooling = twins.boxes[NodeId("a")].core.cooling
    assert cooling.left_ms(NodeId(bad), MODEL, twins.now) == 2 * limits.COOL_MS


def test_who_cools_is_asked_where_nobody_else_can(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    ask(mesh, "t0")
    crash(mesh, "b")
    assert ask(mesh, "t1") == "b"


def test_another_model_of_the_node_is_not_to_blame(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"), specialist("writer", "prose", model="big"))
    mesh.add("c", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    while ask(mesh, f"t{len(mesh.effects('a', RouteChosen))}") != "b":
        pass
    crash(mesh, "b")
    cooling = mesh.boxes[NodeId("a")].core.cooling
    assert cooling.cools(B, MODEL, mesh.now)
    assert not cooling.cools(B, "big", mesh.now)
