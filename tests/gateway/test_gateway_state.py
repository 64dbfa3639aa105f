"""`/mesh/state`: how large documents are, and a comparison with every member."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshslm.core.state_events import Change, StateEvent, StateWrite
from meshslm.core.views import StatusView
from meshslm.daemon.state_desk import StateDesk
from meshslm.ids import NodeId
from tests.core.state_mesh import DOC, StateMesh
from tests.gateway.scripted_service import ScriptedService
from tests.gateway.served import gateway


class OneOfTwo(ScriptedService):
    """A service whose documents are a test mesh's."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = StateMesh()
        self.mesh.join("a")
        self.mesh.join("b", "a")
        self.mesh.pass_time(100)
        self.mesh.put("a", "k", b"v")
        self.mesh.pass_time(100)
        self.desk = StateDesk(self.mesh.docs("a"), self, lambda: 0)  # type: ignore[arg-type]  # it only calls `handle`

    def handle(self, event: StateEvent) -> None:
        """Let it happen in the mesh."""
        self.mesh.give("a", event)

    def status(self) -> StatusView:
        """With the state of the mesh's core."""
        told = self.mesh.boxes[NodeId("a")].core.status(self.mesh.now)
        return replace(super().status(), state=told.state)


async def test_documents_are_told_with_their_size() -> None:
    service = OneOfTwo()
    async with gateway(service, state=service.desk) as served:
        told = (await served.http.get("/mesh/state")).json()
    assert told["ready"] is True
    (document,) = told["documents"]
    assert document["document"] == DOC
    assert document["keys"] == 1


async def test_status_and_metrics_tell_of_documents() -> None:
    service = OneOfTwo()
    service.mesh.make_slow("a")
    for number in range(3):
        event = StateWrite(900 + number, DOC, (Change(f"k{number}", b"v"),), 0)
        service.mesh.give("a", event)
    async with gateway(service, state=service.desk) as served:
        told = (await served.http.get("/mesh/status")).json()["state"]
        metrics = (await served.http.get("/metrics")).text
    assert (told["ready"], told["count"], told["quarantined"], told["waiting"]) == (True, 1, 0, 3)
    assert 0 < told["live_bytes"] < told["full_bytes"]
    for line in (
        "meshslm_state_able 1.0",
        "meshslm_state_documents 1.0",
        f"meshslm_state_live_bytes {told['live_bytes']}.0",
        f"meshslm_state_full_bytes {told['full_bytes']}.0",
        "meshslm_state_quarantined 0.0",
        "meshslm_state_divergences 0.0",
        "meshslm_state_writes_waiting 3.0",
    ):
        assert f"\n{line}\n" in metrics
    service.mesh.finish("a")
    assert service.mesh.docs("a").waiting == 0


async def test_metrics_are_silent_where_there_are_no_documents() -> None:
    async with gateway(ScriptedService()) as served:
        assert "meshslm_state" not in (await served.http.get("/metrics")).text


async def test_verification_tells_of_every_member() -> None:
    service = OneOfTwo()
    async with gateway(service, state=service.desk) as served:
        told = (await served.http.post("/mesh/state/verify")).json()
    (check,) = told["checks"]
    assert (check["node"], check["state"], check["documents"]) == ("b", "equal", 1)


async def test_verification_tells_who_has_diverged() -> None:
    service = OneOfTwo()
    part = next(iter(service.mesh.docs("b").holdings.documents[DOC].parts.values()))
    part.content ^= 1
    async with gateway(service, state=service.desk) as served:
        told = (await served.http.post("/mesh/state/verify")).json()
    assert told["checks"][0]["diverged"] == [DOC]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_node_without_documents_says_so(method: str) -> None:
    async with gateway(ScriptedService()) as served:
        path = "/mesh/state" + ("/verify" if method == "POST" else "")
        response = await served.http.request(method, path)
    assert response.status_code == 400
    assert "state.enabled" in response.json()["error"]["message"]
