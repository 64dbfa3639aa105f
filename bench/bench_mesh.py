"""The mesh as a whole, simulated: how soon it notices, whom it wrongs, and what it costs.

Every node is idle here, so that what is measured is the mesh alone. Times are virtual, bytes are
those of encoded messages with the overhead that the simulator adds to each.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

from bench.table import Row
from meshslm.core.events import Event, HostingChanged, Tell
from meshslm.core.node import NodeCore
from meshslm.ids import Instant
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.stopwatch import Timing, sees_alive, settled, until, until_dropped
from meshslm.sim.world import World
from meshslm.wire.messages import Hardware

SEED = 7
SIZES = (10, 50, 200)
"""The last beyond a link between every two; `bench_growth` goes on from there."""
TRAFFIC_S = 20
LOSS = 0.05
LOSS_S = 120
BOUND_FIRST_MS, BOUND_ALL_MS, BOUND_CHANGE_MS = 3_000, 5_000, 2_000
BOUND_AT = 50
"""Nodes for which these bounds hold."""

STRIKES: dict[str, Callable[[World, SimNode], None]] = {
    "kill": lambda world, node: world.kill(node),
    "hang": lambda world, node: world.hang(node),
    "power loss": lambda world, node: world.kill(node, silent=True),
    "one-way cut": lambda world, node: world.network.mute(node.index, on=True),
}


class Telling(NodeCore):
    """Counts suspicions that were refuted and peers that were given up."""

    gone: ClassVar[int] = 0
    refuted: ClassVar[int] = 0

    def handle(self, event: Event, now: Instant) -> list[Any]:
        """See `NodeCore`."""
        effects = super().handle(event, now)
        for effect in effects:
            if isinstance(effect, Tell):
                Telling.gone += effect.topic == "peer.gone"
                Telling.refuted += effect.topic == "peer.refuted"
        return effects


def measure() -> list[Row]:
    """All of it, size by size."""
    rows: list[Row] = []
    for nodes in SIZES:
        mesh = _mesh(nodes)
        rows.append(_traffic(mesh, nodes))
        rows.append(_change(mesh, nodes))
        rows.extend(_drops(mesh, nodes))
    rows.append(_wronged(50))
    return rows


def _mesh(nodes: int, loss: float = 0.0) -> Simulation:
    scenario = Scenario(
        name="mesh",
        nodes=nodes,
        workload=Workload(tasks_per_second=0.0),
        network=Network(loss=loss),
        checks=Checks(invariants_every=1024),
    )
    return settled(scenario, SEED, make_core=Telling)


def _traffic(mesh: Simulation, nodes: int) -> Row:
    world = mesh.world
    messages = sum(node.sent_messages for node in world.nodes)
    sent = [node.sent_bytes for node in world.nodes]
    events, begun = world.events, perf_counter()
    world.run_until(world.now + TRAFFIC_S * SECOND)
    took_s = perf_counter() - begun
    messages = sum(node.sent_messages for node in world.nodes) - messages
    grown = [node.sent_bytes - before for node, before in zip(world.nodes, sent, strict=True)]
    share, most = sum(grown) / nodes / TRAFFIC_S, max(grown) / TRAFFIC_S
    return Row(
        what=f"{nodes} idle nodes: sent by a node in a second",
        value=f"{share:,.0f} bytes (the busiest {most:,.0f}), {messages / nodes / TRAFFIC_S:.0f} "
        f"messages; simulated {TRAFFIC_S / took_s:.1f} times as fast as real, "
        f"{(world.events - events) / took_s:,.0f} events/s",
    )


def _change(mesh: Simulation, nodes: int) -> Row:
    world, subject = mesh.world, mesh.world.nodes[nodes // 3]
    hosted = mesh.engines.hosted(subject)[:0]
    world.tell(subject, HostingChanged(hosted, Hardware(cores=3)))

    def knows(node: SimNode) -> bool:
        assert node.core is not None, "only living nodes are asked"
        views = node.core.peers(node.clock.read(world.now))
        return any(view.node == subject.id and view.specialists == hosted for view in views)

    timing = until(mesh, subject, knows)
    bound = BOUND_CHANGE_MS if nodes == BOUND_AT else None
    return Row(
        what=f"{nodes} nodes: a changed capability is known",
        value=_words(timing),
        target=f"to 99 of 100 in {bound / 1000:g} s" if bound else "",
        reached=timing.most_ms is not None and timing.most_ms <= bound if bound else None,
    )


def _drops(mesh: Simulation, nodes: int) -> list[Row]:
    rows = []
    for place, (name, strike) in enumerate(STRIKES.items()):
        victim = mesh.world.nodes[nodes - 1 - place]
        assert all(sees_alive(mesh, n, victim) for n in mesh.world.nodes[:2])
        strike(mesh.world, victim)
        timing = until_dropped(mesh, victim)
        reached = None
        if nodes == BOUND_AT:
            first, every = timing.first_ms, timing.all_ms
            reached = first is not None and every is not None
            reached = reached and (first or 0) <= BOUND_FIRST_MS and (every or 0) <= BOUND_ALL_MS
        rows.append(
            Row(
                what=f"{nodes} nodes: one is dropped after its {name}",
                value=_words(timing),
                target="first 3 s, all 5 s" if nodes == BOUND_AT else "",
                reached=reached,
            )
        )
    return rows


def _wronged(nodes: int) -> Row:
    mesh = _mesh(nodes, LOSS)
    Telling.gone = Telling.refuted = 0
    mesh.world.run_until(mesh.world.now + LOSS_S * SECOND)
    hours = nodes * LOSS_S / 3600
    return Row(
        what=f"{nodes} nodes, {LOSS:.0%} loss, {LOSS_S} virtual seconds",
        value=f"{Telling.refuted / hours:.2f} false suspicions a node and hour that their "
        f"subject refuted, {Telling.gone} false deaths",
        target="no false death",
        reached=Telling.gone == 0,
    )


def _words(timing: Timing) -> str:
    shown = [
        f"{t / 1000:.2f} s" if t is not None else "never"
        for t in (timing.first_ms, timing.most_ms, timing.all_ms)
    ]
    return f"by the first after {shown[0]}, 99 of 100 {shown[1]}, all {shown[2]}"
