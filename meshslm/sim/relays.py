"""Relays between simulated nodes: places that are reserved, and circuits through them.

What production's adapters do about circuits is done here; who asks whom for a place, who may have
one and what is dialled is decided by the cores.

Rules:
- A circuit rides on the links of both its ends to the relay, and ends with either.
- What it carries passes the relay's own uplink, waits while that one is stopped, and is lost where
  one of the two ways is.
- Places, circuits, their bytes and their time are bounded as in production.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from meshslm import limits
from meshslm.core.dialling import peer_of
from meshslm.core.events import DialFailed, Lane, PeerConnected, PeerDisconnected
from meshslm.core.reach_events import NotReserved, Reserve, Reserved
from meshslm.core.ways import CIRCUIT
from meshslm.ids import MICROSECONDS_PER_MS, NodeId
from meshslm.sim.node import SECOND, End, Guard, SimNode

if TYPE_CHECKING:
    from meshslm.sim.network import Network
    from meshslm.sim.world import World

PATIENCE_US: Final = 5_000 * MICROSECONDS_PER_MS
"""Until a request to a relay, or a call through one, that nobody answers has failed."""

ASK_ROUND_TRIPS: Final = 2
"""A stream for the request, and the request itself."""

GREET_ROUND_TRIPS: Final = 3
"""Multistream, Noise and Yamux between the ends of a circuit."""

_LANES: Final = len(Lane)


@runtime_checkable
class Relaying(Protocol):
    """A core that says who may use its node as a relay."""

    def may_relay(self, node: NodeId) -> bool:
        """Whether a peer may reserve a place, or connect through it."""
        ...


class Circuit(Guard):
    """A link through a relay, as the relay sees it. It guards what is on its way to it."""

    __slots__ = ("far", "far_way", "floors", "left", "near", "near_way", "relay")

    def __init__(self, near_way: End, far_way: End, address: str) -> None:
        super().__init__()
        self.relay = near_way.owner
        self.near_way = (near_way, near_way.other)
        self.far_way = (far_way, far_way.other)
        """The links of the two to the relay: the end that is the relay's, and their own."""
        latency = near_way.latency_us + far_way.latency_us
        caller, called = near_way.other.owner, far_way.other.owner
        self.near, self.far = End(caller, address, latency), End(called, "", latency)
        self.near.other, self.far.other = self.far, self.near
        self.near.circuit = self.far.circuit = self
        self.floors = ([0] * _LANES, [0] * _LANES)
        """Arrival at the relay of the last message from the caller, and from the other, by lane."""
        self.left = limits.RELAY_BYTES

    def way_of(self, end: End) -> End:
        """The relay's end of the link by which an end of the circuit is reached."""
        return self.near_way[0] if end is self.near else self.far_way[0]

    def ridden(self, way: End) -> End | None:
        """The end of the circuit that is reached by a link, of which `way` is either end."""
        if way in self.near_way:
            return self.near
        return self.far if way in self.far_way else None

    def abandon(self) -> None:
        """It does not come to be."""
        self.open = self.near.open = self.far.open = False


class Relays:
    """All of a world's."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._places: dict[int, dict[NodeId, tuple[End, int]]] = {}
        """At each relay: who has reserved, by which of its links, and until when."""
        self._circuits: dict[int, list[Circuit]] = {}
        self._asking: dict[int, Guard] = {}
        """Of each node: its request that waits for an answer."""
        self._held: dict[int, list[Callable[[], None]]] = {}
        """What waits until a stopped relay goes on."""

    def of(self, relay: SimNode) -> list[Circuit]:
        """The circuits through a relay, the oldest first."""
        return [circuit for circuit in self._through(relay) if circuit.open]

    def _through(self, relay: SimNode) -> list[Circuit]:
        """Those too of which only an end is left."""
        circuits = self._circuits.get(relay.index)
        if not circuits:
            return []
        left = self._circuits[relay.index] = [c for c in circuits if c.near.open or c.far.open]
        return left

    def places(self, relay: SimNode) -> list[NodeId]:
        """Who has reserved at a relay."""
        places = self._places.get(relay.index, {})
        for node, (end, until) in list(places.items()):
            if until <= self._world.now or not end.open or not _may_use(relay, node):
                del places[node]
        return list(places)

    # --- places ---------------------------------------------------------------------------------
    def reserve(self, node: SimNode, effect: Reserve) -> None:
        """Ask a linked relay for a place; ends in `Reserved` or `NotReserved`."""
        world = self._world
        end = node.ends.get(effect.relay)
        if end is None or end.circuit is not None:
            world.tell(node, NotReserved(effect.relay, "its relay is not linked directly"))
            return
        earlier = self._asking.pop(node.index, None)
        if earlier is not None:
            earlier.open = False
        asking = self._asking[node.index] = Guard()
        world.push(world.now + PATIENCE_US, asking, node, NotReserved(effect.relay, "timed out"))
        when = world.now + (2 * ASK_ROUND_TRIPS - 1) * end.latency_us
        deed = partial(self._give, end.other, asking)
        world.call(when, partial(self._at, end.other.owner, deed), asking)

    def _give(self, end: End, asking: Guard) -> None:
        """A relay decides on a request that came by one of its links."""
        relay, node = end.owner, end.other.owner
        if not (asking.open and self._sound(end)):
            return
        asking.open = False
        places = self._places.setdefault(relay.index, {})
        taken = self.places(relay)
        event: Reserved | NotReserved
        if not _may_use(relay, node.id):
            event = NotReserved(relay.id, "PERMISSION_DENIED")
        elif node.id not in places and len(taken) >= limits.RELAY_RESERVATIONS:
            event = NotReserved(relay.id, "RESERVATION_REFUSED")
        else:
            places[node.id] = (end, self._world.now + limits.RELAY_S * SECOND)
            event = Reserved(relay.id, limits.RELAY_S)
        self._world.push(self._world.now + end.latency_us, node.life, node, event)

    # --- calls ----------------------------------------------------------------------------------
    def call(self, source: SimNode, address: str) -> None:
        """Dial through a relay; ends in `PeerConnected` at both, or in `DialFailed` at `source`."""
        world = self._world
        head, _, tail = address.partition(CIRCUIT)
        relay, callee = peer_of(head), peer_of(tail)
        end = source.ends.get(relay) if relay is not None else None
        if callee is not None and self._network.links(source, callee):
            self._fail(source, address, "already connected", 1, callee)
        elif end is None or end.circuit is not None or callee is None:
            self._fail(source, address, "its relay is not linked directly", 1)
        else:
            asking = Guard()
            late = partial(self._late, source, address, asking)
            world.call(world.now + PATIENCE_US, late, source.life)
            when = world.now + (2 * ASK_ROUND_TRIPS - 1) * end.latency_us
            deed = partial(self._connect, end.other, callee, address, asking)
            world.call(when, partial(self._at, end.other.owner, deed), source.life)

    def _connect(self, end: End, callee: NodeId, address: str, asking: Guard) -> None:
        """A relay decides on a call that came by one of its links, and passes it on."""
        relay, caller = end.owner, end.other.owner
        if not (asking.open and self._sound(end)):
            return
        place = self._places.get(relay.index, {}).get(callee)
        problem = ""
        if not _may_use(relay, caller.id):
            problem = "PERMISSION_DENIED"
        elif place is None or callee == caller.id or callee not in self.places(relay):
            problem = "NO_RESERVATION"
        elif not self._has_room(relay, caller.id, callee):
            problem = "RESOURCE_LIMIT_EXCEEDED"
        if problem or place is None:
            asking.open = False
            self._fail(caller, address, problem, end.latency_us)
            return
        circuit = Circuit(end, place[0], address)
        self._circuits.setdefault(relay.index, []).append(circuit)
        when = self._world.now + (2 * ASK_ROUND_TRIPS - 1) * place[0].latency_us
        self._world.call(when, partial(self._take, circuit, asking), circuit)
        self._world.call(
            self._world.now + limits.RELAY_S * SECOND,
            partial(self._reset, circuit, "its time is over"),
            circuit,
        )

    def _late(self, source: SimNode, address: str, asking: Guard) -> None:
        if asking.open:
            asking.open = False
            self._fail(source, address, "nobody takes the call", 1)

    def _has_room(self, relay: SimNode, caller: NodeId, callee: NodeId) -> bool:
        pairs = [(c.near.owner.id, c.far.owner.id) for c in self.of(relay)]
        most = max(sum(node in pair for pair in pairs) for node in (caller, callee))
        return len(pairs) < limits.RELAY_CIRCUITS and most < limits.RELAY_CIRCUITS_PER_PEER

    def _take(self, circuit: Circuit, asking: Guard) -> None:
        """Who is called takes the call, and both greet each other."""
        near, far, world = circuit.near, circuit.far, self._world
        source, target = near.owner, far.owner
        answers = target.up and (not target.hung or target.busy)
        sound = self._sound(circuit.near_way[0]) and self._sound(circuit.far_way[0])
        if not (asking.open and answers and sound):
            circuit.abandon()
            return
        asking.open = False
        if self._network.links(source, target.id):
            circuit.abandon()
            self._fail(source, near.address, "already connected", near.latency_us, target.id)
            return
        up = world.now + 2 * GREET_ROUND_TRIPS * near.latency_us
        near.floor = [up + near.latency_us] * _LANES
        far.floor = [up] * _LANES
        source.joining.append(near)
        target.joining.append(far)
        came_from = f"/p2p/{circuit.relay.id}{CIRCUIT}"
        world.push(up, far, target, PeerConnected(source.id, "", came_from))
        arrived = PeerConnected(target.id, near.address)
        world.push(up + near.latency_us, near, source, arrived)

    def give_way(self, source: SimNode, target: SimNode) -> None:
        """A direct link is made: calls between the two that are not taken yet come to nothing."""
        for near in [*source.joining, *target.joining]:
            circuit = near.circuit
            pair = (near.owner, near.other.owner)
            if circuit is None or pair not in ((source, target), (target, source)):
                continue
            near.owner.joining.remove(near)
            circuit.abandon()
            if near.address:
                self._fail(near.owner, near.address, "already connected", 1, near.other.owner.id)

    # --- what goes through ----------------------------------------------------------------------
    def carry(self, end: End, lane: int, message: bytes, leaves: int) -> None:
        """Bring a message as far as the relay."""
        circuit = _circuit(end)
        way = circuit.way_of(end)
        if not (circuit.open and self._sound(way)):
            return
        from_near = end is circuit.near
        floor = circuit.floors[0] if from_near else circuit.floors[1]
        relay, latency = circuit.relay, way.latency_us
        arrives = self._network.travel(end.owner, relay, lane, leaves + latency, floor)
        if arrives is not None:
            deed = partial(self._forward, circuit, end, lane, message)
            self._world.call(arrives, partial(self._at, relay, deed), circuit)

    def _forward(self, circuit: Circuit, end: End, lane: int, message: bytes) -> None:
        far, relay, world = end.other, circuit.relay, self._world
        circuit.left -= len(message)
        if circuit.left < 0:
            self._reset(circuit, "it has carried enough")
            return
        leaves = self._network.through_uplink(relay, lane, world.now, message)
        way = circuit.way_of(far)
        if far.open and self._sound(way):
            leaves += way.latency_us
            arrives = self._network.travel(relay, far.owner, lane, leaves, far.floor)
            if arrives is not None:
                world.push(arrives, far, far.owner, end.owner.received(message))

    # --- ends -----------------------------------------------------------------------------------
    def tell_closed(self, end: End, reason: str) -> None:
        """The owner of an end has closed it: the relay hears so, and passes it on."""
        circuit = _circuit(end)
        way = circuit.way_of(end)
        if circuit.open and self._sound(way):
            when = max(self._world.now + way.latency_us, *circuit.floors[end is circuit.far])
            deed = partial(self._pass_on, circuit, end.other, reason)
            self._world.call(when, partial(self._at, circuit.relay, deed), circuit)

    def _pass_on(self, circuit: Circuit, to: End, reason: str) -> None:
        circuit.open = False
        way = circuit.way_of(to)
        if to.resetting or not to.open or not self._sound(way):
            return
        to.resetting = True
        when = max(self._world.now + way.latency_us, *to.floor)
        gone = PeerDisconnected(to.other.owner.id, reason)
        self._world.push(when, to, to.owner, gone)

    def _reset(self, circuit: Circuit, reason: str) -> None:
        for end in (circuit.near, circuit.far):
            self._pass_on(circuit, end, reason)

    def detached(self, end: End) -> None:
        """A link is over at one of its nodes, and what rides on it there."""
        if end.circuit is not None:
            return
        node, peer = end.owner, end.other.owner
        self._places.get(node.index, {}).pop(peer.id, None)
        for circuit in self.of(node):
            ridden = circuit.ridden(end)
            if ridden is not None:
                self._pass_on(circuit, ridden.other, "its relay lost the other end")
        for circuit in self._through(peer):
            ridden = circuit.ridden(end)
            if ridden is not None:
                self._broken(ridden)

    def _broken(self, end: End) -> None:
        """The link to the relay is gone where an end of a circuit is."""
        if end.open and not end.resetting:
            end.resetting = True
            gone = PeerDisconnected(end.other.owner.id, "the link to its relay is gone")
            self._world.push(self._world.now, end, end.owner, gone)

    def died(self, node: SimNode) -> None:
        """A process is gone, and all that it did as a relay or asked of one."""
        asking = self._asking.pop(node.index, None)
        if asking is not None:
            asking.open = False
        self._places.pop(node.index, None)
        self._held.pop(node.index, None)
        for circuit in self._through(node):
            circuit.open = False

    def resumed(self, node: SimNode) -> None:
        """A stopped process goes on."""
        for deed in self._held.pop(node.index, ()):
            deed()

    # --- steps ----------------------------------------------------------------------------------
    def _at(self, relay: SimNode, deed: Callable[[], None]) -> None:
        """Do something at a relay, as soon as it runs."""
        if relay.up and relay.hung:
            self._held.setdefault(relay.index, []).append(deed)
        elif relay.up:
            deed()

    def _sound(self, end: End) -> bool:
        """Whether something gets through by a link, both ways."""
        one, other = end.owner, end.other.owner
        blocked = self._network.blocked
        whole = end.open and end.other.open and not (end.resetting or end.other.resetting)
        return whole and not blocked(one, other) and not blocked(other, one)

    def _fail(
        self, source: SimNode, address: str, reason: str, wait_us: int, peer: NodeId | None = None
    ) -> None:
        failed = DialFailed(address, reason, peer)
        self._world.push(self._world.now + wait_us, source.life, source, failed)


def _circuit(end: End) -> Circuit:
    assert end.circuit is not None, "only ends of circuits come here"
    return end.circuit


def _may_use(relay: SimNode, node: NodeId) -> bool:
    core: object = relay.core
    return isinstance(core, Relaying) and core.may_relay(node)
