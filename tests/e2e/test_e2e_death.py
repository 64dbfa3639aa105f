"""Daemons that are killed while somebody waits for them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshslm.client import Answer, FaultCode, RequestFault
from tests.e2e.conftest import Mesh, family, gone, until

pytestmark = pytest.mark.model

POEM = "Write a short poem about a lighthouse in winter."
ANSWER_SECONDS = 60.0


def ask(mesh: Mesh, letter: str, model: str) -> Answer:
    with mesh.client(letter) as client:
        return client.ask(POEM, model=model, max_tokens=8)


@pytest.mark.parametrize("model", ["auto", "domain:writing"])
def test_a_node_killed_before_its_first_token(own_mesh: Mesh, model: str) -> None:
    """Its engine is frozen first, so that it has the task and can produce nothing of it."""
    mesh = own_mesh
    daemon, *below = family(mesh["b"].pid)
    os.kill(mesh.worker("b"), signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, mesh, "a", model)
        until(lambda: mesh.running("b") == 1, what="node-b has the task")
        os.kill(daemon, signal.SIGKILL)
        if model == "auto":
            answer = waiting.result(ANSWER_SECONDS)
            assert answer.node_name in {"node-a", "node-c"}
            assert answer.attempts == 2
            assert answer.text
        else:
            with pytest.raises(RequestFault) as failure:
                waiting.result(ANSWER_SECONDS)
            assert failure.value.code in {FaultCode.PEER_LOST, FaultCode.UNKNOWN_MODEL}
            assert failure.value.detail
    until(lambda: all(gone(pid) for pid in below), what="the engine of the dead daemon ends")
    until(lambda: "node-b" not in mesh.sees("a"), what="node-a notices")
    assert ask(mesh, "a", "auto").node_name != "node-b"


def test_a_killed_engine_comes_back(own_mesh: Mesh) -> None:
    mesh = own_mesh
    before = mesh.worker("b")
    os.kill(before, signal.SIGKILL)
    until(lambda: "node-b" in mesh.sees("b") and mesh.worker("b") != before, 60, "a new engine")
    with mesh.client("b") as client:
        assert client.ask(POEM, model="writing@node-b", max_tokens=4).node_name == "node-b"
