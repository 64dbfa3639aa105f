"""The journal and the ledger over HTTP."""

from __future__ import annotations

import pytest
import trio

from meshslm.client import Client
from meshslm.core.chronicle import Chronicle
from meshslm.ids import TaskId
from meshslm.wire.messages import TaskRequest
from tests.core.test_core_chronicle import finish, route
from tests.gateway.scripted_service import ScriptedService
from tests.gateway.served import gateway
from tests.gateway.test_gateway_memory import NODES, START_MS, two


async def written(count: int) -> None:
    """So many tasks ran at the first node."""
    chronicle = Chronicle(1)
    for number in range(count):
        task = TaskId(f"t{number}")
        chronicle.arrived(task, TaskRequest("auto", tenant="t"), START_MS + number)
        chronicle.routed(route(task), START_MS + number + 1)
        if number:
            chronicle.ended(finish(task), START_MS + number + 100)
    for document, changes in chronicle.take().items():
        await NODES[0].desk.write(document, changes)


async def test_tasks_and_usage() -> None:
    async with two() as (here, there):
        await written(4)
        tasks = (await here.http.get("/mesh/tasks?limit=3")).json()["tasks"]
        assert [task["task"] for task in tasks] == ["t3", "t2", "t1"]
        assert {task["state"] for task in tasks} == {"finished"}
        running = (await here.http.get("/mesh/tasks?state=routed")).json()["tasks"]
        assert [task["task"] for task in running] == ["t0"]
        one = (await here.http.get("/mesh/tasks/t2")).json()
        assert [event["kind"] for event in one["events"]] == ["admitted", "routed", "finished"]
        missing = await here.http.get("/mesh/tasks/none")
        assert missing.status_code == 404
        assert "No member that answers" in missing.json()["error"]["message"]

        def elsewhere() -> None:
            with Client(there.url) as client:
                (row,) = client.usage(days=2)
                assert (row.requests, row.prompt_tokens, row.completion_tokens) == (3, 30, 15)
                assert (row.node, row.tenant, row.model) == ("a", "t", "m")

        await trio.to_thread.run_sync(elsewhere)


async def test_tasks_are_found_at_the_node_where_they_entered() -> None:
    async with two() as (_, there):
        await written(3)
        one = (await there.http.get("/mesh/tasks/t2")).json()
        assert (one["node"], one["state"]) == ("a", "finished")
        own = (await there.http.get("/mesh/tasks")).json()
        assert (own["tasks"], own["silent"]) == ([], [])
        mesh = (await there.http.get("/mesh/tasks?mesh=true&limit=2")).json()
        assert [(t["task"], t["node"]) for t in mesh["tasks"]] == [("t2", "a"), ("t1", "a")]
        assert (await there.http.get("/mesh/tasks/" + "x" * 200)).status_code == 404


@pytest.mark.parametrize(
    "path", ["tasks?limit=0", "tasks?limit=x", "usage?days=0", "usage?days=9999"]
)
async def test_what_makes_no_sense_is_refused(path: str) -> None:
    async with two() as (here, _):
        assert (await here.http.get(f"/mesh/{path}")).status_code == 400


async def test_a_node_without_documents_says_so() -> None:
    async with gateway(ScriptedService()) as served:
        for path in ("tasks", "tasks/x", "usage"):
            assert (await served.http.get(f"/mesh/{path}")).status_code == 503
