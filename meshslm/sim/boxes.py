"""Addresses as nodes behind NAT boxes have them: one inside, and one at which others see them.

Why so: production's core reads addresses. It compares hosts, and guesses that a box keeps a port
that is opened from inside. So where nodes find out how they are reached, they have addresses that
look like those of the world: nodes of the open network one each, boxes one each on their outer
side, and who is behind a box a private one.

Rules:
- Each node listens at a port of its own, so that two behind one box never ask for the same.
- An inner address is answered within its box only, and an outer one by no dial from outside: what
  opens a box is a dial from within it.
"""

from __future__ import annotations

from typing import Final

from meshslm.core.ways import host_of
from meshslm.sim.topology import Topology

_PORT: Final = 7_000
_CALLING: Final = 20_000
"""First port at which nodes listen, and first from which they dial."""

_PER_NET: Final = 250


class Boxes:
    """Who is behind which box, and at what address."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._outer = {self.outside(index): index for index in range(topology.nodes)}

    def place(self, node: int) -> str:
        """Where a node listens, as it says itself."""
        if self._topology.box(node) is None:
            return self.outside(node)
        return f"/ip4/10.{node // _PER_NET}.{node % _PER_NET}.2/tcp/{_PORT + node}"

    def outside(self, node: int) -> str:
        """Where those outside see the port at which a node listens, if its box keeps ports."""
        return f"{self._outer_host(node)}/tcp/{_PORT + node}"

    def seen(self, source: int, target: int) -> str:
        """Where a dial seems to come from at its target."""
        within = self._topology.together(source, target)
        host = host_of(self.place(source)) if within else self._outer_host(source)
        return f"{host}/tcp/{_CALLING + source}"

    def at_outside(self, address: str) -> int | None:
        """Who is meant by the address of a port that a box has opened, if anybody is."""
        return self._outer.get(address.partition("/p2p/")[0])

    def opens(self, source: int, target: int) -> bool:
        """Whether two boxes let both sides in that dial each other at the same time."""
        topology = self._topology
        return not (topology.symmetric(source) or topology.symmetric(target))

    def _outer_host(self, node: int) -> str:
        box = self._topology.box(node)
        if box is not None and box < 0:  # one of many
            return f"/ip4/198.19.{-box // _PER_NET}.{-box % _PER_NET}"
        return f"/ip4/198.18.{node // _PER_NET}.{node % _PER_NET + 1}"
