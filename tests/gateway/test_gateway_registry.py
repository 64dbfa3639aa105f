"""The registry over HTTP, and what writes it in a running node."""

from __future__ import annotations

from meshslm.client import AsyncClient
from meshslm.core.registry import REGISTRY
from meshslm.daemon.registrar import Registrar
from meshslm.ids import NodeId
from tests.gateway.scripted_service import ScriptedService
from tests.gateway.served import gateway
from tests.gateway.test_gateway_memory import NODES, two


async def test_a_member_that_is_away_is_told_of_with_when_it_was_seen() -> None:
    async with two() as (here, _):
        for node in NODES:
            core = node.mesh.boxes[NodeId(node.name)].core
            registrar = Registrar(node.desk, core.announced)
            assert await registrar.look()
            assert await registrar.look(), "nothing new is as well"
        NODES[0].now_ms += 3_600_000
        async with AsyncClient(here.url) as client:
            one, other = await client.registry()
        assert (one.name, other.name) == ("a", "b")
        assert one.version == other.version
        assert not one.there, "the scripted service knows neither"
        assert other.seen_ms == 3_600_000


async def test_a_registrar_that_may_not_write_says_so_once() -> None:
    async with two():
        node = NODES[0]
        core = node.mesh.boxes[NodeId("a")].core
        core.documents.journal.failed("the disk is full")
        registrar = Registrar(node.desk, core.announced)
        assert not await registrar.look()
        assert not await registrar.look()
        assert core.documents.holdings.find(REGISTRY) is None


async def test_a_node_without_documents_says_so() -> None:
    async with gateway(ScriptedService()) as served:
        assert (await served.http.get("/mesh/registry")).status_code == 503
