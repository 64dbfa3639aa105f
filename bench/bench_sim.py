"""The simulator's own speed: how much mesh a developer can watch in a minute of real time."""

from __future__ import annotations

from bench.table import Row
from meshslm.sim.report import Report
from meshslm.sim.run import run
from meshslm.sim.scenario import default_scenario

SEED = 7
SIZES = (12, 50, 200)
"""Nodes; the last is the one with a bound."""
BOUND_S = 60.0
"""Of real time, for one virtual minute of 200 nodes on one core."""


def measure() -> list[Row]:
    """One virtual minute of the default scenario, with its faults, at several sizes."""
    return [_row(run(default_scenario(), seed=SEED, nodes=nodes)) for nodes in SIZES]


def _row(report: Report) -> Row:
    last = report.nodes == SIZES[-1]
    verdict = "" if report.ok else ", but its checks failed"
    return Row(
        what=f"{report.nodes} nodes, {report.virtual_s:.0f} virtual seconds, seed {report.seed}",
        value=f"{report.wall_s:.1f} s, {report.events_per_s:,.0f} events/s{verdict}",
        target=f"at most {BOUND_S:.0f} s" if last else "",
        reached=report.ok and report.wall_s <= BOUND_S if last else None,
    )
