"""How simulated nodes behind NAT boxes are reached: trial dials, relays, boxes opened from inside.

Stands for the adapters' half of it. Whether a node counts as reachable, where it reserves places
and when a direct link is tried for is decided by production's core, from its own events.

Rules:
- A trial dial finds what a dial would, and links nobody.
- Two boxes let both sides in that dial each other at nearly the same time, unless one of them gives
  each connection another port.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshslm.core.dialling import peer_of
from meshslm.core.reach_events import DialTried, OfferRelay, PunchTo, Reserve, TryDial
from meshslm.sim.boxes import Boxes
from meshslm.sim.node import SimNode
from meshslm.sim.relays import PATIENCE_US, Relays
from meshslm.sim.topology import Topology

if TYPE_CHECKING:
    from meshslm.sim.network import Network
    from meshslm.sim.world import World

TRIAL_ROUND_TRIPS = 3
"""TCP, multistream and Noise."""


class SimReach:
    """What nodes of a world do to reach each other through boxes."""

    def __init__(self, world: World, network: Network, topology: Topology) -> None:
        self._world = world
        self._network = network
        self._topology = topology
        self.boxes = Boxes(topology)
        self.relays = Relays(world, network)
        self._opened: dict[tuple[int, int], int] = {}
        """Until when the box of a node lets another in, which that node has dialled."""

    def performers(self) -> dict[type, Callable[[SimNode, Any], None]]:
        """What brings about the core's effects."""
        return {
            TryDial: self._try_dial,
            Reserve: self.relays.reserve,
            OfferRelay: lambda _node, _effect: None,  # the core says who may use it, when asked
            PunchTo: self._punch,
        }

    def setting(self, node: SimNode) -> str:
        """`link.relay` of a node."""
        return "on" if self._topology.relaying(node.index) else "off"

    def meet(self, one: SimNode, other: SimNode) -> bool:
        """Whether an honest relay that lives can be linked by both."""
        meet = self._topology.meet
        return any(
            relay.living and not relay.hostile and not relay.leaving
            for relay in self._world.nodes
            if self._topology.relaying(relay.index)
            and meet(one.index, relay.index)
            and meet(other.index, relay.index)
        )

    def _try_dial(self, node: SimNode, effect: TryDial) -> None:
        found = self._network.answers(node, effect.address)
        if isinstance(found, SimNode):
            tried = DialTried(effect.number, reached=True)
            wait = 2 * TRIAL_ROUND_TRIPS * self._network.latency(node, found)
        else:
            tried = DialTried(effect.number, reached=False, reason=found.reason)
            wait = found.after_us
        self._world.push(self._world.now + wait, node.life, node, tried)

    def _punch(self, node: SimNode, effect: PunchTo) -> None:
        peer = peer_of(effect.address)
        end = node.ends.get(peer) if peer is not None else None
        if peer is None or end is None or end.circuit is None:
            return
        target = end.other.owner
        if self._network.links(node, peer, relayed=False):
            return
        if self._network.answers(node, effect.address) is target:
            self._network.link(node, target, effect.address)
            return
        if self.boxes.at_outside(effect.address) == target.index:
            self._dial_outside(node, target, effect.address)

    def _dial_outside(self, node: SimNode, target: SimNode, address: str) -> None:
        """Dial a box's outer side: that opens the dialling node's own box for the other."""
        now, network = self._world.now, self._network
        if network.blocked(node, target) or network.blocked(target, node):
            return
        if not self.boxes.opens(node.index, target.index):
            return
        self._opened[node.index, target.index] = now + PATIENCE_US
        if self._opened.get((target.index, node.index), 0) <= now or not target.living:
            return
        del self._opened[node.index, target.index], self._opened[target.index, node.index]
        if node.id < target.id:  # who of the two counts as the one that dials
            network.link(node, target, address)
        else:
            network.link(target, node, f"{self.boxes.outside(node.index)}/p2p/{node.id}")
