"""`/mesh/state`: how large documents are, and a comparison with every member."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from meshslm.core.consensus.events import DecisionMade
from meshslm.core.state_events import Change, StateEvent, StateWrite
from meshslm.core.views import StatusView
from meshslm.daemon.state_desk import StateDesk
from meshslm.ids import NodeId
from meshslm.wire.consensus import Command, Decision
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
    assert told["unasked"] == sum(peer.state == "alive" for peer in service.peers())
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


class Deciding(OneOfTwo):
    """A service whose coordinators are this object."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, Decision] = {}
        self.beaten = 0
        """So many times somebody else decides first."""

    async def decide(
        self, command: Command | None, kind: str = "", subject: str = ""
    ) -> DecisionMade:
        self.wanted.append((command, kind, subject))
        if command is None:
            known = self.decisions.get(subject)
            return DecisionMade(1, "decided", "", 1, (known,) if known else ())
        now = self.decisions.get(command.subject, Decision("generation", command.subject))
        if self.beaten:
            self.beaten -= 1
            other = f"{now.value} other{now.amount}:1".strip()
            self.decisions[command.subject] = replace(now, value=other, amount=now.amount + 1)
            return DecisionMade(1, "conflict")
        assert command.expected == now.amount
        self.decisions[command.subject] = replace(now, value=command.value, amount=now.amount + 1)
        return DecisionMade(1, "decided")


async def forget(service: Deciding, **body: object) -> httpx.Response:
    async with gateway(service, state=service.desk) as served:
        return await served.http.post("/mesh/state/forget", json=body)


async def test_what_an_author_wrote_is_given_up() -> None:
    service = Deciding()
    service.mesh.put("b", "of-b", b"v")
    service.mesh.pass_time(100)
    service.beaten = 2
    response = await forget(service, document=DOC, author="b")
    assert response.status_code == 200, response.text
    told = response.json()
    assert told["generation"] == 3
    assert [f["author"] for f in told["forgotten"]] == ["b", "other0", "other1"]
    again = await forget(service, document=DOC, author="b")
    assert again.json() == told, "once is enough"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"document": DOC, "author": "stranger"}, 404, "nothing of stranger"),
        ({"document": "nonsense", "author": "b"}, 400, "classes"),
        ({"document": DOC, "author": "a"}, 409, "is there"),
        ({"document": DOC}, 400, "author"),
        ({"document": "memory/" + "x" * 200, "author": "b"}, 400, "document"),
        ({"document": DOC, "author": "b", "more": 1}, 400, "more"),
    ],
)
async def test_who_is_there_or_unknown_is_not_given_up(
    body: dict[str, object], status: int, word: str
) -> None:
    service = Deciding()
    response = await forget(service, **body)
    assert response.status_code == status
    assert word in response.json()["error"]["message"]
    assert not service.decisions


async def test_force_gives_up_who_is_there() -> None:
    service = Deciding()
    assert (await forget(service, document=DOC, author="a", force=True)).status_code == 200


async def test_a_list_that_is_full_says_so() -> None:
    service = Deciding()
    full = " ".join(f"{n:052d}:1" for n in range(75))
    service.decisions[DOC] = Decision("generation", DOC, full, 9)
    response = await forget(service, document=DOC, author="a", force=True)
    assert response.status_code == 409
    assert "75 authors already" in response.json()["error"]["message"]


async def test_without_a_majority_nothing_is_given_up() -> None:
    service = OneOfTwo()
    service.made = DecisionMade(1, "no_majority", "1 of 3")
    async with gateway(service, state=service.desk) as served:
        body = {"document": DOC, "author": "a", "force": True}
        response = await served.http.post("/mesh/state/forget", json=body)
    assert response.status_code == 503
