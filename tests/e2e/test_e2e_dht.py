"""Daemons of a private mesh that find each other through a DHT of strangers, all real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshslm.cli.demo_nodes import free_ports
from tests.e2e.conftest import START_SECONDS, get, until

if TYPE_CHECKING:
    from tests.e2e.conftest import Program, Start

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
"""Seconds until they must have met; a round that finds nobody is followed by another."""
SERVER = "12D3KooWHGzyzjCy9wJd5bB6SqPqQdoXr6BXvNPPWy9kYwkx2cMQ"
"""Of nobody."""


@pytest.fixture
def servers() -> Iterator[list[str]]:
    """Addresses of three servers, each of which knows the next."""
    command = [sys.executable, "-m", "tests.adapters.dht_servers"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        found = [process.stdout.readline().strip() for _ in range(3)]
        assert all(found), "the servers ended before they listened"
        yield found
    finally:
        process.kill()
        process.communicate()


class Daemon:
    """A member without a model; its peers are reached at another port after each start."""

    def __init__(self, start: Start, folder: Path, *servers: str) -> None:
        self._start = start
        self.folder = folder
        self.name = folder.name
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder.with_suffix(".toml")
        self.config.write_text(f"[link]\ndht = {json.dumps(servers)}\n" if servers else "")
        self.link = 0

    def up(self) -> Program:
        (self.link,) = free_ports(1)
        program = self._start(
            *("up", "--no-profiles", "--data-dir", str(self.folder), "--name", self.name),
            *("--listen", f"/ip4/127.0.0.1/tcp/{self.link}", "--config", str(self.config)),
            *("--gateway-port", str(self.port)),
        )
        until(lambda: "is up" in program.said or program.process.poll() is not None, START_SECONDS)
        return program

    def mesh(self, *words: str) -> None:
        program = self._start("mesh", *words, "--data-dir", str(self.folder), "--json")
        assert program.ended() == 0, program.said

    def status(self) -> Any:
        return get(self.url, "/mesh/status")

    def knows(self, other: Daemon) -> bool:
        peers = get(self.url, "/mesh/peers")["peers"]
        return any(p["name"] == other.name and p["state"] == "alive" for p in peers)


def down(program: Program) -> None:
    program.interrupt()
    assert program.ended() == 0, program.said


@pytest.mark.long
def test_members_that_moved_find_each_other_through_servers_that_they_do_not_share(
    start: Start, servers: list[str], tmp_path: Path
) -> None:
    ann = Daemon(start, tmp_path / "ann", servers[0])
    bob = Daemon(start, tmp_path / "bob", servers[2])
    ann.mesh("create", "home")
    running = ann.up()
    assert "is up" in running.said, running.said
    at = f"/ip4/127.0.0.1/tcp/{ann.link}"
    token = tmp_path / "token"
    ann.mesh("invite", "--address", at, "--output", str(token))
    bob.mesh("join", "--token-file", str(token))
    down(running)

    ann.up()
    until(lambda: ann.status()["dht"]["kept"] == 3, PATIENCE, "ann's address is left")
    bob.up()
    until(partial(bob.knows, ann), PATIENCE, "bob has found ann")
    until(partial(ann.knows, bob), what="and ann knows it")
    told = start("status", "--url", ann.url)
    assert told.ended() == 0
    assert "3 servers answered" in told.said
    examined = start("doctor", "net", "--gateway-port", str(ann.port))
    examined.ended()
    assert "3 servers answered" in examined.said
    for server in servers:
        peer = server.rpartition("/")[2]
        peers = get(ann.url, "/mesh/peers")["peers"] + get(bob.url, "/mesh/peers")["peers"]
        assert peer not in [p["node"] for p in peers], "a server was taken for a peer"


@pytest.fixture
def imports_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started write each module that they load to standard error."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")


@pytest.mark.long
@pytest.mark.usefixtures("imports_told")
def test_without_the_setting_nothing_of_it_is_loaded(start: Start, tmp_path: Path) -> None:
    ann = Daemon(start, tmp_path / "ann")
    ann.mesh("create", "home")
    running = ann.up()
    assert ann.status()["dht"] is None
    down(running)
    modules = ("core.kademlia", "core.meeting_point", "libp2p_kademlia", "dht_meeting")
    assert not [module for module in modules if module in running.said]
    with_it = Daemon(start, tmp_path / "ann", f"/ip4/127.0.0.1/tcp/9/p2p/{SERVER}")
    running = with_it.up()
    assert with_it.status()["dht"]["servers"] == [f"/ip4/127.0.0.1/tcp/9/p2p/{SERVER}"]
    down(running)
    assert all(module in running.said for module in modules)


@pytest.mark.long
def test_a_node_that_is_in_no_private_mesh_does_not_start_with_it(
    start: Start, tmp_path: Path
) -> None:
    opened = Daemon(start, tmp_path / "open", f"/ip4/127.0.0.1/tcp/9/p2p/{SERVER}")
    refused = opened.up()
    assert refused.ended() == 1
    assert "link.dht is for private meshes" in refused.said
