"""Links between simulated nodes: they carry encoded bytes, and do to them what networks do.

Why so: production's link is ordered and reliable while it is up, but the core promises to live
with less, so the simulated link loses, repeats and reorders single messages as the scenario says.

Rules:
- Every decision about a message draws from the network's own `Chance`, in the order of sending.
- A link has two ends, and each closes by itself: a peer that was told nothing goes on sending into
  the void, as with real sockets.
- What crosses a closed direction is lost; the link stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any, TypeVar

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.events import DialFailed, Lane, PeerConnected, PeerDisconnected
from meshslm.core.ways import through_relay
from meshslm.ids import MICROSECONDS_PER_MS, NodeId
from meshslm.sim.node import End, Line, SimNode
from meshslm.sim.reach import SimReach
from meshslm.sim.scenario import Network as NetworkSettings
from meshslm.sim.topology import Topology

if TYPE_CHECKING:
    from meshslm.sim.world import World

FRAME_OVERHEAD_BYTES = 40
"""Added to each message on the wire: our length prefix, Yamux, Noise, TCP/IP shared by a few
frames (a guess)."""

HANDSHAKE_ROUND_TRIPS = 4
"""TCP, multistream, Noise and Yamux before a link is reported."""

DIAL_TIMEOUT_MS = 5_000
"""Until a dial into silence fails."""

CLOSE_DELAY_MS = 0.2
"""Until a process that died has its sockets closed by its kernel."""

_LANES = len(Lane)

_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nobody answers a dial."""

    reason: str
    after_us: int
    """Until the dialling side knows."""
    refused: bool = False


class Network:
    """All links of a world."""

    def __init__(
        self, world: World, settings: NetworkSettings, chance: Chance, topology: Topology
    ) -> None:
        self._world = world
        self._unit = chance.unit
        self._chance = chance
        self._median_us = settings.latency_ms * MICROSECONDS_PER_MS
        self._spread = settings.latency_spread
        self._jitter_us = settings.jitter_ms * MICROSECONDS_PER_MS
        self._loss = settings.loss
        self._duplicate = settings.duplicate
        self._reorder = settings.reorder
        self._reorder_us = settings.reorder_ms * MICROSECONDS_PER_MS
        self._us_per_byte = 8.0 / settings.bandwidth_mbit
        self._topology = topology
        self._latencies: dict[tuple[int, int], int] = {}
        self._groups: dict[int, int] = {}
        self._silent: dict[int, int] = {}
        """Node -> how many faults keep it from being heard."""
        self._deaf: dict[int, int] = {}
        self._cuts: dict[tuple[int, int], int] = {}
        """From node, to node -> how many faults are between them."""
        self._walls = False
        """Whether anything is blocked at all."""
        self.reach = SimReach(world, self, topology) if topology.relays else None
        """How nodes behind NAT are reached, where somebody relays."""

    def line(self, node: int) -> Line:
        """The access line of a node as the scenario has it."""
        group = self._topology.group(node)
        if group is None:
            return Line(self._us_per_byte)
        narrow = group.bandwidth_mbit
        us_per_byte = 8.0 / narrow if narrow else self._us_per_byte
        return Line(us_per_byte, int(group.latency_ms * MICROSECONDS_PER_MS), group.loss)

    @property
    def flat(self) -> bool:
        """Whether everybody can dial everybody."""
        return self._topology.flat

    def meet(self, one: SimNode, other: SimNode) -> bool:
        """Whether the two can be linked in this topology, whoever dials."""
        if self._topology.meet(one.index, other.index):
            return True
        return self.reach is not None and self.reach.meet(one, other)

    # --- relays ---------------------------------------------------------------------------------
    def place(self, node: int) -> str:
        """Where a node listens; empty where that makes no difference."""
        return self.reach.boxes.place(node) if self.reach is not None else ""

    def relay_setting(self, node: SimNode) -> str | None:
        """What a node is told about relaying."""
        return self.reach.setting(node) if self.reach is not None else None

    def performers(self) -> dict[type, Callable[[SimNode, Any], None]]:
        """What brings about the core's effects to be reached, where it has any."""
        return self.reach.performers() if self.reach is not None else {}

    # --- faults ---------------------------------------------------------------------------------
    def split(self, groups: Sequence[Sequence[int]]) -> None:
        """Let nodes hear only their own group; a node in none hears none of these."""
        self._groups = {node: place for place, group in enumerate(groups) for node in group}
        self._look()

    def heal(self) -> None:
        """End a `split`."""
        self._groups = {}
        self._look()

    def mute(self, node: int, *, on: bool) -> None:
        """Lose everything that `node` sends, or stop doing so."""
        _count(self._silent, node, on=on)
        self._look()

    def deafen(self, node: int, *, on: bool) -> None:
        """Lose everything that is sent to `node`, or stop doing so."""
        _count(self._deaf, node, on=on)
        self._look()

    def cut(self, source: int, target: int, *, on: bool) -> None:
        """Lose everything that one node sends to another, or stop doing so."""
        _count(self._cuts, (source, target), on=on)
        self._look()

    def forget(self, node: SimNode) -> None:
        """A node's NAT box loses what it knows of its connections.

        Nothing gets in by them any more. What the node sends seems to come from somewhere else,
        and is answered with a reset.
        """
        for inner in [*node.ends.values(), *node.joining]:
            outer = inner.other
            if inner.circuit is None and not self._topology.together(node.index, outer.owner.index):
                inner.other = _nobody(outer)
                outer.other = _nobody(inner)
                outer.other.unanswered = True

    def behind(self, node: SimNode) -> list[SimNode]:
        """Everybody behind the NAT box of a node; nobody where it is behind none."""
        if self._topology.box(node.index) is None:
            return []
        together = self._topology.together
        return [other for other in self._world.nodes if together(node.index, other.index)]

    def _look(self) -> None:
        self._walls = bool(self._groups or self._silent or self._deaf or self._cuts)

    def blocked(self, source: SimNode, target: SimNode) -> bool:
        """Whether nothing gets from one node to the other now."""
        if not self._walls:
            return False
        groups, near, far = self._groups, source.index, target.index
        if groups and groups.get(near) != groups.get(far):
            return True
        return near in self._silent or far in self._deaf or (near, far) in self._cuts

    # --- links ----------------------------------------------------------------------------------
    def dial(self, source: SimNode, address: str) -> None:
        """Try to link; ends in `PeerConnected` at both, or in `DialFailed` at `source`."""
        reach = self.reach
        if reach is not None and through_relay(address):
            reach.relays.call(source, address)
            return
        found = self.answers(source, address)
        if isinstance(found, NoAnswer):
            self._fail(source, address, found.reason, found.after_us, refused=found.refused)
            return
        latency = self.latency(source, found)
        if self.links(source, found.id, relayed=False):
            self._fail(source, address, "already connected", 2 * HANDSHAKE_ROUND_TRIPS * latency)
            return
        self.link(source, found, address)

    def answers(self, source: SimNode, address: str) -> SimNode | NoAnswer:
        """Who answers where a node dials, with the identity that the address names."""
        target = self._world.at_address(address)
        if target is None or target is source:
            if self.reach is not None and self.reach.boxes.at_outside(address) is not None:
                return _SILENCE
            return NoAnswer("no such host", 1)
        silent = not target.host_up or (target.hung and not target.busy)
        silent = silent or not self._topology.dials(source.index, target.index)
        if silent or self.blocked(source, target) or self.blocked(target, source):
            return _SILENCE
        latency = self.latency(source, target)
        if not target.up:
            return NoAnswer("connection refused", 2 * latency, refused=True)
        if address != target.address:  # its disk was lost, and with it who it was
            delay = 2 * HANDSHAKE_ROUND_TRIPS * latency
            return NoAnswer("another identity answers there", delay)
        return target

    @staticmethod
    def links(source: SimNode, target: NodeId, *, relayed: bool = True) -> bool:
        """Whether a sound link exists or is being made: real adapters fold a second one."""
        ends = [end for end in source.joining if end.other.owner.id == target]
        attached = source.ends.get(target)
        if attached is not None:
            ends.append(attached)
        return any(
            end.open and end.other.open and not end.resetting and not end.other.resetting
            for end in ends
            if relayed or end.circuit is None
        )

    def link(self, source: SimNode, target: SimNode, address: str) -> None:
        """Link two nodes directly; a link through a relay gives way."""
        latency = self.latency(source, target)
        if self.reach is not None:
            self.reach.relays.give_way(source, target)
        near, far = End(source, address, latency), End(target, "", latency)
        near.other, far.other = far, near
        world = self._world
        up = world.now + 2 * HANDSHAKE_ROUND_TRIPS * latency
        source.joining.append(near)
        target.joining.append(far)
        near.floor = [up + latency] * _LANES
        far.floor = [up] * _LANES
        world.push(up, far, target, PeerConnected(source.id, "", self._seen_at(source, target)))
        world.push(up + latency, near, source, PeerConnected(target.id, address))

    def _seen_at(self, source: SimNode, target: SimNode) -> str:
        """Where a caller comes from: behind a NAT that is not where it listens."""
        if self.reach is not None:
            return self.reach.boxes.seen(source.index, target.index)
        open_way = self._topology.dials(target.index, source.index)
        return source.address.partition("/p2p/")[0] if open_way else "/sim/nat"

    def _fail(
        self, source: SimNode, address: str, reason: str, delay_us: int, *, refused: bool = False
    ) -> None:
        world = self._world
        failed = DialFailed(address, reason, refused=refused)
        world.push(world.now + delay_us, source.life, source, failed)

    def latency(self, one: SimNode, other: SimNode) -> int:
        """From one node to another and back alike, us."""
        pair = (min(one.index, other.index), max(one.index, other.index))
        latency = self._latencies.get(pair)
        if latency is None:
            distance = self._topology.distance_ms(*pair)
            median = self._median_us if distance is None else distance * MICROSECONDS_PER_MS
            drawn = median * exp(self._chance.normal(0.0, self._spread))
            latency = self._latencies[pair] = max(1, int(drawn))
        return latency

    def close(self, end: End, reason: str) -> None:
        """The owner closes its end: it hears so itself, and the other side if that can be."""
        if not end.open or end.resetting:
            return
        end.resetting = True
        world = self._world
        world.push(world.now, end, end.owner, PeerDisconnected(end.other.owner.id, reason))
        self.tell_closed(end, reason)

    def tell_closed(self, end: End, reason: str) -> None:
        """Let the other side know that `end` is closed, unless the way is blocked."""
        if end.circuit is not None and self.reach is not None:
            self.reach.relays.tell_closed(end, reason)
            return
        other = end.other
        if other.resetting or not other.open or self.blocked(end.owner, other.owner):
            return
        other.resetting = True
        world = self._world
        delay = int(CLOSE_DELAY_MS * MICROSECONDS_PER_MS) + end.latency_us
        when = max(world.now + delay, *other.floor)
        world.push(when, other, other.owner, PeerDisconnected(end.owner.id, reason))

    # --- messages -------------------------------------------------------------------------------
    def send(self, end: End, lane: int, message: bytes) -> None:
        """Carry a message from the owner of `end` to the other side, if the network pleases."""
        owner, far = end.owner, end.other
        world = self._world
        now = world.now
        leaves = self.through_uplink(owner, lane, now, message)
        if leaves - now > limits.LANE_QUEUE_BYTES * owner.line.us_per_byte:
            self.close(end, "send queue overflow")
            return
        if not far.open:
            self._sent_into_the_void(end)
            return
        if end.circuit is not None and self.reach is not None:
            self.reach.relays.carry(end, lane, message, leaves)
            return
        if self._walls and self.blocked(owner, far.owner):
            return
        arrives = self.travel(owner, far.owner, lane, leaves + end.latency_us, far.floor)
        if arrives is None:
            return
        event = owner.received(message)
        world.push(arrives, far, far.owner, event)
        duplicate = self._duplicate + owner.line.duplicate + far.owner.line.duplicate
        if duplicate and self._unit() < duplicate:
            again = arrives + int(self._unit() * self._reorder_us)
            world.push(again, far, far.owner, event)

    def travel(
        self, source: SimNode, target: SimNode, lane: int, arrives: int, floor: list[int]
    ) -> int | None:
        """When a message comes that would arrive then if all went well; None: it is lost.

        `floor` is when the last one of each lane has come, and keeps the order.
        """
        unit, line, away = self._unit, source.line, target.line
        loss = self._loss + line.loss + away.loss
        if loss and unit() < loss:
            return None
        arrives += line.delay_us + away.delay_us - int(log(1.0 - unit()) * self._jitter_us)
        reorder = self._reorder + line.reorder + away.reorder
        if reorder and unit() < reorder:
            return max(arrives, floor[lane]) + int(unit() * self._reorder_us)
        if arrives < floor[lane]:
            return floor[lane]
        floor[lane] = arrives
        return arrives

    @staticmethod
    def through_uplink(owner: SimNode, lane: int, now: int, message: bytes) -> int:
        """When the last byte has left; what is more urgent goes before what waits already."""
        size = len(message) + FRAME_OVERHEAD_BYTES
        owner.sent_messages += 1
        owner.sent_bytes += size
        cost = int(size * owner.line.us_per_byte) or 1
        uplink = owner.uplink
        leaves = max(uplink[lane], now) + cost
        uplink[lane] = leaves
        for lower in range(lane + 1, _LANES):
            uplink[lower] = max(uplink[lower], now) + cost
        return leaves

    def _sent_into_the_void(self, end: End) -> None:
        """The other process is gone: its machine, if it is there, answers with a reset."""
        peer = end.other.owner
        if end.other.unanswered or end.circuit is not None:
            return  # of a circuit the relay says so, as soon as it knows
        blocked = self.blocked(end.owner, peer) or self.blocked(peer, end.owner)
        if end.resetting or blocked or not peer.host_up:
            return
        end.resetting = True
        world = self._world
        when = max(world.now + 2 * end.latency_us, *end.floor)
        world.push(when, end, end.owner, PeerDisconnected(peer.id, "connection reset"))


_SILENCE = NoAnswer("timed out", DIAL_TIMEOUT_MS * MICROSECONDS_PER_MS)


def _nobody(end: End) -> End:
    """What takes the place of an end that is no longer reached."""
    nobody = End(end.owner, "", end.latency_us)
    nobody.open = False
    nobody.other = end.other
    return nobody


def _count(counts: dict[_K, int], key: _K, *, on: bool) -> None:
    """One more or one fewer fault; a key without any is forgotten."""
    number = counts.get(key, 0) + (1 if on else -1)
    if number > 0:
        counts[key] = number
    else:
        counts.pop(key, None)
