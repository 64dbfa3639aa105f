"""Many simulations that nobody thought of: a seed draws the mesh, its faults and its members.

Each run has two phases. In the first anything may happen, and only safety is asked for: no task
lost or ended twice, no token wrong. In the second nothing goes wrong any more, and all must come
to be well: every view right, every task ended.

Rules:
- A seed decides everything, by `drawn`; what is bad about the network is a fault too, so that it
  is over when the second phase begins.
- What `drawn` makes of a seed may change with it, so what is kept is the scenario itself.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Final, get_args

from meshslm.chance import Chance
from meshslm.sim.fault_kinds import (
    Busy,
    Churn,
    ClockFault,
    Clog,
    Cut,
    EngineCrash,
    Fault,
    Flap,
    Hang,
    Kill,
    Leave,
    NatRestart,
    OneWay,
    Partition,
    Rough,
    SlowDisk,
)
from meshslm.sim.hostile import Deed, Hostile
from meshslm.sim.run import run
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.topology import Group

SAFETY_FROM_S: Final = 3.0
SAFETY_TO_S: Final = 40.0
"""The first phase, in which things go wrong."""

PLAN_S: Final = 60.0
"""Clients come until ten seconds before this; after it there are only tasks and views to settle."""

DEEDS: Final[tuple[Deed, ...]] = get_args(Deed)

CONVERGE_S: Final = 100.0
"""The longest wait between two dials is 30 s; a mesh may need several."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one seed."""

    seed: int
    ok: bool
    scenario: Scenario
    trace: str
    events: int
    wall_s: float
    wrong: tuple[str, ...]
    """The first violations in words."""
    kinds: tuple[str, ...]
    """Kinds of faults that were drawn."""


def drawn(seed: int, *, nodes: int | None = None) -> Scenario:
    """The scenario of a seed, of so many nodes where that is given."""
    chance = Chance.from_int(seed).fork("swarm")
    count = nodes or 2 + chance.below(11)
    faults = [_overall(chance, count)] if chance.unit() < 0.5 else []
    faults.extend(_fault(chance, count) for _ in range(chance.below(5)))
    hostile = chance.below(max(1, count // 4))
    return Scenario(
        name=f"swarm-{seed}",
        nodes=count,
        seconds=PLAN_S,
        quiet_s=10.0,
        grace_s=CONVERGE_S + 60.0,
        bootstrap_nodes=min(count, 1 + chance.below(4)),
        profiles_per_node=1 + chance.below(3),
        network=Network(
            latency_ms=chance.pick((0.1, 1.0, 20.0, 80.0)),
            latency_spread=chance.between(0.0, 1.0),
            jitter_ms=chance.pick((0.0, 0.5, 10.0)),
            bandwidth_mbit=chance.pick((4.0, 100.0, 1000.0)),
        ),
        groups=_groups(chance) if chance.unit() < 0.4 else (),
        workload=Workload(
            tasks_per_second=chance.pick((0.5, 3.0, 10.0)),
            start_s=chance.between(0.1, 6.0),
            cancel_share=chance.between(0.0, 0.3),
            choices_share=chance.between(0.0, 0.3),
            deadline_s=chance.pick((2.0, 20.0, 60.0)),
        ),
        faults=_one_partition(faults),
        hostile=tuple(
            Hostile(does=chance.pick(DEEDS), share=chance.between(0.02, 0.5))
            for _ in range(hostile)
        ),
        checks=Checks(converge_s=CONVERGE_S),
    )


def _overall(chance: Chance, nodes: int) -> Fault:
    """What is bad about the whole network in the first phase."""
    return Rough(
        at_s=chance.between(0.5, SAFETY_FROM_S),
        for_s=SAFETY_TO_S - SAFETY_FROM_S,
        count=nodes,
        loss=chance.pick((0.0, 0.01, 0.05)),
        duplicate=chance.pick((0.0, 0.02, 0.2)),
        reorder=chance.pick((0.0, 0.05, 0.3)),
        delay_ms=chance.pick((0.0, 5.0, 50.0)),
    )


def _fault(chance: Chance, nodes: int) -> Fault:
    at = chance.between(SAFETY_FROM_S, SAFETY_TO_S - 12.0)
    lasts = chance.between(0.2, 12.0)
    many = 1 + chance.below(max(1, nodes // 3))
    silent = chance.unit() < 0.5
    every = chance.between(1.0, 6.0)
    drawn: tuple[Fault, ...] = (
        Kill(
            at_s=at,
            back_after_s=lasts,
            count=many,
            silent=silent,
            disk_lost=chance.unit() < 0.2,
        ),
        Hang(at_s=at, for_s=lasts, count=many, clock_stops=silent),
        Leave(at_s=at, back_after_s=lasts + 2.0),
        Churn(from_s=at, to_s=at + lasts, every_s=every, down_s=chance.between(0.1, 4.0)),
        Partition(at_s=at, for_s=lasts, shares=(1.0, chance.between(0.2, 1.0))),
        OneWay(at_s=at, for_s=lasts, count=many),
        Cut(at_s=at, for_s=lasts, count=many, from_count=many, one_way=silent),
        Clog(at_s=at, for_s=lasts, count=many, bandwidth_mbit=chance.pick((0.05, 0.5))),
        Rough(at_s=at, for_s=lasts, count=many, loss=chance.unit(), delay_ms=100.0),
        Flap(from_s=at, to_s=at + lasts, every_s=every, down_s=chance.between(0.1, 4.0)),
        ClockFault(at_s=at, jump_s=lasts * 100, drift_ppm=chance.between(-5e4, 5e4)),
        Busy(at_s=at, for_s=lasts, count=many),
        SlowDisk(at_s=at, for_s=lasts, count=many),
        EngineCrash(at_s=at, for_s=chance.between(0.2, 4.0), count=many),
        NatRestart(at_s=at, count=many),
    )
    return chance.pick(drawn)


def _groups(chance: Chance) -> tuple[Group, ...]:
    """Servers, which may relay, and one or two groups that may be behind NAT."""
    servers = Group(
        name="servers",
        share=2.0,
        region=chance.pick(("europe", "us-east", "japan")),
        relay=chance.unit() < 0.7,
    )
    names = ("edge", "homes") if chance.unit() < 0.5 else ("edge",)
    return (servers, *(_edge(chance, name) for name in names))


def _edge(chance: Chance, name: str) -> Group:
    return Group(
        name=name,
        share=chance.between(0.2, 2.0),
        region=chance.pick(("", "india", "brazil")),
        nat=chance.pick(("none", "shared", "own")),
        symmetric=chance.unit() < 0.4,
        latency_ms=chance.between(1.0, 40.0),
        bandwidth_mbit=chance.pick((2.0, 20.0)),
    )


def _one_partition(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Partitions may not overlap: the first is kept."""
    kept: list[Fault] = []
    for fault in faults:
        if not isinstance(fault, Partition) or not any(isinstance(k, Partition) for k in kept):
            kept.append(fault)
    return tuple(kept)


# --- running ------------------------------------------------------------------------------------
def judge(seed: int, scenario: Scenario) -> Verdict:
    """Run one scenario."""
    report = run(scenario, seed=seed)
    return Verdict(
        seed,
        report.ok,
        scenario,
        report.trace,
        report.events,
        report.wall_s,
        tuple(f"{v.checker}: at {v.at_ms / 1000:.3f} s: {v.detail}" for v in report.violations),
        tuple(dict.fromkeys(type(fault).__name__ for fault in scenario.faults)),
    )


def judge_seed(seed: int, nodes: int | None) -> Verdict:
    """Run what a seed draws."""
    return judge(seed, drawn(seed, nodes=nodes))


def swarm(
    seeds: Iterable[int],
    *,
    nodes: int | None = None,
    jobs: int = 1,
    each: Callable[[int, int | None], Verdict] = judge_seed,
) -> Iterator[Verdict]:
    """Run what each seed draws, `jobs` at a time; verdicts come as they are ready."""
    if jobs == 1:
        for seed in seeds:
            yield each(seed, nodes)
        return
    left = iter(seeds)
    context = get_context("spawn")  # the caller may have threads
    with ProcessPoolExecutor(jobs, context, initializer=_leave_signals) as pool:
        waiting: set[Future[Verdict]] = set()
        try:
            while True:
                new = islice(left, 2 * jobs - len(waiting))
                waiting.update(pool.submit(each, seed, nodes) for seed in new)
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from sorted((future.result() for future in done), key=lambda v: v.seed)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _leave_signals() -> None:
    """Ctrl-C is for the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
