"""Nodes leave and come back while clients go on asking: no request is lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from meshslm.cli.demo_nodes import RunningNode, RunningNodes
from meshslm.client import FaultCode, OurFault, RequestFault
from tests.e2e.conftest import START_SECONDS, Mesh, Start, begin_mesh, is_ready, sees_all, until

pytestmark = pytest.mark.model

TALE = "Write a long story about a lighthouse keeper."
TOKENS = 32
CLIENTS = 3
ROLES = (("node-a", "code"), ("node-b", "writing"), ("node-c", "writing"))


@pytest.fixture
def replicas(tmp_path: Path, models_dir: Path) -> Iterator[Mesh]:
    """A mesh in which node-b and node-c host the same."""
    with RunningNodes() as nodes:
        yield begin_mesh(nodes, tmp_path / "mesh", models_dir, ROLES)


@dataclass
class Load:
    """Clients that ask whichever node takes them, until told to stop."""

    mesh: Mesh
    texts: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)

    def has(self, answers: int) -> bool:
        return len(self.texts) >= answers

    def run(self) -> None:
        first = 0
        while not self.enough.is_set():
            letter = "abc"[first % 3]
            try:
                self._ask(letter)
            except OurFault:
                first += 1  # nobody listens there: it is being restarted
            except RequestFault as fault:
                if fault.code is not FaultCode.NOT_READY:
                    self.lost.append(f"node-{letter}: {fault.code}: {fault.detail}")
                first += 1

    def _ask(self, letter: str) -> None:
        begun = False
        with self.mesh.client(letter) as client:
            try:
                with client.stream(TALE, model="writing", max_tokens=TOKENS, temperature=0) as told:
                    pieces = []
                    for piece in told:
                        begun = True
                        pieces.append(piece)
            except (OurFault, RequestFault) as fault:
                if begun:
                    self.lost.append(f"node-{letter} broke off: {fault}")
                raise
            self.texts.append("".join(pieces))


@pytest.mark.long
def test_a_rolling_restart_under_load_loses_nothing(replicas: Mesh) -> None:
    mesh, load = replicas, Load(replicas)
    with mesh.client("a") as client:
        calm = client.ask(TALE, model="writing", max_tokens=TOKENS, temperature=0).text
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(load.run) for _ in range(CLIENTS)]
        try:
            for letter in "bca":
                restart(mesh, "abc".index(letter), letter)
                until(partial(load.has, len(load.texts) + CLIENTS), 60, "it goes on")
        finally:
            load.enough.set()
        for asking in clients:
            asking.result(60)
    assert load.lost == []
    assert set(load.texts) == {calm}
    assert len(load.texts) >= 3 * CLIENTS


def restart(mesh: Mesh, place: int, letter: str) -> None:
    old = mesh[letter]
    with mesh.client(letter) as client:
        client.drain(limit_s=60)
    until(lambda: old.exit_code is not None, 60, f"node-{letter} leaves")
    assert old.exit_code == 0, old.tail()
    new = RunningNode(old.plan)
    mesh.nodes.nodes[place] = new
    mesh.nodes.wait_until("ready", partial(is_ready, new.plan.url), START_SECONDS)
    mesh.nodes.wait_until("acquainted", partial(sees_all, mesh, letter), START_SECONDS)


def test_a_signal_leaves_time_for_what_is_under_way(
    start: Start, tmp_path: Path, models_dir: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[limits]\ndrain_s = 60\n", encoding="utf-8")
    places = ("--data-dir", str(tmp_path / "data"), "--models-dir", str(models_dir))
    doors = ("--gateway-port", "0", "--listen", "/ip4/127.0.0.1/tcp/0")
    node = start("up", "--config", str(config), *places, *doors, "--profile", "general")
    until(lambda: "API at" in node.said, START_SECONDS, "it is up")
    url = node.said.partition("API at")[2].split()[0].removesuffix("/v1")
    until(lambda: is_ready(url), START_SECONDS, "it is ready")
    body = {
        "model": "general",
        "messages": [{"role": "user", "content": TALE}],
        "max_tokens": 150,
        "temperature": 0,
        "stream": True,
    }
    events: list[str] = []
    refused: dict[str, dict[str, str]] = {}
    ask = partial(httpx.stream, "POST", url + "/v1/chat/completions", json=body, timeout=60)
    with ask(trust_env=False) as answer:
        for line in filter(None, answer.iter_lines()):
            events.append(line)
            if len(events) == 3:
                node.process.send_signal(signal.SIGTERM)
                refused = refusal(url, body)
    assert refused["error"]["code"] == "not_ready"
    assert events[-1] == "data: [DONE]"
    assert node.ended() == 0


def refusal(url: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
    """What a new request is told, once the node has heard that it is to leave."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        reply = httpx.post(
            f"{url}/v1/chat/completions",
            json={**body, "max_tokens": 1, "stream": False},
            trust_env=False,
            timeout=30,
        )
        if reply.status_code == 503:
            assert float(reply.headers["retry-after"]) > 0
            return dict(json.loads(reply.content))
    raise AssertionError("it takes new work for ever")
