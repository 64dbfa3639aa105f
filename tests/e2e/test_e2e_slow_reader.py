"""Clients that read slowly, or not at all, at a node that passes their answers on from another."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.e2e.conftest import Mesh, until

pytestmark = [pytest.mark.model, pytest.mark.long]

MIB = 1024 * 1024
CHOICES = 3
"""Of four slots: one is left to somebody who reads."""
TOKENS = 900
GROWTH = 32 * MIB
"""What of a stream waits is 4 MiB by estimate; the rest is what Python keeps at hand."""
LONG = 160
"""Tokens of an answer that is read slowly: a quarter of a megabyte with their likeliest others."""
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
def asking(url: str, **fields: object) -> Iterator[socket.socket]:
    """A client with little room that asks for much."""
    body = {
        "model": "writing",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
        **fields,
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


def test_who_does_not_read_costs_no_memory_and_delays_nobody(mesh: Mesh) -> None:
    memory = Memory((mesh["a"].pid, mesh["b"].pid))
    calm, alone_s = ask(mesh)
    memory.look()
    many = {"n": CHOICES, "max_tokens": TOKENS, "temperature": 1.5, "seed": 3}
    with asking(mesh.url("a"), **many, logit_bias={"2": -100}) as client:
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


def test_who_reads_slowly_gets_all_of_it_in_fewer_pieces(mesh: Mesh) -> None:
    with asking(mesh.url("a"), max_tokens=LONG, temperature=0) as client:
        calm = events(read(client))
    with asking(mesh.url("a"), max_tokens=LONG, temperature=0) as client:
        until(lambda: mesh.running("b") > 0, 60, "it is begun")
        got = bytearray()
        while mesh.running("b"):
            got += client.recv(1024)
            time.sleep(0.05)
        slow = events(bytes(got) + read(client))
    assert text_of(slow) == text_of(calm)
    assert tokens_of(slow) == tokens_of(calm)
    assert len(slow) < len(calm) / 2


def events(raw: bytes) -> list[dict[str, Any]]:
    """The choices of each event of a whole stream."""
    told = [line[6:].strip() for line in raw.split(b"\n") if line.startswith(b"data: ")]
    assert told[-1] == b"[DONE]"
    return [choice for event in told[:-1] for choice in json.loads(event)["choices"]]


def text_of(choices: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def tokens_of(choices: list[dict[str, Any]]) -> list[str]:
    known = [choice["logprobs"]["content"] for choice in choices if choice["logprobs"]]
    return [token["token"] for tokens in known for token in tokens]


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
        while not got.endswith(b"\r\n0\r\n\r\n") and (data := client.recv(65536)):
            got += data
    except (ConnectionResetError, TimeoutError):
        pass  # it was given up before it read
    return bytes(got)
