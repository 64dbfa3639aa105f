"""A client that does not read, at a node that passes its answer on from another."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil
import pytest

from tests.e2e.conftest import Mesh, until

pytestmark = [pytest.mark.model, pytest.mark.long]

MIB = 1024 * 1024
CHOICES = 3
"""Of four slots: one is left to somebody who reads."""
TOKENS = 900
GROWTH = 48 * MIB
"""What of a stream waits is 4 MiB by estimate; the rest is what Python keeps at hand."""
QUESTION = "Write a long story about a lighthouse keeper."


@dataclass
class Memory:
    """The greatest growth of some processes so far."""

    pids: tuple[int, ...]
    before: list[int] = field(default_factory=list)
    grown: list[int] = field(default_factory=list)

    def look(self) -> None:
        now = [psutil.Process(pid).memory_info().rss for pid in self.pids]
        self.before = self.before or now
        grown = [after - then for after, then in zip(now, self.before, strict=True)]
        self.grown = [max(pair) for pair in zip(grown, self.grown or grown, strict=True)]


@contextmanager
def sleeper(url: str) -> Iterator[socket.socket]:
    """A client that asks for much and reads nothing."""
    body = {
        "model": "writing",
        "messages": [{"role": "user", "content": QUESTION}],
        "n": CHOICES,
        "max_tokens": TOKENS,
        "temperature": 1.5,
        "seed": 3,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
        "logit_bias": {"2": -100},
    }
    data = json.dumps(body).encode()
    address = urlsplit(url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((address.hostname, address.port))
        client.sendall(head.encode() + data)
        yield client


def test_who_does_not_read_costs_no_memory_and_delays_nobody(own_mesh: Mesh) -> None:
    mesh = own_mesh
    memory = Memory((mesh["a"].pid, mesh["b"].pid))
    calm, alone_s = ask(mesh)
    memory.look()
    with sleeper(mesh.url("a")) as client:
        until(lambda: mesh.running("b") > 0, 60, "it is begun")
        while mesh.running("b"):
            text, beside_s = ask(mesh)
            assert text == calm
            assert beside_s < 10 * alone_s + 5
            memory.look()
        assert max(memory.grown) < GROWTH, [grown / MIB for grown in memory.grown]
        got = read(client)
    assert b'"delta"' in got
    assert b"reads too slowly" in got or b"[DONE]" not in got
    assert ask(mesh)[0] == calm


def ask(mesh: Mesh) -> tuple[str, float]:
    """A short answer from node-b through node-a, and how long it took."""
    began = time.monotonic()
    with mesh.client("a") as client:
        text = client.ask(QUESTION, model="writing", max_tokens=12, temperature=0).text
    return text, time.monotonic() - began


def read(client: socket.socket) -> bytes:
    """All that comes, until the other side ends."""
    got = bytearray()
    client.settimeout(20)
    try:
        while data := client.recv(65536):
            got += data
    except (ConnectionResetError, TimeoutError):
        pass  # it was given up before it read
    return bytes(got)
