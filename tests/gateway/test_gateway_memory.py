"""Memory over HTTP, on two linked nodes with real documents and simulated disks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshslm import state_limits
from meshslm.client import AsyncClient, Client, FaultCode, Happened, RequestFault
from meshslm.core.memory import BEHIND, item_name, kind_of
from meshslm.core.state_events import HistoryFound, StateChanged, StateEvent, StateWritten
from meshslm.daemon.state_desk import StateDesk
from meshslm.ids import NodeId
from tests.core.state_mesh import StateMesh
from tests.gateway.scripted_service import ScriptedService
from tests.gateway.served import Served, gateway

HOME = "/mesh/memory/project-x"
START_MS = 1_800_000_000_000


class Node:
    """A desk over one core of the mesh, with a clock that tests set."""

    def __init__(self, mesh: StateMesh, name: str) -> None:
        self.mesh = mesh
        self.name = name
        self.told = 0
        self.now_ms = START_MS
        self.desk = StateDesk(mesh.docs(name), self, lambda: self.now_ms)  # type: ignore[arg-type]  # it only calls `handle`

    def handle(self, event: StateEvent) -> None:
        """Let the whole mesh come to rest, then say what came of it here."""
        self.mesh.give(self.name, event)
        self.mesh.pass_time(100)
        for node in NODES:
            node.tell()

    def tell(self) -> None:
        """Pass on effects that nobody heard yet."""
        effects = self.mesh.boxes[NodeId(self.name)].done
        fresh, self.told = effects[self.told :], len(effects)
        for effect in fresh:
            if isinstance(effect, StateWritten):
                self.desk.answer(effect)
            elif isinstance(effect, StateChanged):
                self.desk.tell(effect)
            elif isinstance(effect, HistoryFound):
                self.desk.found(effect)


NODES: list[Node] = []


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Served, Served]]:
    """Gateways of two nodes that share their documents."""
    mesh = StateMesh()
    mesh.join("a")
    mesh.join("b", "a")
    mesh.pass_time(2_000)
    NODES[:] = [Node(mesh, "a"), Node(mesh, "b")]
    with trio.fail_after(30):
        async with (
            gateway(ScriptedService(), state=NODES[0].desk) as one,
            gateway(ScriptedService(), state=NODES[1].desk) as other,
        ):
            yield one, other


async def put(served: Served, key: str, value: object, **fields: object) -> httpx.Response:
    return await served.http.put(f"{HOME}/values/{key}", json={"value": value, **fields})


async def get(served: Served, path: str) -> Any:
    reply = await served.http.get(HOME + path)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_value_is_read_on_the_other_node() -> None:
    async with two() as (here, there):
        value = {"ünder": [1, 2.5, None, "x"]}
        written = await put(here, "plan/today", value)
        assert written.json() == {"key": "plan/today", "revision": 1}
        found = await get(there, "/values/plan/today")
        assert found["value"] == value
        assert found["revision"] == 1
        assert found["author"] == "a"
        assert (await put(there, "plan/today", 7)).json()["revision"] == 2
        assert (await get(here, "/values/plan/today"))["value"] == 7
        names = (await here.http.get("/mesh/memory")).json()
        assert names == {"namespaces": ["project-x"]}


async def test_a_write_that_expects_another_revision_is_refused_and_changes_nothing() -> None:
    async with two() as (here, _):
        assert (await put(here, "k", 1, revision=0)).status_code == 200
        refused = await put(here, "k", 2, revision=0)
        assert refused.status_code == 409
        assert "revision 1, not 0" in refused.json()["error"]["message"]
        assert (await get(here, "/values/k"))["value"] == 1
        assert (await put(here, "k", 2, revision=1)).json()["revision"] == 2
        gone = await here.http.delete(f"{HOME}/values/k", params={"revision": 1})
        assert gone.status_code == 409
        gone = await here.http.delete(f"{HOME}/values/k", params={"revision": 2})
        assert gone.json() == {"deleted": 1}
        assert (await here.http.get(f"{HOME}/values/k")).status_code == 404
        assert (await here.http.delete(f"{HOME}/values/k")).status_code == 404


async def test_a_value_ends_with_its_time() -> None:
    async with two() as (here, there):
        await put(here, "k", "soon gone", ttl_s=60)
        assert (await get(there, "/values/k"))["expires_ms"] == START_MS + 60_000
        NODES[1].now_ms += 60_000
        assert (await there.http.get(f"{HOME}/values/k")).status_code == 404
        assert (await get(there, ""))["values"] == []
        assert (await get(here, ""))["values"] != []


async def test_keys_are_listed_by_prefix_and_page_by_page() -> None:
    async with two() as (here, _):
        for key in ("b/2", "a/1", "b/10", "b/1"):
            await put(here, key, key)
        listed = await get(here, "?prefix=b/")
        assert [entry["key"] for entry in listed["values"]] == ["b/1", "b/10", "b/2"]
        assert listed["after"] == ""
        first = await get(here, "?limit=3&values=false")
        assert [entry["key"] for entry in first["values"]] == ["a/1", "b/1", "b/10"]
        assert "value" not in first["values"][0]
        rest = await get(here, f"?limit=3&after={first['after']}")
        assert [entry["key"] for entry in rest["values"]] == ["b/2"]
        assert (await here.http.get(f"{HOME}?limit=0")).status_code == 400
        assert (await here.http.get(f"{HOME}?limit=many")).status_code == 400
        gone = await here.http.delete(HOME, params={"prefix": "b/"})
        assert gone.json() == {"deleted": 3}
        assert [e["key"] for e in (await get(here, ""))["values"]] == ["a/1"]


async def test_both_nodes_append_to_one_list() -> None:
    async with two() as (here, there):
        for number in range(4):
            served = (here, there)[number % 2]
            NODES[0].now_ms += 5
            NODES[1].now_ms += 5
            reply = await served.http.post(f"{HOME}/lists/log", json={"value": number})
            assert reply.status_code == 201
        for served in (here, there):
            items = (await get(served, "/lists/log"))["items"]
            assert [item["value"] for item in items] == [0, 1, 2, 3]
        page = await get(here, "/lists/log?limit=3")
        rest = await get(here, f"/lists/log?after={page['after']}")
        assert [item["value"] for item in rest["items"]] == [3]
        await here.http.post(f"{HOME}/lists/log:more", json={"value": 1})
        assert (await get(here, ""))["lists"] == ["log", "log:more"]
        assert len((await get(here, "/lists/log"))["items"]) == 4


async def test_both_nodes_count_and_nothing_is_lost() -> None:
    async with two() as (here, there):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                served = (here, there)[number % 2]
                nursery.start_soon(served.http.post, f"{HOME}/counters/seen")
        await here.http.post(f"{HOME}/counters/seen", json={"add": -5})
        for served in (here, there):
            assert await get(served, "/counters/seen") == {"key": "seen", "count": 15}
        assert (await get(here, "/counters/never"))["count"] == 0
        assert (await get(here, ""))["counters"] == ["seen"]
        most = {"add": 2**53 + 1}
        assert (await here.http.post(f"{HOME}/counters/seen", json=most)).status_code == 400


async def test_a_watch_tells_what_others_write() -> None:
    async with two() as (here, there):
        await put(here, "before", 0)
        seen: list[Happened] = []
        async with (
            AsyncClient(there.url) as client,
            client.memory("project-x").watch("k") as changes,
        ):
            await put(here, "k/1", {"a": 1})
            await put(here, "other", 1)
            await here.http.delete(f"{HOME}/values/k/1")
            await here.http.post(f"{HOME}/lists/k", json={"value": "x"})
            await here.http.post(f"{HOME}/counters/k")
            async for change in changes:
                seen.append(change)
                if len(seen) == 4:
                    break
        assert [event.kind for event in seen] == ["put", "delete", "put", "count"]
        assert (seen[0].key, seen[0].revision, seen[0].value) == ("k/1", 1, {"a": 1})
        assert (seen[2].key, seen[2].value, len(seen[2].item)) == ("k", "x", 19)
        assert seen[3].count == 1


async def test_watches_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_limits, "MEMORY_WATCHES", 1)
    async with two() as (here, _), AsyncClient(here.url) as client:
        memory = client.memory("project-x")
        async with memory.watch():
            with pytest.raises(RequestFault) as refused:
                async with memory.watch():
                    pass
            assert refused.value.code is FaultCode.OVERLOADED
        while (await here.http.get(f"{HOME}/values/k")).status_code == 404:
            with suppress(RequestFault):  # the first may still be on its way out
                async with memory.watch():
                    await put(here, "k", 1)


async def test_a_program_uses_memory() -> None:
    async with two() as (here, there), AsyncClient(here.url) as client:
        notes = client.memory("project-x")
        assert await notes.get("plan") is None
        assert await notes.put("plan", {"step": 1}, revision=0) == 1
        with pytest.raises(RequestFault) as refused:
            await notes.put("plan", None, revision=0)
        assert refused.value.code is FaultCode.CONFLICT
        await notes.append("log", None)
        await notes.append("log", [1])
        assert await notes.add("runs", 3) == 3

        def elsewhere() -> None:
            with Client(there.url) as blocking:
                others = blocking.memory("project-x")
                found = others.get("plan")
                assert found is not None
                assert (found.value, found.revision) == ({"step": 1}, 1)
                assert [item.value for item in others.items("log")] == [None, [1]]
                assert others.add("runs") == others.count("runs") == 4
                assert [entry.key for entry in others.values("pl")] == ["plan"]
                assert others.delete("plan")
                assert not others.delete("plan")
                assert others.clear() == 3

        await trio.to_thread.run_sync(elsewhere)
        assert await notes.items("log") == []
        assert await notes.count("runs") == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/values/k", b"{}", 400),
        ("PUT", "/values/k", b'{"value": ', 400),
        ("PUT", "/values/k", b'{"value": 1, "revision": -1}', 400),
        ("PUT", "/values/k", b'{"value": 1, "ttl_s": 0}', 400),
        ("PUT", "/values/k", b'{"value": 1, "oops": 0}', 400),
        ("PUT", f"/values/a{BEHIND}b", b'{"value": 1}', 400),
        ("PUT", "/values/a%00b", b'{"value": 1}', 400),
        ("PUT", "/values/" + "k" * 300, b'{"value": 1}', 400),
        ("PUT", "/values/k", b'{"value": "' + b"x" * 66_000 + b'"}', 400),
        ("PUT", "/values/k", b'{"value": "' + b"x" * 99_000 + b'"}', 413),
        ("POST", "/lists/k", b"[]", 400),
        ("POST", "/counters/k", b'{"add": 1.5}', 400),
        ("PATCH", "/values/k", b"{}", 405),
    ],
)
async def test_what_makes_no_sense_is_refused_with_words(
    method: str, path: str, body: bytes, status: int
) -> None:
    async with two() as (here, _):
        reply = await here.http.request(method, HOME + path, content=body)
        assert reply.status_code == status, reply.text
        assert reply.json()["error"]["message"]
        assert (await here.http.get("/mesh/memory")).json() == {"namespaces": []}
        assert (await put(here, "k", 1)).status_code == 200


async def test_a_namespace_has_a_plain_name() -> None:
    async with two() as (here, _):
        for name in ("%20x", "a*", "x" * 200):
            reply = await here.http.put(f"/mesh/memory/{name}/values/k", json={"value": 1})
            assert reply.status_code == 400, name


async def test_a_node_without_documents_says_what_to_do() -> None:
    async with gateway(ScriptedService()) as served:
        reply = await served.http.get(HOME)
        assert reply.status_code == 503
        assert "[state]" in reply.json()["error"]["message"]


@given(
    st.lists(st.tuples(st.integers(0, 2**47), st.integers(1, 10**6)), min_size=2, max_size=9),
)
def test_items_are_in_the_order_of_their_times(written: list[tuple[int, int]]) -> None:
    names = [item_name(at, number, NodeId("12D3KooWabcdefgh")) for at, number in written]
    assert sorted(names) == [
        item_name(at, number, NodeId("12D3KooWabcdefgh")) for at, number in sorted(written)
    ]
    assert kind_of(f"l:log{BEHIND}{names[0]}") == ("list", "log", names[0])
