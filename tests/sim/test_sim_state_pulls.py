"""Much that a node lacks behind a slow wire: it comes bit by bit, and no link is cut for it."""

from __future__ import annotations

from random import Random

import pytest

from meshslm import limits
from meshslm.sim.node import SECOND, End
from meshslm.sim.scenario import Network
from meshslm.sim.state_run import StateRun, core_of

DOCUMENTS = 40
PIECES = 4
PIECE = 50 * limits.KIB
BIG = "memory/0-big"


def filled(network: Network, *, seed: int = 1, big: int = 0) -> StateRun:
    """A node with forty documents of 200 KiB that nothing makes smaller, and one that is off."""
    run = StateRun(2, seed, network, bootstrap=1)
    draw = Random(seed)
    run.world.boot(run.nodes[0])
    run.run(1.0)
    for number in range(DOCUMENTS):
        for piece in range(PIECES):
            run.write(run.nodes[0], f"memory/n{number}", f"k{piece}", draw.randbytes(PIECE))
    for piece in range(big):
        run.write(run.nodes[0], BIG, f"k{piece}", draw.randbytes(PIECE))
    run.run(1.0)
    return run


def cuts(run: StateRun, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why links are closed from now on."""
    found: list[str] = []
    close = run.world.network.close

    def noted(end: End, reason: str) -> None:
        found.append(reason)
        close(end, reason)

    monkeypatch.setattr(run.world.network, "close", noted)
    return found


def come(run: StateRun) -> dict[str, int]:
    """Entries that the second node has of each document."""
    documents = core_of(run.nodes[1]).documents
    return {found.document: found.keys for found in documents.statistics()}


@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_forty_documents_come_over_a_slow_wire_and_no_link_is_cut(
    monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    run = filled(Network(bandwidth_mbit=2.0, loss=loss))
    closed = cuts(run, monkeypatch)
    sent = run.nodes[0].sent_bytes
    run.world.boot(run.nodes[1])
    size = DOCUMENTS * PIECES * PIECE
    wire_s = size * 8 / 2e6
    assert run.until_agreed(2 * wire_s) is not None
    assert not run.judge()
    assert closed == []
    assert run.nodes[0].sent_bytes - sent < 1.5 * size, "little is sent twice"


def test_the_lane_is_never_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits behind a wire so slow that every answer seems late for long."""
    run = filled(Network(bandwidth_mbit=0.5))
    closed = cuts(run, monkeypatch)
    run.world.boot(run.nodes[1])
    most, line = 0.0, run.nodes[0].line
    for _ in range(40):
        run.run(0.5)
        ahead = max(run.nodes[0].uplink) - run.world.now
        most = max(most, ahead / line.us_per_byte)
    assert closed == []
    assert limits.LANE_QUEUE_BYTES / 8 < most < limits.LANE_QUEUE_BYTES * 3 / 4
    assert run.until_agreed(4 * DOCUMENTS * PIECES * PIECE * 8 / 0.5e6) is not None
    assert closed == []


def test_a_large_document_keeps_no_small_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    run = filled(Network(bandwidth_mbit=8.0), big=160)
    closed = cuts(run, monkeypatch)
    run.world.boot(run.nodes[1])
    small = 0
    until = run.world.now + 60 * SECOND
    while small < DOCUMENTS and run.world.now < until:
        run.run(0.1)
        small = sum(keys == PIECES for name, keys in come(run).items() if name != BIG)
    assert small == DOCUMENTS
    assert come(run).get(BIG, 0) < 80, "half of it at most went before all others"
    assert run.until_agreed(60.0) is not None
    assert closed == []
