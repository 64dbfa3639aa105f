"""An answer outlives the connection that carried it, cut in mid-stream between two daemons."""

from __future__ import annotations

import json
import socket
import subprocess
from functools import partial

import httpx
import psutil
import pytest

from tests.e2e.conftest import Mesh, until

pytestmark = pytest.mark.model

STREAM_SECONDS = 120.0
ASKED = {
    "model": "domain:writing",
    "messages": [{"role": "user", "content": "Write a long story about a lighthouse keeper."}],
    "max_tokens": 96,
    "temperature": 0,
    "stream": True,
}


def connections(mesh: Mesh, one: str, other: str) -> list[tuple[int, int]]:
    """Local and remote ports of the connections between two daemons."""
    ends = [
        {
            (c.laddr.port, c.raddr.port)
            for c in psutil.Process(mesh[letter].pid).net_connections("tcp")
            if c.status == psutil.CONN_ESTABLISHED
        }
        for letter in (one, other)
    ]
    return sorted((near, far) for near, far in ends[0] if (far, near) in ends[1])


def cut(near: int, far: int) -> None:
    """Have the system break a connection, as if a cable or a router had."""
    subprocess.run(
        ["ss", "-K", "sport", "=", f":{near}", "dport", "=", f":{far}"],
        check=False,
        capture_output=True,
    )


def can_cut() -> bool:
    """Whether this system lets us break a connection of another process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as here:
            there, _ = server.accept()
            with there:
                try:
                    cut(here.getsockname()[1], port)
                except FileNotFoundError:
                    return False
                here.settimeout(1)
                try:
                    here.recv(1)
                except ConnectionError:
                    return True
                except TimeoutError:
                    return False
                return True


def linked_anew(mesh: Mesh, before: list[tuple[int, int]]) -> bool:
    return connections(mesh, "a", "b") not in ([], before)


def listen(mesh: Mesh, *, disturb: bool) -> str:
    """The text of an answer that node-b must give to a client of node-a."""
    text, events = "", 0
    url = mesh.url("a") + "/v1/chat/completions"
    with httpx.stream("POST", url, json=ASKED, timeout=STREAM_SECONDS, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            text += "".join(c["delta"].get("content") or "" for c in event["choices"])
            events += 1
            if disturb and events in (6, 30):
                before = connections(mesh, "a", "b")
                assert before
                for near, far in before:
                    cut(near, far)
                until(partial(linked_anew, mesh, before), 10, "a new connection")
    return text


def test_an_answer_goes_on_over_a_new_connection(mesh: Mesh) -> None:
    if not can_cut():
        pytest.skip("this system does not let a test break connections (ss -K)")
    calm = listen(mesh, disturb=False)
    tasks = httpx.get(mesh.url("a") + "/mesh/status", trust_env=False).json()["tasks"]
    disturbed = listen(mesh, disturb=True)
    assert disturbed == calm
    after = httpx.get(mesh.url("a") + "/mesh/status", trust_env=False).json()["tasks"]
    assert after["retried"] == tasks["retried"]
    assert after["failed"] == tasks["failed"]
