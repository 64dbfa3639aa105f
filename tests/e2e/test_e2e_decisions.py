"""What must be decided once, by commands and programs at three real nodes: never too much of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meshslm.cli.demo_nodes import RunningNode, RunningNodes
from meshslm.client import Client, RequestFault
from tests.e2e.conftest import START_SECONDS, Mesh, begin_mesh, get, is_ready, sees_all, until
from tests.e2e.test_e2e_consensus import found

pytestmark = [pytest.mark.model, pytest.mark.long]

THERE_IS = 10
EVERYBODY = {"of-a", "of-b", "of-c"}


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Mesh]:
    """Three nodes that decide; of them node-a alone may steer rollouts."""
    with RunningNodes() as nodes:
        mesh = begin_mesh(nodes, tmp_path_factory.mktemp("mesh"), models_dir)
        found(mesh)
        yield mesh


def run(mesh: Mesh, letter: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours at a node."""
    command = [sys.executable, "-m", "meshslm", *words, "--url", mesh.url(letter)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def told(mesh: Mesh, letter: str, *words: str) -> Any:
    """The JSON that a command prints."""
    done = run(mesh, letter, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def grants(url: str, holder: str, times: int) -> int:
    """Ask for one so many times; how often it was granted."""
    got = 0
    with Client(url) as client:
        for _ in range(times):
            try:
                client.decide("quota.grant", "gpu", holder=holder, amount=1)
                got += 1
            except RequestFault as fault:
                if "exhausted" not in fault.detail:
                    raise
    return got


def test_two_nodes_that_want_more_than_there_is_get_what_there_is(group: Mesh) -> None:
    told(group, "a", "mesh", "decide", "quota.set", "gpu", "--amount", str(THERE_IS))
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(grants, group.url(letter), f"{letter}{turn}", THERE_IS)
            for turn in range(2)
            for letter in "bc"
        ]
        granted = [one.result(120) for one in asked]
    assert sum(granted) == THERE_IS
    with group.client("c") as client:
        (quota,) = client.decisions("quota", "gpu")
    names = [f"{letter}{turn}" for turn in range(2) for letter in "bc"]
    told_to_them = {name: got for name, got in zip(names, granted, strict=True) if got}
    assert {share.holder: share.amount for share in quota.shares} == told_to_them
    less = run(group, "a", "mesh", "decide", "quota.set", "gpu", "--amount", "3")
    assert less.returncode == 1
    assert "10 of it are granted already" in less.stderr
    holder = quota.shares[0].holder
    told(group, "b", "mesh", "decide", "quota.release", "gpu", "--holder", holder, "--amount", "1")
    assert grants(group.url("c"), "late", 2) == 1


def test_one_rollout_of_a_model_is_active(group: Mesh) -> None:
    begin = ("mesh", "decide", "rollout.begin", "tiny", "--value")
    made = told(group, "a", *begin, "plan-1")
    assert made["decisions"][0]["value"] == "plan-1"
    again = run(group, "a", *begin, "plan-2")
    assert again.returncode == 1
    assert "plan-1" in again.stderr
    assert run(group, "b", *begin, "plan-2").returncode == 1, "it has no right to"
    shown = run(group, "b", "mesh", "consensus", "--decisions")
    assert "plan-1" in shown.stdout
    ended = run(group, "a", "mesh", "decide", "rollout.end", "tiny")
    assert "nothing is active" in ended.stdout
    assert told(group, "a", *begin, "plan-2")["decisions"][0]["value"] == "plan-2"
    assert run(group, "a", "mesh", "decide", "nonsense", "tiny").returncode == 2


def keys(mesh: Mesh, letter: str) -> set[str]:
    with mesh.client(letter) as client:
        return {entry.key for entry in client.memory("team").values()}


def holds(mesh: Mesh, letter: str, wanted: set[str]) -> bool:
    return keys(mesh, letter) == wanted


def test_what_a_node_that_is_gone_wrote_is_given_up(group: Mesh) -> None:
    for letter in "abc":
        with group.client(letter) as client:
            client.memory("team").put(f"of-{letter}", letter)
    for letter in "abc":
        until(partial(holds, group, letter, EVERYBODY), 30, f"all of it at node-{letter}")
    forget = ("state", "forget", "memory/team")
    author = get(group.url("c"), "/mesh/status")["node"]
    alive = run(group, "a", *forget, author)
    assert alive.returncode == 1
    assert "is there" in alive.stderr
    old = group["c"]
    old.kill()
    assert old.wait(10)
    with group.client("a") as client:
        until(lambda: gone(client, author), 30, "node-c is gone")
    refused = run(group, "b", *forget, author)
    assert refused.returncode == 1
    assert "does not allow" in refused.stderr
    assert told(group, "a", *forget, author)["forgotten"][0]["author"] == author
    for letter in "ab":
        until(partial(holds, group, letter, EVERYBODY - {"of-c"}), 20, "it is dropped")

    new = RunningNode(old.plan)
    group.nodes.nodes[2] = new
    group.nodes.wait_until("ready", partial(is_ready, new.plan.url), START_SECONDS)
    group.nodes.wait_until("acquainted", partial(sees_all, group, "c"), START_SECONDS)
    until(lambda: keys(group, "c") == {"of-a", "of-b"}, 60, "it knows at node-c")
    with group.client("c") as client:
        client.memory("team").put("back", "again")
    for letter in "ab":
        until(partial(holds, group, letter, {"of-a", "of-b", "back"}), 30, "it writes on")
    assert "of-c" not in keys(group, "a") | keys(group, "b") | keys(group, "c")


def gone(client: Client, node: str) -> bool:
    return all(peer.state != "alive" for peer in client.peers() if peer.node == node)
