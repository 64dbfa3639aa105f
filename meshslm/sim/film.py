"""What a run looked like over time: one sample each virtual second, to be drawn.

Rules:
- It looks from outside and changes nothing: a filmed run has the trace of one that is not.
- Bounded: of a long run every n-th second is kept, and of a large mesh the first nodes are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshslm.ids import NodeId
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.run import Simulation

FRAMES: Final = 600
"""Samples that are kept; more cannot be told apart on a screen."""

DRAWN_NODES: Final = 150
"""Nodes whose links are kept: more would be a ball of wool."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment."""

    at_s: float
    living: int
    views: float
    """Share of the pairs of living nodes of which the one sees the other alive; 1: all."""
    tasks_open: int
    answered: int
    """Since the frame before."""
    first_token_ms: float | None
    """Median of tasks whose first token came since then."""
    kilobytes: float
    """Sent by all nodes since then, a second."""
    states: str
    """A letter for each drawn node: `a` there, `h` stopped, `d` dead, `l` leaving."""
    links: tuple[tuple[int, int], ...]
    """Between drawn nodes."""


class Film:
    """The frames of one run."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._every = max(1, int(simulation.scenario.seconds) // FRAMES)
        self._seconds = 0
        self._bytes = 0
        self._last_us = 0
        self.frames: list[Frame] = []
        self.names = tuple(node.name for node in simulation.world.nodes[:DRAWN_NODES])
        self.hostile = tuple(node.hostile for node in simulation.world.nodes[:DRAWN_NODES])

    def look(self) -> None:
        """Take a sample, if it is time; called once each virtual second."""
        self._seconds += 1
        if self._seconds % self._every == 0:
            self.frames.append(self._frame())

    def _frame(self) -> Frame:
        simulation = self._simulation
        world = simulation.world
        since, self._last_us = self._last_us, world.now
        sent = sum(node.sent_bytes for node in world.nodes)
        passed_s = (world.now - since) / SECOND
        rate = (sent - self._bytes) / 1000 / passed_s if passed_s else 0.0
        self._bytes = sent
        records = simulation.tasks.records.values()
        waits = sorted(
            r.first_chunk - r.arrived
            for r in records
            if r.first_chunk is not None and r.first_chunk > since
        )
        done = [r for r in records if r.outcome == "answered" and (r.ended or 0) > since]
        drawn = world.nodes[:DRAWN_NODES]
        return Frame(
            at_s=world.now / SECOND,
            living=sum(node.living for node in world.nodes),
            views=self._views(),
            tasks_open=simulation.tasks.open,
            answered=len(done),
            first_token_ms=waits[len(waits) // 2] / 1000 if waits else None,
            kilobytes=rate,
            states="".join(map(_letter, drawn)),
            links=_links(drawn),
        )

    def _views(self) -> float:
        world = self._simulation.world
        living = [node for node in world.nodes if node.living and not node.leaving]
        ids = dict.fromkeys(node.id for node in living)
        pairs = len(living) * (len(living) - 1)
        seen = 0
        for node in living:
            assert node.core is not None, "it lives"
            views = node.core.peers(node.clock.read(world.now))
            seen += sum(view.state == "alive" and view.node in ids for view in views)
        return seen / pairs if pairs else 1.0


def _letter(node: SimNode) -> str:
    if not node.up:
        return "d"
    return "h" if node.hung else "l" if node.leaving else "a"


def _links(drawn: tuple[SimNode, ...]) -> tuple[tuple[int, int], ...]:
    places: dict[NodeId, int] = {node.id: place for place, node in enumerate(drawn)}
    return tuple(
        (place, places[peer])
        for place, node in enumerate(drawn)
        for peer in node.ends
        if places.get(peer, -1) > place
    )
