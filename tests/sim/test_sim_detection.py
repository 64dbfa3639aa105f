"""Who is gone is noticed in seconds, and who is there is not taken for gone, by whole meshes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar

import pytest

from meshslm.core.events import Event, Tell
from meshslm.core.node import NodeCore
from meshslm.ids import Instant
from meshslm.sim.fault_kinds import Rough
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import run
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.stopwatch import settled, until_dropped
from meshslm.sim.world import World

IDLE = Workload(tasks_per_second=0.0)
SELDOM = Checks(invariants_every=64)
FIRST_MS, ALL_MS = 3_000, 5_000

Strike = Callable[[World, SimNode], None]
STRIKES: dict[str, Strike] = {
    "power loss": lambda world, node: world.kill(node, silent=True),
    "hang": lambda world, node: world.hang(node),
    "mute": lambda world, node: world.network.mute(node.index, on=True),
    "kill": lambda world, node: world.kill(node),
}


class Telling(NodeCore):
    """Writes down whom it gave up."""

    gone: ClassVar[list[str]] = []

    def handle(self, event: Event, now: Instant) -> list[Any]:
        effects = super().handle(event, now)
        Telling.gone += [
            e.detail for e in effects if isinstance(e, Tell) and e.topic == "peer.gone"
        ]
        return effects


def false_deaths(nodes: int, loss: float, seconds: int, seed: int) -> list[str]:
    """Who was given up in a mesh in which nothing happens but loss, once it had come together."""
    scenario = Scenario(
        name="lossy", nodes=nodes, workload=IDLE, network=Network(loss=loss), checks=SELDOM
    )
    simulation = settled(scenario, seed, make_core=Telling)
    assert simulation.views.converged
    Telling.gone.clear()
    simulation.world.run_until(simulation.world.now + seconds * SECOND)
    assert simulation.violations.counts == {}
    return Telling.gone


def test_fifty_nodes_drop_one_that_is_gone_within_seconds() -> None:
    simulation = settled(Scenario(name="fifty", nodes=50, workload=IDLE, checks=SELDOM), seed=3)
    assert simulation.views.converged
    world = simulation.world
    for index, strike in zip((10, 20, 30, 40), STRIKES.values(), strict=True):
        victim = world.nodes[index]
        strike(world, victim)
        timing = until_dropped(simulation, victim)
        assert timing.first_ms is not None
        assert timing.all_ms is not None
        assert timing.first_ms <= FIRST_MS
        assert timing.all_ms <= ALL_MS
    assert simulation.violations.counts == {}


def test_a_peer_far_away_or_slow_is_not_given_up() -> None:
    scenario = Scenario(
        name="slow",
        nodes=5,
        seconds=40.0,
        quiet_s=5.0,
        workload=IDLE,
        network=Network(latency_ms=150.0, jitter_ms=40.0),
        faults=(Rough(at_s=15.0, for_s=15.0, loss=0.0, delay_ms=400.0),),
    )
    report = run(scenario, seed=1)
    assert report.ok, report.violations
    assert [entry.change for entry in report.convergence if entry.change == "false alarm"] == []


def test_loss_kills_nobody() -> None:
    assert false_deaths(nodes=16, loss=0.05, seconds=60, seed=1) == []


def test_much_loss_kills_nobody_in_a_minute() -> None:
    assert false_deaths(nodes=10, loss=0.2, seconds=60, seed=1) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 3, 5, 7, 9, 11])
def test_loss_kills_nobody_in_an_hour(seed: int) -> None:
    """Ten minutes each, as two meshes of five side by side: a minute or two of two cores."""
    with ProcessPoolExecutor(2) as pool:
        halves = [pool.submit(false_deaths, 50, 0.05, 300, seed + half) for half in (0, 1)]
        assert [half.result() for half in halves] == [[], []]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_the_strongest_loss_kills_nobody(seed: int) -> None:
    assert false_deaths(nodes=50, loss=0.2, seconds=60, seed=seed) == []
