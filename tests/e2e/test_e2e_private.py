"""A private mesh of real daemons: made, joined, asked, revoked, and what a stranger gets."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meshslm.adapters.admission_desk import board_of
from meshslm.adapters.mesh_folder import MeshFolder
from meshslm.cli.demo_nodes import free_ports
from meshslm.cli.reach import readiness
from meshslm.client import Client, RequestFault
from tests.e2e.conftest import START_SECONDS, Program, Start, until

pytestmark = pytest.mark.model


class Node:
    """A daemon with a data folder."""

    def __init__(self, folder: Path, start: Start, *words: str) -> None:
        self.link, self.port = free_ports(2)
        self.folder = folder
        self._start = start
        self._words = words

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self, *words: str) -> Program:
        program = self._start(
            *("up", "--name", self.folder.name, "--data-dir", str(self.folder)),
            *("--listen", f"/ip4/127.0.0.1/tcp/{self.link}", "--gateway-port", str(self.port)),
            *(*self._words, *words),
        )
        until(lambda: self.answers() or program.process.poll() is not None, START_SECONDS, "up")
        assert self.answers(), program.said
        return program

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def mesh(self, *words: str, code: int = 0) -> Any:
        """A `meshslm mesh` command on this node's folder; its JSON."""
        program = self._start("mesh", *words, "--data-dir", str(self.folder), "--json")
        assert program.ended() == code, program.said
        return json.loads(program.out.read_text()) if code == 0 else program.said

    def invite(self, path: Path, *words: str) -> Path:
        address = f"/ip4/127.0.0.1/tcp/{self.link}"
        self.mesh("invite", "--address", address, "--output", str(path), *words)
        return path

    def sees(self) -> dict[str, str]:
        with Client(self.url) as client:
            return {peer.name: peer.state for peer in client.peers()}


MakeNode = Callable[..., Node]


@pytest.fixture
def node(tmp_path: Path, start: Start, models_dir: Path) -> MakeNode:
    def make(name: str, *words: str) -> Node:
        common = ("--models-dir", str(models_dir), "--threads", "1")
        return Node(tmp_path / name, start, *common, *(words or ("--no-profiles",)))

    return make


def test_a_private_mesh_from_its_making_to_a_members_end(node: MakeNode, tmp_path: Path) -> None:
    one, two, three = node("one"), node("two", "--profile", "code"), node("three")
    one.mesh("create", "home")
    one.up()
    roles = ("--role", "specialist", "--domains", "code", "--expires", "1h", "--uses", "1")
    token = one.invite(tmp_path / "token", *roles)
    joined = two.mesh("join", "--token-file", str(token))
    assert joined["rights"] == ["serve"]
    assert "invitation_used" in three.mesh("join", "--token-file", str(token), code=1)
    two.up()
    until(partial(readiness_of, one), START_SECONDS, "a member that hosts")
    with Client(one.url) as client:
        assert client.ask("Write a function that adds.", max_tokens=4).node_name == "two"
    with Client(two.url) as client:
        assert client.ask("Write a function.", max_tokens=4).node_name == "two"

    stranger = node("stranger")
    meets = ("--bootstrap", f"/ip4/127.0.0.1/tcp/{one.link}")
    said = stranger.up(*meets)
    until(lambda: "this mesh is private" in said.said, what="a refusal")
    assert set(stranger.sees()) <= {"stranger", ""}, "it does not even hear a name"

    one.mesh("revoke", two.mesh("status")["serial"])
    until(lambda: one.sees().get("two") != "alive", what="the revoked one is gone")
    with Client(one.url) as client, pytest.raises(RequestFault):
        client.ask("Write a function that adds.", max_tokens=4)
    assert one.mesh("members")[1]["state"] == "revoked"


def readiness_of(node: Node) -> bool:
    return readiness(node.url)[0]


@pytest.mark.long
def test_a_daemon_joins_by_itself_and_renews(node: MakeNode, tmp_path: Path) -> None:
    one, two = node("one"), node("two")
    one.mesh("create")
    one.up()
    token = one.invite(tmp_path / "token", "--life", "60s")
    before = two.up("--token-file", str(token))
    until(lambda: one.sees().get("two") == "alive", what="a member")
    first = two.mesh("status")["not_after"]
    until(lambda: two.mesh("status")["not_after"] > first, 75, "renewal at two thirds of a minute")
    assert before.process.poll() is None
    assert one.sees()["two"] == "alive"


@pytest.mark.long
def test_who_was_away_learns_who_was_put_out_and_of_the_new_key(
    node: MakeNode, tmp_path: Path
) -> None:
    one, two, three, four = (node(name) for name in ("one", "two", "three", "four"))
    one.mesh("create")
    one.up()
    for guest in (two, three):
        token = one.invite(tmp_path / f"{guest.folder.name}.token")
        guest.mesh("join", "--token-file", str(token))
    two.up()
    away = three.up()
    until(lambda: set(one.sees().values()) == {"self", "alive"} and len(one.sees()) == 3, 60)
    away.interrupt()
    assert away.ended() == 0
    put_out = two.mesh("status")["node"]
    one.mesh("revoke", put_out)
    until(lambda: one.sees().get("two") != "alive", what="the revoked one is gone")
    one.mesh("rotate", "--grace", "1h")
    three.up()
    kept = MeshFolder(three.folder)
    mesh = bytes.fromhex(one.mesh("status")["mesh"])
    until(lambda: board_of(kept, mesh).revoked("node", put_out), 60, "what was missed")
    until(lambda: len(board_of(kept, mesh).succession()) == 1, 60, "the new key")
    assert three.sees().get("two") != "alive"
    four.mesh("join", "--token-file", str(one.invite(tmp_path / "four.token")))
    four.up()
    until(lambda: three.sees().get("four") == "alive", 60, "a member by the new key")
    assert three.sees()["one"] == "alive"
    assert "alive" not in (three.sees().get("two"), four.sees().get("two"))


def test_slow_and_silent_strangers_do_not_keep_a_daemon_from_its_users(node: MakeNode) -> None:
    one = node("one")
    one.mesh("create")
    one.up()
    sockets = [socket.create_connection(("127.0.0.1", one.link), 5) for _ in range(20)]
    for number, connection in enumerate(sockets):
        connection.sendall(os.urandom(1 + number * 100))
    assert one.sees() == {"one": "self"}
    for connection in sockets:
        connection.settimeout(30)
        while connection.recv(4096):
            pass
        connection.close()
    assert one.sees() == {"one": "self"}
