"""A mesh too large for a link between every two, simulated: what it costs, and how soon it knows.

`python -m bench growth` measures 200 and 1,000 nodes; `python -m bench.bench_growth 5000` any other
number, and prints. Every node is idle, times are virtual, bytes are those of encoded messages with
the overhead that the simulator adds to each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from bench.table import Row
from meshslm.core.events import HostingChanged
from meshslm.core.growth import Growth
from meshslm.core.node import NodeCore
from meshslm.ids import NodeId
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation, rare_collections
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.stopwatch import Timing, until
from meshslm.sim.topology import Group
from meshslm.wire.messages import Hardware

SEED = 7
SIZES = (200, 1_000)
SETTLE_S = 60
"""From the start until links of the first seconds are closed."""
LATEST_S = 180
TRAFFIC_S = 30
LOSS, LOSS_S = 0.05, 60
WAN = (
    Group(name="a", region="us-east"),
    Group(name="b", region="europe"),
    Group(name="c", region="japan"),
)
BOUND_BYTES, BOUND_CHANGE_MS = 4_096, 5_000
STRIKES: dict[str, Callable[[Simulation, SimNode], None]] = {
    "kill": lambda mesh, node: mesh.world.kill(node),
    "hang": lambda mesh, node: mesh.world.hang(node),
    "power loss": lambda mesh, node: mesh.world.kill(node, silent=True),
}


def measure() -> list[Row]:
    """Both sizes on a LAN, the larger over three continents and with loss too."""
    rows = [row for nodes in SIZES for row in measured(nodes, "LAN")]
    return [*rows, *measured(SIZES[-1], "WAN"), _wronged(SIZES[0])]


def measured(nodes: int, where: str) -> Iterator[Row]:
    """What one mesh costs and knows."""
    with rare_collections():
        begun = perf_counter()
        mesh = _mesh(nodes, WAN if where == "WAN" else ())
        yield Row(
            what=f"{nodes} nodes, {where}: all started within 2 s know each other",
            value=f"after {mesh.views.history[-1].took_ms or 0:,.0f} ms"
            if mesh.views.history
            else f"not within {LATEST_S} s",
            reached=None,
            target=f"simulated in {perf_counter() - begun:.0f} s of real time",
        )
        yield _traffic(mesh, nodes, where)
        yield _change(mesh, nodes, where)
        for name, strike in STRIKES.items():
            victim = mesh.world.nodes[-1 - list(STRIKES).index(name)]
            strike(mesh, victim)
            timing = until(mesh, victim, partial(_gave_up, victim.id))
            what = f"{nodes} nodes, {where}: one is gone for the others after its {name}"
            yield Row(what=what, value=_words(timing))


def _gave_up(victim: NodeId, node: SimNode) -> bool:
    return victim not in growth_of(node).members


def growth_of(node: SimNode) -> Growth:
    """What a node keeps of a large mesh."""
    assert isinstance(node.core, NodeCore)
    return node.core.growth


def _mesh(nodes: int, groups: tuple[Group, ...], loss: float = 0.0) -> Simulation:
    scenario = Scenario(
        name="growth",
        nodes=nodes,
        groups=groups,
        workload=Workload(tasks_per_second=0.0),
        network=Network(loss=loss),
        checks=Checks(invariants_every=1024),
    )
    mesh = Simulation(scenario, SEED, NodeCore)
    mesh.begin()
    mesh.world.run_until(SETTLE_S * SECOND)
    while not mesh.views.converged and mesh.world.now < LATEST_S * SECOND:
        mesh.world.run_until(mesh.world.now + SECOND)
    return mesh


def _traffic(mesh: Simulation, nodes: int, where: str) -> Row:
    world = mesh.world
    sent, messages = [n.sent_bytes for n in world.nodes], sum(n.sent_messages for n in world.nodes)
    events, begun = world.events, perf_counter()
    world.run_until(world.now + TRAFFIC_S * SECOND)
    took = perf_counter() - begun
    grown = [(n.sent_bytes - b) / TRAFFIC_S for n, b in zip(world.nodes, sent, strict=True)]
    first = growth_of(world.nodes[0])
    busy = dict.fromkeys(c for topic in first.members.topics for c in first.coordinators.of(topic))
    coordinating = [g for n, g in zip(world.nodes, grown, strict=True) if n.id in busy]
    others = sorted(g for n, g in zip(world.nodes, grown, strict=True) if n.id not in busy)
    each = (sum(n.sent_messages for n in world.nodes) - messages) / nodes / TRAFFIC_S
    most = max(others)
    return Row(
        what=f"{nodes} idle nodes, {where}: sent by a node in a second",
        value=f"{sum(others) / len(others):,.0f} bytes (the busiest {most:,.0f}), coordinators "
        f"{sum(coordinating) / len(coordinating):,.0f}; {each:.1f} messages; simulated "
        f"{TRAFFIC_S / took:.1f} times as fast as real, {(world.events - events) / took:,.0f} "
        "events/s",
        target=f"at most {BOUND_BYTES:,} bytes",
        reached=most <= BOUND_BYTES,
    )


def _change(mesh: Simulation, nodes: int, where: str) -> Row:
    subject = mesh.world.nodes[nodes // 3]
    mesh.world.tell(subject, HostingChanged((), Hardware(cores=3)))

    def knows(node: SimNode) -> bool:
        fact = growth_of(node).members.get(subject.id)
        return fact is not None and fact.record.services == ()

    timing = until(mesh, subject, knows)
    return Row(
        what=f"{nodes} nodes, {where}: a changed record is known",
        value=_words(timing),
        target=f"to 99 of 100 in {BOUND_CHANGE_MS / 1000:g} s",
        reached=timing.most_ms is not None and timing.most_ms <= BOUND_CHANGE_MS,
    )


def _wronged(nodes: int) -> Row:
    mesh = _mesh(nodes, (), LOSS)
    end, fewest = mesh.world.now + LOSS_S * SECOND, nodes
    while mesh.world.now < end:
        mesh.world.run_until(mesh.world.now + SECOND)
        fewest = min(fewest, *(len(growth_of(node).members) for node in mesh.world.nodes))
    accused = sum(fact.record.life for fact in growth_of(mesh.world.nodes[0]).members.all())
    return Row(
        what=f"{nodes} nodes, {LOSS:.0%} loss, from their start until {LOSS_S} s after it",
        value=f"{accused} members had to refute that they are gone; in the last {LOSS_S} s every "
        f"node took at least {fewest} of {nodes} for alive",
        target="no false death",
        reached=fewest == nodes,
    )


def _words(timing: Timing) -> str:
    shown = [
        f"{t / 1000:.2f} s" if t is not None else "never"
        for t in (timing.first_ms, timing.most_ms, timing.all_ms)
    ]
    return f"by the first after {shown[0]}, 99 of 100 {shown[1]}, all {shown[2]}"


if __name__ == "__main__":
    for size in map(int, sys.argv[1:] or ["200"]):
        for row in measured(size, "LAN"):
            print(f"{row.what}: {row.value}", flush=True)
