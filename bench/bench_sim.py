"""The simulator's own speed: how much mesh a developer can watch in a minute of real time.

`python -m bench sim` measures all; `python -m bench.bench_sim 1000 600` so many idle nodes for so
many virtual seconds, and prints.
"""

from __future__ import annotations

import sys
from time import process_time

from bench.table import Row
from meshslm.sim.report import Report
from meshslm.sim.run import run
from meshslm.sim.scenario import Scenario, Workload, default_scenario

SEED = 7
SIZES = (12, 50, 200)
"""Nodes; the last is the one with a bound."""
BOUND_S = 60.0
"""Of real time, for one virtual minute of 200 nodes on one core."""
LARGE, LARGE_S, LARGE_BOUND_S = 1_000, 600.0, 300.0
"""A mesh beyond a link between every two: nodes, virtual seconds, and the bound of real time."""


def measure() -> list[Row]:
    """One virtual minute of the default scenario, with its faults, at several sizes."""
    rows = [_row(run(default_scenario(), seed=SEED, nodes=nodes)) for nodes in SIZES]
    return [*rows, lasting(LARGE, LARGE_S)]


def lasting(nodes: int, seconds: float) -> Row:
    """Idle nodes that start within two seconds and stay, with all checkers."""
    quiet = Workload(tasks_per_second=0.0)
    scenario = Scenario(name="lasting", nodes=nodes, seconds=seconds, workload=quiet)
    begun = process_time()
    report = run(scenario, seed=SEED)
    spent = process_time() - begun
    bound = (nodes, seconds) == (LARGE, LARGE_S)
    verdict = "" if report.ok else ", but its checks failed"
    return Row(
        what=f"{nodes:,} idle nodes, {report.virtual_s:.0f} virtual seconds, seed {report.seed}",
        value=f"{report.wall_s:.0f} s, {spent:.0f} s of them on a core, "
        f"{report.events_per_s:,.0f} events/s{verdict}",
        target=f"at most {LARGE_BOUND_S:.0f} s" if bound else "",
        reached=report.ok and report.wall_s <= LARGE_BOUND_S if bound else None,
    )


def _row(report: Report) -> Row:
    last = report.nodes == SIZES[-1]
    verdict = "" if report.ok else ", but its checks failed"
    return Row(
        what=f"{report.nodes} nodes, {report.virtual_s:.0f} virtual seconds, seed {report.seed}",
        value=f"{report.wall_s:.1f} s, {report.events_per_s:,.0f} events/s{verdict}",
        target=f"at most {BOUND_S:.0f} s" if last else "",
        reached=report.ok and report.wall_s <= BOUND_S if last else None,
    )


if __name__ == "__main__":
    large = lasting(int(sys.argv[1]), float(sys.argv[2]))
    print(f"{large.what}: {large.value}")
