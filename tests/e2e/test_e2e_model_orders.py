"""`meshslm models load`, `unload`, `pin` and `unpin` against a real daemon with real workers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshslm.cli import main
from meshslm.cli.demo_nodes import free_ports
from meshslm.client import Client, RequestFault
from meshslm.models.synthetic import ModelShape, synthesise
from tests.e2e.conftest import START_SECONDS, Program, Start, get, until

pytestmark = pytest.mark.model

SHAPE = ModelShape("llama", 2, 64, 128, 2, 2, 32, context=4096)
"""Loaded in a moment, and says nothing that anybody could read."""
NAMES = ("small-a", "small-b")
LONG = 300


@dataclass
class Said:
    """What a command of this process printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_models(*words: str) -> Said:
        code = main(["models", *words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run_models


class Node:
    """A daemon with two models of which one fits, loaded on demand."""

    def __init__(self, start: Start, run: Run, folder: Path, weights: Path) -> None:
        self._run = run
        self._models = ("--models-dir", str(folder / "models"))
        for name in NAMES:
            source = (f"file:{weights}", "--name", name, "--as-is")
            assert run("pull", *source, *self._models).code == 0
            (folder / f"{name}.toml").write_text(
                f'name = "p-{name}"\nmodel = "{name}"\nload = "demand"\n'
            )
        shown = run("show", NAMES[0], "--context", "4096", "--json", *self._models)
        self.need = json.loads(shown.out)["memory"]["total_mib"]
        config = folder / "node.toml"
        config.write_text(
            f"[engine]\nmemory_mib = {round(1.5 * self.need)}\ncontext = 4096\nthreads = 1\n"
        )
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        words = ["--config", str(config), "--data-dir", str(folder / "node"), *self._models]
        words += ["--listen", "/ip4/127.0.0.1/tcp/0", "--gateway-port", str(self.port)]
        for name in NAMES:
            words += ["--profile", str(folder / f"{name}.toml")]
        self.daemon: Program = start("up", *words)
        until(self.hosts_both, START_SECONDS, "hosting both")

    def hosts_both(self) -> bool:
        assert self.daemon.process.poll() is None, self.daemon.said
        return "is up" in self.daemon.said and set(self.states()) == set(NAMES)

    def models(self) -> dict[str, dict[str, Any]]:
        return {model["model"]: model for model in get(self.url, "/mesh/status")["models"]}

    def states(self) -> dict[str, str]:
        return {name: model["state"] for name, model in self.models().items()}

    def done(self, *words: str) -> str:
        said = self._run(*words, "--url", self.url)
        assert said.code == 0, said
        return said.out

    def refused(self, *words: str) -> str:
        said = self._run(*words, "--url", self.url)
        assert (said.code, said.out) == (1, "")
        assert "Traceback" not in said.err
        return said.err


@pytest.fixture
def node(start: Start, run: Run, tmp_path: Path, model_path: Path) -> Node:
    weights = tmp_path / "small.gguf"
    synthesise(weights, SHAPE, "Q8_0", model_path, lambda _: None)
    return Node(start, run, tmp_path, weights)


def test_models_come_and_go_as_ordered(node: Node) -> None:
    assert node.states() == {"small-a": "absent", "small-b": "absent"}
    assert "small-a is loaded" in node.done("load", "small-a")
    told = json.loads(node.done("load", "small-b", "--json"))
    assert (told["model"], told["state"], told["pinned"]) == ("small-b", "ready", False)
    assert node.states() == {"small-a": "absent", "small-b": "ready"}, "the other one gave way"
    assert "until this node ends" in node.done("pin", "small-b")
    said = node.refused("load", "small-a")
    assert f"{node.models()['small-b']['need_mib']} MiB of it kept by pinned models" in said
    assert "unpin it first" in node.refused("unload", "small-b")
    assert "is not pinned" in node.done("unpin", "small-b")
    assert json.loads(node.done("unload", "small-b", "--json"))["state"] == "absent"
    assert set(node.states().values()) == {"absent"}
    said = node.refused("load", "large")
    assert "'large'; known are small-a, small-b" in said
    assert "hint:" in said


@pytest.mark.parametrize("now", [False, True])
def test_unloading_waits_for_what_runs_unless_told_not_to(node: Node, *, now: bool) -> None:
    outcomes: list[object] = []
    begun = threading.Event()

    def ask() -> None:
        try:
            with (
                Client(node.url) as client,
                client.stream("x", model="small-a", max_tokens=LONG, seed=1) as pieces,
            ):
                for _ in pieces:
                    begun.set()
                outcomes.append(pieces.answer.finish_reason)
        except RequestFault as fault:
            outcomes.append(fault)

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(60)
    node.done("unload", "small-a", *(["--now"] if now else []))
    asking.join(60)
    (outcome,) = outcomes
    if now:
        assert isinstance(outcome, RequestFault)
        assert "by order" in str(outcome)
    else:
        assert outcome in {"stop", "length"}


def test_without_a_node_it_is_said_how_to_start_one(run: Run) -> None:
    (port,) = free_ports(1)
    said = run("load", "small-a", "--url", f"http://127.0.0.1:{port}")
    assert said.code == 1
    assert "meshslm up" in said.err
    assert "Traceback" not in said.err


def test_wrong_usage(run: Run) -> None:
    assert run("load").code == 2
    assert run("load", "a", "--now").code == 2
    assert run("pin", "a", "--url", "nowhere").code == 2
