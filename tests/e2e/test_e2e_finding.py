"""Daemons that find each other again: after a restart of both, with nothing to go by."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshslm.cli.demo_nodes import free_ports
from tests.e2e.conftest import START_SECONDS, get, until

if TYPE_CHECKING:
    from tests.e2e.conftest import Program, Start


class Daemon:
    """A daemon without a model, which can be started again on the same ports and folder."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.start = start
        self.folder = folder
        self.peer_port, self.port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.program: Program | None = None

    def up(self, *words: str) -> None:
        self.program = program = self.start(
            *("up", "--no-profiles", "--data-dir", str(self.folder), "--name", self.folder.name),
            *("--listen", f"/ip4/127.0.0.1/tcp/{self.peer_port}"),
            *("--gateway-port", str(self.port), *words),
        )
        until(lambda: "is up" in program.said or program.process.poll() is not None, START_SECONDS)
        assert program.process.poll() is None, program.said

    def down(self) -> None:
        assert self.program is not None
        self.program.interrupt()
        assert self.program.ended() == 0, self.program.said

    def knows(self, other: Daemon) -> bool:
        peers = get(self.url, "/mesh/peers")["peers"]
        return any(p["name"] == other.folder.name and p["state"] == "alive" for p in peers)

    @property
    def file(self) -> Path:
        return self.folder / "peers.json"


@pytest.fixture
def pair(start: Start, tmp_path: Path) -> tuple[Daemon, Daemon]:
    return Daemon(start, tmp_path / "ann"), Daemon(start, tmp_path / "bob")


def test_two_that_met_by_bootstrap_meet_again_without_it(pair: tuple[Daemon, Daemon]) -> None:
    ann, bob = pair
    ann.up()
    bob.up("--bootstrap", f"/ip4/127.0.0.1/tcp/{ann.peer_port}")
    for one, other in (pair, pair[::-1]):
        until(partial(one.knows, other), what="they meet")
        until(one.file.exists, what="it is written down")
        assert stat.S_IMODE(one.file.stat().st_mode) == 0o600
    for daemon in pair:
        daemon.down()
    for daemon in pair:
        daemon.up()
    for one, other in (pair, pair[::-1]):
        until(partial(one.knows, other), what="they meet again")


def test_a_damaged_file_of_peers_keeps_no_node_from_starting(pair: tuple[Daemon, Daemon]) -> None:
    ann, _ = pair
    ann.folder.mkdir()
    ann.file.write_text("{")
    ann.up()
    assert ann.program is not None
    assert "of no use" in ann.program.said
    assert get(ann.url, "/mesh/status")["bootstrap"] == []
