"""Shared documents in simulated meshes: replicas agree, and nothing acknowledged is lost."""

from __future__ import annotations

import pytest

from meshslm.sim.scenario import Network
from meshslm.sim.state_run import StateRun

DOC = "memory/notes"


def scatter(run: StateRun, writes: int, seconds: float, keys: int = 20) -> None:
    """Nodes at random write to keys at random."""
    draw = run.chance.fork(f"writes/{run.world.now}")
    for _ in range(writes):
        living = [node for node in run.nodes if node.up and not node.hung]
        run.write(draw.pick(living), DOC, f"k{draw.below(keys)}")
        run.run(seconds / writes)


def heal_and_agree(run: StateRun, most_s: float = 60.0) -> float:
    found = run.until_agreed(most_s)
    assert found is not None, run.judge()
    assert not run.judge()
    return found


def test_the_same_seed_gives_the_same_run() -> None:
    traces = []
    for _ in range(2):
        run = StateRun(5, seed=3)
        run.start()
        scatter(run, 50, 5.0)
        traces.append(run.world.trace_hash)
    assert traces[0] == traces[1]


@pytest.mark.parametrize("seed", range(3))
def test_replicas_agree_after_a_partition_heals(seed: int) -> None:
    run = StateRun(5, seed, Network(loss=0.02, duplicate=0.02, reorder=0.1))
    run.start()
    scatter(run, 40, 4.0)
    run.world.network.split([[0, 1], [2, 3, 4]])
    scatter(run, 40, 8.0)
    run.world.network.heal()
    run.run(5.0)
    heal_and_agree(run, 90.0)
    assert run.checker.writes >= 80


@pytest.mark.parametrize("seed", range(3))
def test_no_acknowledged_write_is_lost_when_machines_lose_power(seed: int) -> None:
    run = StateRun(5, seed)
    run.start()
    draw = run.chance.fork("victims")
    for _ in range(8):
        scatter(run, 20, 0.2)
        victim = draw.pick(run.nodes)
        run.kill(victim)
        scatter(run, 10, 0.5)
        run.world.boot(victim)
        run.run(1.0)
    run.run(5.0)
    heal_and_agree(run)


def test_a_judge_sees_a_disk_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers before it is synced loses writes, and that is found."""
    run = StateRun(1, seed=1, bootstrap=1)
    run.start(1.0)
    disk = run.world.disk(run.nodes[0])
    monkeypatch.setattr(disk, "_take", lambda effect: None)
    scatter(run, 5, 0.5)
    run.kill(run.nodes[0])
    run.world.boot(run.nodes[0])
    run.run(1.0)
    assert run.judge()


@pytest.mark.long
@pytest.mark.parametrize("nodes", [50, 200])
def test_large_meshes_agree_after_a_partition_heals(nodes: int) -> None:
    run = StateRun(nodes, seed=1, check_every=1024)
    run.start(20.0)
    half = nodes // 2
    run.world.network.split([list(range(half)), list(range(half, nodes))])
    scatter(run, 40, 8.0)
    run.world.network.heal()
    heal_and_agree(run, 300.0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_no_acknowledged_write_is_lost_in_many_crashes(seed: int) -> None:
    run = StateRun(6, 1000 + seed, Network(loss=0.01, reorder=0.1))
    run.start()
    draw = run.chance.fork("victims")
    for _ in range(20):
        scatter(run, 20, 0.2)
        victims = draw.some(run.nodes, 1 + draw.below(3))
        for victim in victims:
            run.kill(victim)
        scatter(run, 5, 0.5)
        for victim in victims:
            run.world.boot(victim)
        run.run(2.0)
    run.run(5.0)
    heal_and_agree(run, 120.0)
