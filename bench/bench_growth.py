"""A mesh too large for a link between every two, simulated: what it costs, and how soon it knows.

`python -m bench growth` measures 200, 1,000 and 5,000 nodes; `python -m bench.bench_growth 1000
WAN` one mesh, and prints. Every node is idle, times are virtual, bytes are those of encoded
messages with the overhead that the simulator adds to each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from time import perf_counter

from bench.bench_mesh import NO_BOUND, STRIKES, end
from bench.table import Row
from bench.turns import say
from bench.worlds import PLACES, Work, side_by_side, within, words
from meshslm.core.events import HostingChanged
from meshslm.core.growth import Growth
from meshslm.core.node import NodeCore
from meshslm.core.rendezvous import shares
from meshslm.ids import NodeId
from meshslm.sim.fault_kinds import Busy
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation, rare_collections
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.standing import standing
from meshslm.sim.stopwatch import until
from meshslm.wire.messages import Hardware

SEED = 7
SIZES = {200: 1.0, 1_000: 3.0, 5_000: 6.0}
"""Nodes, and the minutes that it takes to look at them."""
STANDING = 5_000
"""So many are looked at as a mesh that has stood for long: their start would take an hour."""
SETTLE_S = 60
"""From the start until links of the first seconds are closed."""
LATEST_S = 180
TRAFFIC_S = 30
LOSS, BUSY_SHARE, WRONGED_S = 0.05, 0.1, 120
BYTES, CHANGE_MS = 4_096, 5_000


def measure() -> list[Row]:
    """All sizes in one room and over three continents; the smallest in trouble too."""
    works = [
        Work(f"{nodes:,} nodes, {where}", measured, (nodes, where), minutes)
        for nodes, minutes in SIZES.items()
        for where in PLACES
    ]
    works.append(Work("200 nodes with loss", wronged, (200, LOSS, 0.0), 1.0))
    works.append(Work("200 nodes, some of them busy", wronged, (200, 0.0, BUSY_SHARE), 1.0))
    return [row for rows in side_by_side(works) for row in rows]


def measured(nodes: int, where: str) -> list[Row]:
    """What one mesh costs and knows."""
    with rare_collections():
        begun = perf_counter()
        rows = []
        for row in _looked(nodes, where):
            rows.append(row)
            say(f"{row.what}: {row.value} ({perf_counter() - begun:.0f} s)")
        return rows


def _looked(nodes: int, where: str) -> Iterator[Row]:
    begun = perf_counter()
    if nodes >= STANDING:
        mesh = standing(scenario_of(nodes, where), SEED)
    else:
        mesh = grown(nodes, where)
        yield Row(
            what=f"{nodes:,} nodes, {where}: all started within 2 s know each other",
            value=f"after {mesh.views.history[-1].took_ms or 0:,.0f} ms",
            against=f"simulated in {perf_counter() - begun:.0f} s of real time",
        )
    yield _traffic(mesh, nodes, where)
    yield _change(mesh, nodes, where)
    for place, (name, strike) in enumerate(STRIKES.items()):
        victim = mesh.world.nodes[-1 - place]
        strike(mesh.world, victim)
        timing = until(mesh, victim, partial(_gave_up, victim.id))
        end(mesh.world, victim)
        what = f"{nodes:,} nodes, {where}: one is gone for the others after its {name}"
        yield Row(what=what, value=words(timing))


def _gave_up(victim: NodeId, node: SimNode) -> bool:
    return victim not in growth_of(node).members


def growth_of(node: SimNode) -> Growth:
    """What a node keeps of a large mesh."""
    assert isinstance(node.core, NodeCore)
    return node.core.growth


def scenario_of(nodes: int, where: str, loss: float = 0.0) -> Scenario:
    """An idle mesh."""
    return Scenario(
        name="growth",
        nodes=nodes,
        groups=PLACES[where],
        workload=Workload(tasks_per_second=0.0),
        network=Network(loss=loss),
        checks=Checks(invariants_every=1024),
    )


def grown(nodes: int, where: str, loss: float = 0.0, seed: int = SEED) -> Simulation:
    """A mesh that has come together from nothing."""
    mesh = Simulation(scenario_of(nodes, where, loss), seed, NodeCore)
    mesh.begin()
    mesh.world.run_until(SETTLE_S * SECOND)
    while not mesh.views.converged and mesh.world.now < LATEST_S * SECOND:
        mesh.world.run_until(mesh.world.now + SECOND)
    if not mesh.views.converged:
        raise RuntimeError(f"{nodes} nodes, {where}: they do not know each other")
    return mesh


def _traffic(mesh: Simulation, nodes: int, where: str) -> Row:
    world = mesh.world
    sent, messages = [n.sent_bytes for n in world.nodes], sum(n.sent_messages for n in world.nodes)
    events, begun = world.events, perf_counter()
    world.run_until(world.now + TRAFFIC_S * SECOND)
    took = perf_counter() - begun
    spent = [(n.sent_bytes - b) / TRAFFIC_S for n, b in zip(world.nodes, sent, strict=True)]
    busy = _coordinators(growth_of(world.nodes[0]))
    coordinating = [s for n, s in zip(world.nodes, spent, strict=True) if n.id in busy]
    others = sorted(s for n, s in zip(world.nodes, spent, strict=True) if n.id not in busy)
    each = (sum(n.sent_messages for n in world.nodes) - messages) / nodes / TRAFFIC_S
    most = max(others)
    return Row(
        what=f"{nodes:,} idle nodes, {where}: sent by an ordinary node in a second",
        value=f"{sum(others) / len(others):,.0f} bytes (the busiest {most:,.0f}), "
        f"{len(coordinating)} coordinators {sum(coordinating) / len(coordinating):,.0f} (the "
        f"busiest {max(coordinating):,.0f}); {each:.1f} messages",
        against=f"simulated {TRAFFIC_S / took:.1f} times as fast as real, "
        f"{(world.events - events) / took:,.0f} events/s",
        target=f"at most {BYTES:,} bytes",
        reached=most <= BYTES,
    )


def _coordinators(growth: Growth) -> dict[NodeId, None]:
    """Of all shares of all topics."""
    found: dict[NodeId, None] = {}
    for topic in growth.members.topics:
        parts = shares(len(growth.members.providers(topic)))
        for share in range(parts):
            found.update(dict.fromkeys(growth.coordinators.of(topic, share, parts)))
    return found


def _change(mesh: Simulation, nodes: int, where: str) -> Row:
    subject = mesh.world.nodes[nodes // 3]
    mesh.world.tell(subject, HostingChanged((), Hardware(cores=3)))

    def knows(node: SimNode) -> bool:
        fact = growth_of(node).members.get(subject.id)
        return fact is not None and fact.record.services == ()

    timing = until(mesh, subject, knows)
    return Row(
        what=f"{nodes:,} nodes, {where}: a changed record is known",
        value=words(timing),
        target=f"to 99 of 100 in {CHANGE_MS / 1000:g} s",
        reached=within(timing, NO_BOUND, CHANGE_MS, NO_BOUND),
    )


def wronged(nodes: int, loss: float, busy: float) -> list[Row]:
    """Who is said to be gone while messages get lost, or while some have too much to do."""
    mesh = grown(nodes, "LAN", loss)
    world = mesh.world
    if busy:
        at_s = world.now / SECOND + 0.1
        mesh.faults.schedule((Busy(at_s=at_s, for_s=WRONGED_S, count=int(busy * nodes)),))
    before, fewest = _lives(world.nodes), nodes
    for _ in range(WRONGED_S):
        world.run_until(world.now + SECOND)
        fewest = min(fewest, *(len(growth_of(node).members) for node in world.nodes))
    hours = nodes * WRONGED_S / 3600
    trouble = f"{loss:.0%} loss" if loss else f"{int(busy * nodes)} of them at full CPU"
    row = Row(
        what=f"{nodes} nodes, LAN, {trouble}, {hours:.1f} hours of nodes",
        value=f"{(_lives(world.nodes) - before) / hours:.2f} false accusations a node and hour "
        f"that their subject refuted; every node always took at least {fewest} for alive",
        target="no false death",
        reached=fewest == nodes,
    )
    return [row]


def _lives(nodes: tuple[SimNode, ...]) -> int:
    """How often nodes have refuted that they are gone."""
    return sum(fact.record.life for fact in growth_of(nodes[0]).members.all())


if __name__ == "__main__":
    for shown in measured(int(sys.argv[1]), *(sys.argv[2:] or ["LAN"])):
        print(f"{shown.what}: {shown.value} {shown.against}", flush=True)
