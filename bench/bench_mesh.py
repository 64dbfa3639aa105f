"""The mesh as a whole, simulated: how soon it notices, whom it wrongs, and what it costs.

Every node is idle here, so that what is measured is the mesh alone. Times are virtual, bytes are
those of encoded messages with the overhead that the simulator adds to each. These are meshes with a
link between every two; `bench_growth` has the larger ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.table import Row
from bench.worlds import PLACES, Work, side_by_side, within, words, worst
from meshslm.core.events import Event, HostingChanged, Tell
from meshslm.core.node import NodeCore
from meshslm.ids import Instant
from meshslm.sim.fault_kinds import Busy
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation
from meshslm.sim.scenario import Checks, Network, Scenario, Workload
from meshslm.sim.stopwatch import Timing, sees_alive, settled, until, until_dropped
from meshslm.sim.world import World
from meshslm.wire.messages import Hardware

SEEDS = (7, 8, 9)
SIZES = (10, 50)
TRAFFIC_S = 20
LOSS, LOSS_S, LOSS_WORLDS = 0.05, 300, 12
"""Together an hour."""
BUSY_S, BUSY_WORLDS, BUSY_SHARE = 300, 2, 0.1
FIRST_MS, ALL_MS, CHANGE_MS = 3_000, 5_000, 2_000
BOUND_AT = 50
"""Nodes for which these bounds hold."""
NO_BOUND = float("inf")


def cut(world: World, node: SimNode) -> None:
    """Pull the cable of a node that goes on."""
    world.network.mute(node.index, on=True)
    world.network.deafen(node.index, on=True)


def end(world: World, node: SimNode) -> None:
    """Whoever was struck is not to be asked about the next."""
    if node.up:
        world.kill(node, silent=True)


STRIKES: dict[str, Callable[[World, SimNode], None]] = {
    "kill": lambda world, node: world.kill(node),
    "hang": lambda world, node: world.hang(node),
    "cut": cut,
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


@dataclass(frozen=True, slots=True)
class Looked:
    """What one world has shown."""

    sent: tuple[float, ...]
    """Bytes a second, by node."""
    messages: float
    """Of a node in a second."""
    change: Timing
    drops: dict[str, Timing]


@dataclass(frozen=True, slots=True)
class Wronged:
    """What one world in trouble has shown."""

    hours: float
    """Of nodes."""
    refuted: int
    gone: int


def measure() -> list[Row]:
    """All of it."""
    sizes = [(nodes, where) for nodes in SIZES for where in PLACES]
    works = [
        Work(f"{nodes} nodes, {where}, seed {seed}", look, (nodes, where, seed), nodes / 50)
        for nodes, where in sizes
        for seed in SEEDS
    ]
    works += [
        Work(f"loss, part {part + 1}", wronged, (50, LOSS, 0.0, LOSS_S, part), 2.0)
        for part in range(LOSS_WORLDS)
    ]
    works += [
        Work(f"busy nodes, part {part + 1}", wronged, (50, 0.0, BUSY_SHARE, BUSY_S, part), 2.0)
        for part in range(BUSY_WORLDS)
    ]
    results = side_by_side(works)
    rows: list[Row] = []
    for nodes, where in sizes:
        looked, results = results[: len(SEEDS)], results[len(SEEDS) :]
        rows.extend(_rows(nodes, where, looked))
    lossy, busy = results[:LOSS_WORLDS], results[LOSS_WORLDS:]
    rows.append(_wronged(f"50 nodes, LAN, {LOSS:.0%} loss", lossy, "no false death in an hour"))
    rows.append(_wronged("50 nodes, LAN, five of them at full CPU", busy, "no false death"))
    return rows


def mesh_of(nodes: int, where: str, seed: int, loss: float = 0.0) -> Simulation:
    """One that has come together."""
    scenario = Scenario(
        name="mesh",
        nodes=nodes,
        groups=PLACES[where],
        workload=Workload(tasks_per_second=0.0),
        network=Network(loss=loss),
        checks=Checks(invariants_every=1024),
    )
    mesh = settled(scenario, seed, make_core=Telling)
    if not mesh.views.converged:
        raise RuntimeError(f"{nodes} nodes, {where}, seed {seed}: they do not know each other")
    return mesh


def look(nodes: int, where: str, seed: int) -> Looked:
    """Let a mesh idle, change something in it, and take some of it away."""
    mesh = mesh_of(nodes, where, seed)
    sent, messages = _traffic(mesh)
    change = _change(mesh)
    drops = {}
    for place, (name, strike) in enumerate(STRIKES.items()):
        victim = mesh.world.nodes[nodes - 1 - place]
        assert all(sees_alive(mesh, n, victim) for n in mesh.world.nodes[:2])
        strike(mesh.world, victim)
        drops[name] = until_dropped(mesh, victim)
        end(mesh.world, victim)
    return Looked(sent, messages, change, drops)


def _traffic(mesh: Simulation) -> tuple[tuple[float, ...], float]:
    world = mesh.world
    messages = sum(node.sent_messages for node in world.nodes)
    before = [node.sent_bytes for node in world.nodes]
    world.run_until(world.now + TRAFFIC_S * SECOND)
    messages = sum(node.sent_messages for node in world.nodes) - messages
    sent = [(n.sent_bytes - b) / TRAFFIC_S for n, b in zip(world.nodes, before, strict=True)]
    return tuple(sent), messages / len(world.nodes) / TRAFFIC_S


def _change(mesh: Simulation) -> Timing:
    world, subject = mesh.world, mesh.world.nodes[len(mesh.world.nodes) // 3]
    hosted = mesh.engines.hosted(subject)[:0]
    world.tell(subject, HostingChanged(hosted, Hardware(cores=3)))

    def knows(node: SimNode) -> bool:
        assert node.core is not None, "only living nodes are asked"
        views = node.core.peers(node.clock.read(world.now))
        return any(view.node == subject.id and view.specialists == hosted for view in views)

    return until(mesh, subject, knows)


def wronged(nodes: int, loss: float, busy: float, seconds: int, part: int) -> Wronged:
    """Let a mesh idle while messages get lost, or while some nodes have too much to do."""
    mesh = mesh_of(nodes, "LAN", SEEDS[0] + part, loss)
    if busy:
        now_s = mesh.world.now / SECOND
        mesh.faults.schedule((Busy(at_s=now_s + 0.1, for_s=seconds, count=int(busy * nodes)),))
    Telling.gone = Telling.refuted = 0
    mesh.world.run_until(mesh.world.now + seconds * SECOND)
    return Wronged(nodes * seconds / 3600, Telling.refuted, Telling.gone)


def _rows(nodes: int, where: str, looked: Sequence[Looked]) -> list[Row]:
    """Of several worlds of one kind: the mean of what they cost, the worst of their times."""
    sent = [share for one in looked for share in one.sent]
    messages = sum(one.messages for one in looked) / len(looked)
    bound = nodes == BOUND_AT
    change = worst([one.change for one in looked])
    rows = [
        Row(
            what=f"{nodes} idle nodes, {where}: sent by a node in a second",
            value=f"{sum(sent) / len(sent):,.0f} bytes (the busiest {max(sent):,.0f}), "
            f"{messages:.0f} messages",
        ),
        Row(
            what=f"{nodes} nodes, {where}: a changed capability is known, worst of {len(looked)}",
            value=words(change),
            target=f"to 99 of 100 in {CHANGE_MS / 1000:g} s" if bound else "",
            reached=within(change, NO_BOUND, CHANGE_MS, NO_BOUND) if bound else None,
        ),
    ]
    for name in STRIKES:
        drop = worst([one.drops[name] for one in looked])
        rows.append(
            Row(
                what=f"{nodes} nodes, {where}: one is dropped after its {name}, "
                f"worst of {len(looked)}",
                value=words(drop),
                target="first 3 s, all 5 s" if bound else "",
                reached=within(drop, FIRST_MS, ALL_MS, ALL_MS) if bound else None,
            )
        )
    return rows


def _wronged(what: str, worlds: Sequence[Wronged], target: str) -> Row:
    hours = sum(world.hours for world in worlds)
    refuted, gone = sum(w.refuted for w in worlds), sum(w.gone for w in worlds)
    return Row(
        what=f"{what}, {hours:.0f} hours of nodes",
        value=f"{refuted / hours:.2f} false suspicions a node and hour that their subject "
        f"refuted, {gone} false deaths",
        target=target,
        reached=gone == 0,
    )
