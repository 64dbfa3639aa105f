"""Days, the registry and decisions in simulated meshes with documents: replicas agree."""

from __future__ import annotations

import pytest

from meshslm.core.consensus.events import DecisionMade
from meshslm.core.registry import REGISTRY, members
from meshslm.sim.scenario import Network
from meshslm.sim.state_life import LivingRun
from meshslm.sim.state_run import core_of
from meshslm.state.forgotten import as_text
from meshslm.wire.consensus import Command

DOC = "memory/notes"


def until(run: LivingRun, fact: object, most_s: float = 120.0) -> float:
    began = run.world.now
    assert callable(fact)
    while not fact():
        assert not run.world.stopped, run.judge()
        assert run.world.now - began < most_s * 1e6, run.judge()
        run.run(0.25)
    return (run.world.now - began) / 1e6


def agreed(run: LivingRun, most_s: float = 120.0) -> None:
    """All replicas are alike, and nothing that was acknowledged is lost."""
    assert run.until_agreed(most_s) is not None, run.judge()
    assert not run.judge()


def registered(run: LivingRun) -> bool:
    """Whether every node knows of every node."""
    now = run.unix_ms
    return all(
        len(list(members(core_of(node).documents, now))) == len(run.nodes)
        for node in run.nodes
        if node.up
    )


def days_are_sealed(run: LivingRun, cut: bool) -> None:
    """Days that are over are sealed by who wrote in them, also where the mesh is in two halves."""
    half = len(run.nodes) // 2
    ledger = f"ledger/{run.today}"
    users = run.nodes[:: max(1, len(run.nodes) // 20)]
    until(run, lambda: registered(run))
    for node in users:
        run.use(node, 1)
    run.run(1.0)
    if cut:
        run.world.network.split([list(range(half)), list(range(half, len(run.nodes)))])
        run.run(5.0)
    run.days_pass(2)

    def sealed() -> bool:
        found = [core_of(n).documents.holdings.find(ledger) for n in run.nodes]
        return all(d is not None and all(p.sealed for p in d.parts.values()) for d in found)

    run.run(12.0)
    assert sealed() is not cut, "each half has sealed its own parts, and heard of its own"
    for node in users:
        run.use(node, 2)
    run.run(1.0)
    run.world.network.heal()
    until(run, sealed)
    agreed(run)
    assert len(core_of(run.nodes[0]).documents.names("ledger/")) == 2


def a_year_later_it_is_dropped(run: LivingRun) -> None:
    """Nobody keeps the oldest ledger any more, and nobody is given it again."""
    ledger = core_of(run.nodes[0]).documents.names("ledger/")[0]
    run.days_pass(366)
    run.checker.excuse(ledger)

    def dropped() -> bool:
        return all(ledger not in core_of(n).documents.names() for n in run.nodes)

    until(run, dropped)
    run.run(20.0)
    assert dropped(), "nobody gives it to who has dropped it"
    agreed(run)


def test_days_are_sealed_and_dropped_in_a_mesh_that_is_cut() -> None:
    run = LivingRun(5, 1, Network(loss=0.02, reorder=0.1))
    run.start(3.0)
    days_are_sealed(run, cut=True)
    a_year_later_it_is_dropped(run)


def test_the_same_seed_gives_the_same_life() -> None:
    traces = []
    for _ in range(2):
        run = LivingRun(4, 7, coordinators=3)
        run.start(5.0)
        run.days_pass(3)
        run.run(10.0)
        traces.append(run.world.trace_hash)
    assert traces[0] == traces[1]


def voters(run: LivingRun) -> int:
    return sum(seat.votes for seat in core_of(run.nodes[0]).consensus.view().seats)


def gone_author_is_forgotten(run: LivingRun, author_index: int) -> None:
    """An author dies; half of the mesh hears late that it is given up; then it comes back."""
    size = len(run.nodes)
    victim = run.nodes[author_index]
    until(run, lambda: voters(run) == 3, 240.0)
    for node in run.nodes:
        run.write(node, DOC, f"of-{node.index}")
    run.run(3.0)
    agreed(run)
    run.kill(victim)
    run.checker.excuse(DOC, f"of-{victim.index}")
    run.world.network.split([[0, 1, 2], list(range(3, size))])
    run.run(10.0)
    documents = core_of(run.nodes[0]).documents
    last = documents.authors(DOC)[victim.id]
    made: list[DecisionMade] = []
    command = Command("generation", DOC, value=as_text({victim.id: last}))
    run.decide(run.nodes[1], command, made.append)
    until(run, lambda: made)
    assert made[0].code == "decided"

    def holds(index: int) -> bool:
        return victim.id in core_of(run.nodes[index]).documents.authors(DOC)

    until(run, lambda: not holds(0) and not holds(1))
    run.write(run.nodes[1], DOC, "meanwhile-1")
    run.write(run.nodes[3], DOC, "meanwhile-3")
    run.run(20.0)
    assert holds(3), "who cannot hear of it keeps it"
    run.world.network.heal()
    until(run, lambda: not any(holds(n.index) for n in run.nodes if n.up), 400.0)
    agreed(run, 200.0)

    run.world.boot(victim)
    until(run, lambda: not holds(author_index), 200.0)
    run.run(5.0)
    run.write(victim, DOC, "back-again")
    run.run(5.0)
    agreed(run, 200.0)
    assert core_of(run.nodes[0]).documents.read(DOC, "back-again") is not None
    assert core_of(run.nodes[0]).documents.read(DOC, f"of-{victim.index}") is None
    assert core_of(run.nodes[3]).documents.authors(DOC)[victim.id] > last


def test_an_author_that_is_gone_is_forgotten_across_a_partition() -> None:
    run = LivingRun(6, 0, Network(loss=0.01, reorder=0.05), coordinators=3)
    run.start(3.0)
    gone_author_is_forgotten(run, 4)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 22))
def test_authors_are_forgotten_in_many_worlds(seed: int) -> None:
    run = LivingRun(7, seed, Network(loss=0.03, duplicate=0.02, reorder=0.2), coordinators=3)
    run.start(3.0)
    gone_author_is_forgotten(run, 3 + seed % 4)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30, 42))
def test_days_pass_in_many_worlds(seed: int) -> None:
    run = LivingRun(6, seed, Network(loss=0.03, duplicate=0.02, reorder=0.2))
    run.start(3.0)
    days_are_sealed(run, cut=bool(seed % 3))
    a_year_later_it_is_dropped(run)


@pytest.mark.long
@pytest.mark.parametrize("nodes", [50, 200])
def test_large_meshes_live_through_days(nodes: int) -> None:
    run = LivingRun(nodes, 1, check_every=1024)
    run.start(10.0)
    assert REGISTRY in core_of(run.nodes[0]).documents.names()
    days_are_sealed(run, cut=True)
