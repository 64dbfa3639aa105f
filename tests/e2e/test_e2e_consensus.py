"""Three real coordinators: killed leaders, acknowledged decisions, and no majority."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshslm.cli.demo_nodes import RunningNodes
from tests.e2e.conftest import Mesh, begin_mesh, get, until

FORM_SECONDS = 60.0
NEW_LEADER_SECONDS = 2.0


def post(url: str, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, trust_env=False, timeout=20)


def view(url: str) -> dict[str, Any]:
    told: dict[str, Any] = get(url, "/mesh/consensus")
    return told


def voters(url: str) -> int:
    return sum(1 for seat in view(url)["seats"] if seat["votes"])


def has_three(url: str) -> bool:
    return voters(url) == 3


def decide(url: str, **command: Any) -> httpx.Response:
    return post(url, "/mesh/consensus/decisions", command)


def found(mesh: Mesh) -> None:
    """Have node-a begin a group, and wait until three decide."""
    assert post(mesh.url("a"), "/mesh/consensus/seats", {"order": "found"}).status_code == 200
    for letter in "abc":
        until(partial(has_three, mesh.url(letter)), FORM_SECONDS, "three voters")


def leads(mesh: Mesh, letters: str) -> str:
    """Who leads, as it says itself; empty: nobody."""
    return next((at for at in letters if view(mesh.url(at))["role"] == "leader"), "")


@pytest.fixture
def group(tmp_path: Path, models_dir: Path) -> Iterator[Mesh]:
    with RunningNodes() as nodes:
        mesh = begin_mesh(nodes, tmp_path / "mesh", models_dir)
        found(mesh)
        yield mesh


pytestmark = pytest.mark.model


def test_a_killed_leader_is_replaced_and_nothing_decided_is_lost(group: Mesh) -> None:
    until(lambda: leads(group, "abc"), what="somebody leads")
    if leads(group, "a"):  # it alone may steer rollouts, and is to outlive the leader
        post(group.url("a"), "/mesh/consensus/seats", {"order": "transfer"})
        until(lambda: leads(group, "bc"), what="another leads")
    leader = leads(group, "bc")
    others = "abc".replace(leader, "")
    plan = {"act": "rollout.begin", "subject": "smollm2", "value": "plan-1"}
    assert decide(group.url(others[1]), **plan).status_code == 403
    made = decide(group.url("a"), **plan)
    assert made.status_code == 200, made.text
    os.kill(group[leader].pid, signal.SIGKILL)
    until(lambda: leads(group, others), NEW_LEADER_SECONDS, "a new leader")
    for letter in others:
        kept = get(group.url(letter), "/mesh/consensus/decisions?kind=rollout")
        assert [d["value"] for d in kept["decisions"]] == ["plan-1"]
    assert voters(group.url("a")) == 3, "who is away for a moment keeps its seat"
    again = decide(group.url("a"), **{**plan, "value": "plan-2"})
    assert again.status_code == 409
    assert "plan-1" in again.json()["error"]["message"]


def test_without_a_majority_nothing_is_decided_and_everything_is_answered(group: Mesh) -> None:
    for letter in "bc":
        os.kill(group[letter].pid, signal.SIGKILL)
    until(lambda: view(group.url("a"))["trouble"], what="node-a knows")
    refused = decide(group.url("a"), act="revoke", subject="token-1")
    assert refused.status_code == 503
    message = refused.json()["error"]["message"]
    assert "1 of 3 coordinators can be reached, 2 are needed" in message
    assert "requests are answered all the same" in message
    with group.client("a") as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.ask, "Say hello.", max_tokens=4).result(60)
    assert answer.text
