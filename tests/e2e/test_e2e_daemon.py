"""One daemon without a model: starting, refusing to start, stopping."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from meshslm.cli.demo_nodes import free_ports
from tests.e2e.conftest import START_SECONDS, get, until

if TYPE_CHECKING:
    from tests.e2e.conftest import Program, Start

RSS_BYTES = 150 * 2**20
"""What a daemon without a model may take."""

LEAVE_SECONDS = 8.0
"""A clean stop takes a tenth of a second where nobody has to be told; the box may be busy."""


class Lone:
    """A daemon that hosts nothing."""

    def __init__(self, start: Start, folder: Path, *words: str) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.program: Program = start(
            "up",
            "--no-profiles",
            "--data-dir",
            str(folder),
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--gateway-port",
            str(self.port),
            *words,
        )

    def wait(self) -> Lone:
        until(lambda: "is up" in self.program.said or self.ended, START_SECONDS, "up")
        assert not self.ended, self.program.said
        return self

    @property
    def ended(self) -> bool:
        return self.program.process.poll() is not None


def test_it_greets_whoever_started_it(start: Start, tmp_path: Path) -> None:
    lone = Lone(start, tmp_path / "a", "--name", "lone").wait()
    said = lone.program.out.read_text()
    status = get(lone.url, "/mesh/status")
    for part in ("lone is up", status["node"], f"API at    {lone.url}/v1", "curl http"):
        assert part in said
    for address in status["addresses"]:
        assert f"peers at  {address}" in said
    assert get(lone.url, "/healthz") == {"status": "ok"}
    assert get(lone.url, "/readyz")["ready"] is False


def test_it_is_small(start: Start, tmp_path: Path) -> None:
    lone = Lone(start, tmp_path / "a").wait()
    assert psutil.Process(lone.program.process.pid).memory_info().rss < RSS_BYTES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(start: Start, tmp_path: Path, number: int) -> None:
    lone = Lone(start, tmp_path / "a").wait()
    lone.program.process.send_signal(number)
    assert lone.program.ended(LEAVE_SECONDS) == 0
    assert "Traceback" not in lone.program.said


def test_a_restart_keeps_the_identity(start: Start, tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        lone = Lone(start, tmp_path / "a").wait()
        told.append(get(lone.url, "/mesh/status"))
        lone.program.interrupt()
        assert lone.program.ended() == 0
    assert told[0]["node"] == told[1]["node"]
    assert told[0]["boot"] < told[1]["boot"]


def test_a_second_daemon_on_the_same_folder_is_refused(start: Start, tmp_path: Path) -> None:
    first = Lone(start, tmp_path / "a").wait()
    second = Lone(start, tmp_path / "a")
    assert second.program.ended() == 1
    said = second.program.said
    assert f"{tmp_path / 'a'} is already in use by process {first.program.process.pid}" in said
    assert "--data-dir" in said
    assert "Traceback" not in said
    assert get(first.url, "/healthz") == {"status": "ok"}


def test_an_api_port_in_use(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        lone = Lone(start, tmp_path / "a", "--gateway-port", str(port))
        assert lone.program.ended() == 1
    said = lone.program.said
    assert "meshslm: error:" in said
    assert str(port) in said
    assert "in use" in said
    assert "Traceback" not in said


def test_a_peer_port_in_use(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        lone = Lone(start, tmp_path / "a", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
        assert lone.program.ended() == 1
    said = lone.program.said
    assert "meshslm: error:" in said
    assert str(port) in said
    assert "in use" in said
    assert "Traceback" not in said


def test_an_unreadable_config_shows_line_and_key(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[node]\nname = "x"\n\n[gateway]\nport = "high"\n')
    lone = start("up", "--config", str(config))
    assert lone.ended() == 1
    for part in (str(config), "line 5", "gateway.port", "high"):
        assert part in lone.said
    assert "Traceback" not in lone.said


def test_a_configured_host_is_heard_beside_loopbacks(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[gateway]\nallowed_hosts = ["chat.example.org"]\n')
    lone = Lone(start, tmp_path / "a", "--config", str(config)).wait()
    names = ("chat.example.org:7416", "localhost", "evil.example.org")
    answers = [httpx.get(f"{lone.url}/healthz", headers={"host": name}) for name in names]
    assert [answer.status_code for answer in answers] == [200, 200, 403]


def test_wrong_usage_ends_with_2(start: Start) -> None:
    program = start("up", "--gateway-port", "high")
    assert program.ended() == 2
    assert "--gateway-port" in program.said


def test_two_daemons_meet(start: Start, tmp_path: Path) -> None:
    first = Lone(start, tmp_path / "a", "--name", "first").wait()
    (address,) = get(first.url, "/mesh/status")["addresses"]
    second = Lone(start, tmp_path / "b", "--name", "second", "--bootstrap", address).wait()
    until(lambda: get(first.url, "/mesh/status")["peers_alive"] == 1, what="first sees second")
    until(lambda: get(second.url, "/mesh/status")["peers_alive"] == 1, what="second sees first")
    second.program.interrupt()
    assert second.program.ended() == 0

    def left() -> bool:
        states = {peer["name"]: peer["state"] for peer in get(first.url, "/mesh/peers")["peers"]}
        return states.get("second") == "left"

    until(left, what="first heard the goodbye")


def test_a_second_signal_ends_it_at_once(start: Start, tmp_path: Path) -> None:
    """The peer is frozen, so that the goodbye cannot be delivered and the first signal waits."""
    first = Lone(start, tmp_path / "a").wait()
    (address,) = get(first.url, "/mesh/status")["addresses"]
    second = Lone(start, tmp_path / "b", "--bootstrap", address).wait()
    until(lambda: get(second.url, "/mesh/status")["peers_alive"] == 1, what="second sees first")
    first.program.process.send_signal(signal.SIGSTOP)
    second.program.interrupt()
    until(lambda: "leaving" in second.program.said, what="the first signal was heard")
    second.program.interrupt()
    assert second.program.ended() in {0, 130}
