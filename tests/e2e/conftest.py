"""Real daemons in real processes; every one of them is gone when its test is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from msgspec.structs import replace

from meshslm.cli.demo_nodes import ROLES, Roles, RunningNode, RunningNodes, plan_nodes
from meshslm.cli.reach import readiness
from meshslm.client import Client
from meshslm.settings import Settings, default_directories, effective

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background, and what we start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

START_SECONDS = 120.0
"""Three daemons at once on two busy cores."""
STOP_SECONDS = 20.0


def until(fact: Callable[[], Any], seconds: float = STOP_SECONDS, what: str = "the fact") -> float:
    """Wait until `fact` holds; the seconds it took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


@dataclass
class Program:
    """A `meshslm` command in a process of its own."""

    process: subprocess.Popen[str]
    out: Path
    err: Path

    @property
    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def ended(self, seconds: float = STOP_SECONDS) -> int:
        return self.process.wait(seconds)


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts commands; what still runs at the end of the test is killed with its children."""
    with starting(tmp_path) as start_command:
        yield start_command


@pytest.fixture(scope="module")
def start_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """The same for what the tests of one module share."""
    with starting(tmp_path_factory.mktemp("commands")) as start_command:
        yield start_command


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Starts commands until the block is left; their output goes to `folder`."""
    programs: list[Program] = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MESHSLM_")}
    environment["XDG_CONFIG_HOME"] = str(folder / "config")

    def start_command(*words: str) -> Program:
        out, err = (folder / f"command-{len(programs)}.{kind}" for kind in ("out", "err"))
        with out.open("w") as out_file, err.open("w") as err_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "meshslm", *words],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                text=True,
                env=environment,
            )
        programs.append(Program(process, out, err))
        return programs[-1]

    yield start_command
    for program in programs:
        if program.process.poll() is None:
            for pid in reversed(family(program.process.pid)):
                os.kill(pid, signal.SIGKILL)
            program.process.wait()


@pytest.fixture(scope="session")
def models_dir(model_path: Path) -> Path:
    """The store that holds the default model, prepared."""
    store = model_path.parents[1]
    if not (store / "manifests").is_dir():
        pytest.skip("the model was given as a file; these tests need a model store")
    return store


@dataclass
class Mesh:
    """Three nodes: node-a hosts `code`, node-b `writing`, node-c `general`."""

    nodes: RunningNodes

    def __getitem__(self, letter: str) -> RunningNode:
        return next(node for node in self.nodes.nodes if node.plan.name == f"node-{letter}")

    def url(self, letter: str) -> str:
        return self[letter].plan.url

    def client(self, letter: str) -> Client:
        return Client(self.url(letter))

    def worker(self, letter: str) -> int:
        """Process of the engine of a node."""
        (worker,) = psutil.Process(self[letter].pid).children()
        return int(worker.pid)

    def running(self, letter: str) -> int:
        """Runs that the engine of a node works on, as the node itself says."""
        with self.client(letter) as client:
            return sum(load.running + load.queued for load in client.status().loads)

    def sees(self, letter: str) -> set[str]:
        """Names of the nodes that a node knows to be alive and ready, itself included."""
        with self.client(letter) as client:
            return {
                peer.name
                for peer in client.peers()
                if peer.state in {"alive", "self"} and any(load.ready for load in peer.loads)
            }


def begin_mesh(nodes: RunningNodes, folder: Path, models_dir: Path, roles: Roles = ROLES) -> Mesh:
    """Start three nodes, and return when all know each other."""
    nodes.start(plan_nodes(small_settings(models_dir), folder, None, roles))
    mesh = Mesh(nodes)
    for node in nodes.nodes:
        nodes.wait_until("ready", partial(is_ready, node.plan.url), START_SECONDS)
    for letter in "abc":
        nodes.wait_until("acquainted", partial(sees_all, mesh, letter), START_SECONDS)
    return mesh


def is_ready(url: str) -> bool:
    return readiness(url)[0]


def sees_all(mesh: Mesh, letter: str) -> bool:
    return len(mesh.sees(letter)) == 3


def small_settings(models_dir: Path) -> Settings:
    """Settings under which three engines fit beside each other on a small machine."""
    settings = effective(default_directories({}, Path.home())).settings
    return replace(
        settings,
        node=replace(settings.node, models_dir=str(models_dir)),
        engine=replace(settings.engine, threads=1, slots=4, context=1024),
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Mesh]:
    """A mesh that the tests of one module share; they may not break it."""
    with RunningNodes() as nodes:
        yield begin_mesh(nodes, tmp_path_factory.mktemp("mesh"), models_dir)


@pytest.fixture
def own_mesh(tmp_path: Path, models_dir: Path) -> Iterator[Mesh]:
    """A mesh of the test's own, to be broken."""
    with RunningNodes() as nodes:
        yield begin_mesh(nodes, tmp_path / "mesh", models_dir)


def get(url: str, path: str) -> Any:
    """The JSON that a node answers."""
    return httpx.get(f"{url}{path}", trust_env=False, timeout=10).json()
