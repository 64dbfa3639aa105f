"""Decisions of real coordinators: how long one takes, and how long nobody leads after kill -9."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles

import httpx

from bench.nodes import READY_S, answers, settings
from bench.table import Row, spread
from meshslm.cli.demo_nodes import NodePlan, RunningNodes, plan_nodes

DECISIONS = 200
ROUNDS = 5
LEADER_S = 2.0
FORM_S = 60.0
NAMES = ("node-a", "node-b", "node-c", "node-d", "node-e")

Nodes = tuple[RunningNodes, list[NodePlan]]


def measure() -> list[Row]:
    """Latency at three and at five voters, and the time to a new leader."""
    rows: list[Row] = []
    for voters in (3, 5):
        with group(voters) as (nodes, plans):
            rows.append(_latency(plans, voters))
            if voters == 3:
                rows.append(_new_leader(nodes, plans))
    return rows


@contextmanager
def group(voters: int) -> Iterator[Nodes]:
    """So many daemons without models, all of which decide."""
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder, RunningNodes() as nodes:
        home = Path(folder)
        plans = plan_nodes(settings(home), home, None, tuple((n, "code") for n in NAMES[:voters]))
        for plan in plans:
            _host_nothing(plan, voters)
        nodes.start(plans)
        for plan in plans:
            nodes.wait_until(plan.name, partial(answers, plan.url, "/healthz"), READY_S)
        post(plans[0].url, "seats", {"order": "found"})
        for plan in plans:
            _until(partial(_votes, plan.url, voters), FORM_S)
        yield nodes, plans


def _host_nothing(plan: NodePlan, voters: int) -> None:
    lines = plan.config.read_text(encoding="utf-8").splitlines()
    changed = ["profiles = []" if line.startswith("profiles =") else line for line in lines]
    changed = [f"voters = {voters}" if line.startswith("voters =") else line for line in changed]
    plan.config.write_text("\n".join(changed) + "\n", encoding="utf-8")


def post(url: str, what: str, body: dict[str, object]) -> None:
    """Have something done; raises where it is not."""
    path = f"{url}/mesh/consensus/{what}"
    httpx.post(path, json=body, timeout=20, trust_env=False).raise_for_status()


def _view(url: str) -> dict[str, object]:
    told: dict[str, object] = httpx.get(f"{url}/mesh/consensus", timeout=5, trust_env=False).json()
    return told


def _votes(url: str, wanted: int) -> bool:
    seats = _view(url)["seats"]
    assert isinstance(seats, list)
    return sum(1 for seat in seats if seat["votes"]) == wanted


def _leads(url: str) -> bool:
    return _view(url)["role"] == "leader"


def _any_leads(plans: list[NodePlan]) -> bool:
    return any(_leads(plan.url) for plan in plans)


def _until(fact: Callable[[], bool], seconds: float) -> float:
    began = time.perf_counter()
    while not fact():
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.01)
    return time.perf_counter() - began


def _latency(plans: list[NodePlan], voters: int) -> Row:
    """One decision after the other at the leader, as a client of its HTTP interface sees it."""
    url = next(plan.url for plan in plans if _leads(plan.url))
    took = []
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        path = "/mesh/consensus/decisions"
        for number in range(DECISIONS):
            body = {"act": "generation", "subject": f"bench-{voters}", "expected": number}
            began = time.perf_counter()
            client.post(path, json=body).raise_for_status()
            took.append(1000 * (time.perf_counter() - began))
    cuts = quantiles(took, n=20)
    return Row(
        f"A decision, {voters} voters on one machine, synced to each one's disk",
        f"p50 {cuts[9]:.1f} ms, p95 {cuts[18]:.1f} ms",
    )


def _new_leader(nodes: RunningNodes, plans: list[NodePlan]) -> Row:
    """Kill the leader, start it again, and so on."""
    took = []
    for _ in range(ROUNDS):
        _until(partial(_any_leads, plans), FORM_S)
        leader = next(plan for plan in plans if _leads(plan.url))
        others = [plan for plan in plans if plan is not leader]
        running = next(node for node in reversed(nodes.nodes) if node.plan.name == leader.name)
        os.kill(running.pid, signal.SIGKILL)
        took.append(_until(partial(_any_leads, others), FORM_S))
        running.kill()
        nodes.start([leader])
        _until(partial(answers, leader.url, "/healthz"), READY_S)
        _until(partial(_follows, leader.url), FORM_S)
    worst = max(took)
    return Row(
        f"A new leader after kill -9, {ROUNDS} rounds",
        spread(took, "s", 2),
        target=f"<= {LEADER_S:g} s",
        reached=worst <= LEADER_S,
    )


def _follows(url: str) -> bool:
    view = _view(url)
    return bool(view["leader"]) and view["role"] in ("follower", "leader")
