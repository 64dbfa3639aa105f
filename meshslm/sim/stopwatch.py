"""How long the mesh takes to notice something: a stopwatch for tests and benchmarks.

Rules:
- It asks the cores what they show an operator, `peers()`, and nothing else.
- Times are virtual milliseconds, to within `STEP_MS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm.core.node import NodeCore
from meshslm.ids import MICROSECONDS_PER_MS
from meshslm.sim.node import SECOND, MakeCore, SimNode
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Scenario

STEP_MS = 50
"""Between two looks at a mesh."""

SETTLE_S = 8
"""From the start of a mesh until links are no longer young."""

Holds = Callable[[SimNode], bool]


@dataclass(frozen=True, slots=True)
class Timing:
    """When a share of the nodes had noticed, in milliseconds; None where they never had."""

    first_ms: float | None
    most_ms: float | None
    """99 of 100."""
    all_ms: float | None


def settled(
    scenario: Scenario, seed: int, within_s: int = 60, make_core: MakeCore = NodeCore
) -> Simulation:
    """A mesh that has run until everybody knew everybody, or for so long."""
    simulation = Simulation(scenario, seed, make_core)
    simulation.begin()
    world = simulation.world
    world.run_until(SETTLE_S * SECOND)
    while not simulation.views.converged and world.now < within_s * SECOND:
        world.run_until(world.now + SECOND)
    return simulation


def sees_alive(simulation: Simulation, node: SimNode, other: SimNode) -> bool:
    """Whether one node takes another for alive."""
    assert node.core is not None, "only nodes that were booted are asked"
    views = node.core.peers(node.clock.read(simulation.world.now))
    return any(view.node == other.id and view.state == "alive" for view in views)


def until_dropped(simulation: Simulation, victim: SimNode, within_s: float = 30.0) -> Timing:
    """Let the mesh go on until nobody takes `victim` for alive, from now."""
    return until(simulation, victim, lambda n: not sees_alive(simulation, n, victim), within_s)


def until(simulation: Simulation, subject: SimNode, holds: Holds, within_s: float = 30.0) -> Timing:
    """Let the mesh go on until something holds at every living node but `subject`, from now.

    Who has come to it once is not asked again.
    """
    world = simulation.world
    begin = world.now
    waiting = [node for node in world.nodes if node.living and node is not subject]
    whole = len(waiting)
    first = most = None
    while world.now < begin + within_s * SECOND and not world.stopped:
        world.run_until(world.now + STEP_MS * MICROSECONDS_PER_MS)
        waiting = [node for node in waiting if node.living and not holds(node)]
        took_ms = (world.now - begin) / MICROSECONDS_PER_MS
        if first is None and len(waiting) < whole:
            first = took_ms
        if most is None and len(waiting) <= whole // 100:
            most = took_ms
        if not waiting:
            return Timing(first, most, took_ms)
    return Timing(first, most, None)
