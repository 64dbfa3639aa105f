"""Which waiting run its engine gets next: priorities, tenants, and what time is left."""

from __future__ import annotations

from meshslm import limits
from meshslm.core.events import RunEnded, RunProduced, StartRun, TaskArrived
from meshslm.ids import RunId, TaskId
from meshslm.wire.messages import ChatMessage, Chunk, TaskRequest, Timings, Usage
from tests.core.mesh import SLOTS, Mesh, specialist

GIVEN = SLOTS + limits.RUN_AHEAD


def ask(mesh: Mesh, task: str, priority: str = "interactive", tenant: str = "") -> None:
    request = TaskRequest(
        "coder", (ChatMessage("user", "hello"),), priority=priority, tenant=tenant
    )
    mesh.give("a", TaskArrived(TaskId(task), request))


def started(mesh: Mesh) -> list[tuple[str, str]]:
    return [(run.request.priority, run.request.tenant) for run in mesh.effects("a", StartRun)]


def end(mesh: Mesh, run: int, tokens: int = 1) -> None:
    mesh.give("a", RunProduced(RunId(run), Chunk(0, (1,) * tokens)))
    mesh.give("a", RunEnded(RunId(run), Usage(1, tokens), Timings()))


def test_interactive_runs_go_to_an_engine_that_is_full_of_background_work(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=64)
    for number in range(2 * GIVEN):
        ask(mesh, f"b{number}", "background")
    for number in range(2 * GIVEN):
        ask(mesh, f"i{number}")
    kinds = [priority for priority, _ in started(mesh)]
    assert kinds == ["background"] * GIVEN + ["interactive"] * GIVEN
    for run in range(1, GIVEN + 1):
        end(mesh, run)
    assert len(started(mesh)) == 2 * GIVEN, "background work has no room while others wait"


def test_a_tenant_with_many_requests_does_not_keep_another_waiting(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=64)
    for number in range(GIVEN + 10):
        ask(mesh, f"m{number}", tenant="many")
    ask(mesh, "f1", tenant="few")
    ask(mesh, "f2", tenant="few")
    end(mesh, 1, tokens=50)
    end(mesh, 2, tokens=50)
    assert [tenant for _, tenant in started(mesh)[GIVEN:]] == ["few", "few"]


def test_the_engine_is_told_how_much_time_is_left(mesh: Mesh) -> None:
    mesh.add("a", specialist("coder", "code"), queue_per_engine=64)
    for number in range(GIVEN + 1):
        ask(mesh, f"t{number}")
    mesh.pass_time(4000)
    end(mesh, 1)
    left = [run.request.deadline_ms for run in mesh.effects("a", StartRun)]
    assert left[0] == limits.DEADLINE_MS
    assert limits.DEADLINE_MS - 5000 < left[-1] <= limits.DEADLINE_MS - 4000
