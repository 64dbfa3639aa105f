"""What a run showed: a table for people, plain values for programs, and a verdict.

Rules:
- Every figure says its unit. What was not measured is shown as such, never as zero.
- The verdict is the checkers': a scenario that expects to fail still fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from meshslm.sim.checkers import Convergence, TaskRecord, Violation
from meshslm.sim.node import SECOND

if TYPE_CHECKING:
    from rich.console import Group

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What became of the tasks."""

    sent: int
    answered: int
    refused: int
    """Failed with a fault that their client was told."""
    cancelled: int
    orphaned: int
    """Their own node died, and their client's connection with it."""
    lost: int
    """Never ended. There must be none."""
    moved: int
    """Answered by another node than the first one chosen."""
    refusals: dict[str, int]
    """How many were refused with which code."""


@dataclass(frozen=True, slots=True)
class RoutingFigures:
    """Where tasks went, of those that were answered."""

    classified: int
    """Tasks that left it to the mesh."""
    classified_right: int
    named: int
    """Tasks whose client named a domain or a profile."""
    named_right: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a time in milliseconds; None where there was nothing to measure."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """What went over the links, a node and second of its life."""

    messages: float
    bytes: float
    bytes_most: float
    """Of the busiest node."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of one run."""

    scenario: str
    seed: int
    nodes: int
    virtual_s: float
    wall_s: float
    events: int
    trace: str
    tasks: TaskFigures
    routing: RoutingFigures
    first_token_ms: Spread
    total_ms: Spread
    traffic: TrafficFigures
    convergence: tuple[Convergence, ...]
    violations: tuple[Violation, ...]
    violation_counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return not self.violation_counts

    @property
    def events_per_s(self) -> float:
        """Speed of the simulator itself, in events a second of real time."""
        return self.events / self.wall_s if self.wall_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {"ok": self.ok, "events_per_s": round(self.events_per_s), **asdict(self)}

    def table(self) -> Group:
        """Everything for a terminal."""
        from rich.console import Group  # noqa: PLC0415 - only people need it

        return Group(*_renderables(self))


def task_figures(records: Iterable[TaskRecord]) -> TaskFigures:
    """Count what became of tasks."""
    every = list(records)
    outcomes = [record.outcome for record in every]
    refusals: dict[str, int] = {}
    for record in every:
        if record.outcome == "failed":
            refusals[record.code] = refusals.get(record.code, 0) + 1
    return TaskFigures(
        sent=len(every),
        answered=outcomes.count("answered"),
        refused=outcomes.count("failed"),
        cancelled=outcomes.count("cancelled"),
        orphaned=outcomes.count("orphaned"),
        lost=outcomes.count(""),
        moved=sum(r.attempts > 1 for r in every if r.outcome == "answered"),
        refusals=dict(sorted(refusals.items())),
    )


def spread(samples_us: Sequence[int]) -> Spread:
    """Percentiles (nearest rank) of times in microseconds."""
    ordered = sorted(samples_us)
    if not ordered:
        return Spread(None, None, None)
    ranks = [-(-len(ordered) * percent // 100) - 1 for percent in PERCENTILES]
    return Spread(*(ordered[rank] / 1000 for rank in ranks))


# --- for people ---------------------------------------------------------------------------------
def _renderables(report: Report) -> list[Any]:
    from rich.table import Table  # noqa: PLC0415 - only people need it
    from rich.text import Text  # noqa: PLC0415 - only people need it

    figures = Table(
        title=f"{report.scenario}: {report.nodes} nodes, {report.virtual_s:.1f} s, "
        f"seed {report.seed}",
        title_justify="left",
        show_header=False,
    )
    figures.add_column(style="bold")
    figures.add_column()
    for name, value in _rows(report):
        figures.add_row(name, value)
    parts: list[Any] = [figures]
    if report.ok:
        parts.append(Text("PASS: all checks hold", style="bold green"))
        return parts
    parts.append(Text("FAIL", style="bold red"))
    for checker, count in report.violation_counts.items():
        parts.append(Text(f"{checker}: {count}", style="red"))
        parts.extend(
            Text(f"  at {found.at_ms / 1000:.3f} s: {found.detail}")
            for found in report.violations
            if found.checker == checker
        )
    return parts


def _rows(report: Report) -> list[tuple[str, str]]:
    tasks, routing, traffic = report.tasks, report.routing, report.traffic
    busiest = f"busiest {traffic.bytes_most / 1000:.2f}"
    refusals = ", ".join(f"{code} {count}" for code, count in tasks.refusals.items())
    return [
        ("tasks sent", str(tasks.sent)),
        ("answered", f"{_share(tasks.answered, tasks.sent)}, {tasks.moved} after moving"),
        ("refused", f"{tasks.refused}{f' ({refusals})' if refusals else ''}"),
        ("cancelled by client", str(tasks.cancelled)),
        ("died with their node", str(tasks.orphaned)),
        ("lost", str(tasks.lost)),
        ("right domain, classified", _share(routing.classified_right, routing.classified)),
        ("right domain, named", _share(routing.named_right, routing.named)),
        ("first token", _times(report.first_token_ms)),
        ("whole answer", _times(report.total_ms)),
        (
            "traffic of a node",
            f"{traffic.messages:.1f} messages/s, {traffic.bytes / 1000:.2f} kB/s ({busiest})",
        ),
        ("convergence", _convergence(report.convergence)),
        ("events", f"{report.events} in {report.wall_s:.1f} s, {report.events_per_s:,.0f}/s"),
        ("trace", report.trace),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.1f} %)" if whole else "none"


def _times(times: Spread) -> str:
    if times.p50 is None or times.p90 is None or times.p99 is None:
        return "not measured"
    return f"p50 {times.p50:.0f} ms, p90 {times.p90:.0f} ms, p99 {times.p99:.0f} ms"


def _convergence(history: tuple[Convergence, ...]) -> str:
    lines = []
    for entry in history:
        took = "not before the next change" if entry.took_ms is None else f"{entry.took_ms:.0f} ms"
        lines.append(f"{entry.change} (at {entry.at_ms / 1000:.1f} s): {took}")
    shown = lines if len(lines) <= 12 else [*lines[:6], f"... {len(lines) - 12} more", *lines[-6:]]
    return "\n".join(shown) or "no change"


def per_node_second(amount: int, alive_us: int) -> float:
    """A rate over the lives of nodes."""
    return amount * SECOND / alive_us if alive_us else 0.0
