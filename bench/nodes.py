"""Real daemons for measurements, in a folder that goes away with them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import httpx
from msgspec.structs import replace

from meshslm.cli.demo_nodes import NodePlan, RunningNodes, plan_nodes
from meshslm.settings import Settings, default_directories, effective

READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Mesh:
    """Nodes that are up, know each other, and have their models loaded."""

    a: NodePlan
    b: NodePlan
    hosted_by_b: str
    pids: tuple[int, ...]
    ready_s: float
    """From the start of the processes until every one was ready and knew the others."""


def settings(home: Path) -> Settings:
    """Default settings with this user's model store."""
    found = effective(default_directories({}, PurePath(Path.home()))).settings
    return replace(found, node=replace(found.node, data_dir=str(home)))


def answers(url: str, path: str) -> bool:
    """Whether a node answers `path` with 200."""
    try:
        return httpx.get(url + path, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def knows(url: str, others: int) -> bool:
    """Whether a node sees so many others alive, each with its specialists."""
    try:
        peers = httpx.get(url + "/mesh/peers", timeout=2).json()["peers"]
    except httpx.HTTPError:
        return False
    return sum(1 for peer in peers if peer["state"] == "alive" and peer["specialists"]) >= others


@contextmanager
def running_mesh() -> Iterator[Mesh]:
    """The three nodes of `make run`, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder, RunningNodes() as nodes:
        home = Path(folder)
        plans = plan_nodes(settings(home), home, None)
        began = time.perf_counter()
        nodes.start(plans)
        for plan in plans:
            nodes.wait_until(plan.name, partial(answers, plan.url, "/readyz"), READY_S)
            nodes.wait_until(plan.name, partial(knows, plan.url, len(plans) - 1), READY_S)
        ready_s = time.perf_counter() - began
        pids = tuple(node.pid for node in nodes.nodes)
        yield Mesh(plans[0], plans[1], plans[1].profile, pids, ready_s)


@contextmanager
def running_alone(profiles: tuple[str, ...]) -> Iterator[tuple[NodePlan, int, float]]:
    """One node with these profiles; its plan, process, and seconds until it answered /healthz."""
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder, RunningNodes() as nodes:
        home = Path(folder)
        plan = plan_nodes(settings(home), home, None)[0]
        text = plan.config.read_text(encoding="utf-8")
        lines = [
            f"profiles = [{', '.join(repr(p) for p in profiles)}]".replace("'", '"')
            if line.startswith("profiles =")
            else line
            for line in text.splitlines()
            if not line.startswith("bootstrap =")
        ]
        plan.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        began = time.perf_counter()
        nodes.start([plan])
        nodes.wait_until(plan.name, lambda: answers(plan.url, "/healthz"), READY_S)
        up_s = time.perf_counter() - began
        yield plan, nodes.nodes[0].pid, up_s
