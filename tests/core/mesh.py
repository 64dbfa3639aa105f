"""Cores joined by a perfect, instant link on a virtual clock, with hooks to make it worse."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    Dial,
    DialFailed,
    Disconnect,
    Effect,
    EngineReady,
    Event,
    HostingChanged,
    PeerConnected,
    PeerDisconnected,
    Send,
    Started,
    StartTimer,
    StopTimer,
    TimerFired,
    TimerKey,
)
from meshslm.core.growth_events import SealStatement
from meshslm.core.node import NodeCore
from meshslm.ids import Instant, NodeId, after
from meshslm.sim.sealing import sealed, signed_by
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import DomainCard, Hardware, Message, Specialist

SLOTS = 2
E = TypeVar("E")
Damage = Callable[[NodeId, NodeId, Message], Iterable[Message] | None]


def address_of(node: str) -> str:
    """Where a test node listens."""
    return f"/memory/{node}/p2p/{node}"


def specialist(profile: str, *domains: str, model: str = "tiny") -> Specialist:
    """A specialist whose domains have a card each."""
    cards = tuple(DomainCard(d, f"about {d}", (f"tell me of {d}", f"{d} please")) for d in domains)
    return Specialist(profile, model, "d1", "Q8_0", 2048, SLOTS, cards)


@dataclass
class Box:
    """One node of the test mesh."""

    core: NodeCore
    boot: int = 1
    timers: dict[TimerKey, tuple[Instant, int]] = field(default_factory=dict)
    done: list[Effect] = field(default_factory=list)


class Mesh:
    """Several cores and what connects them."""

    def __init__(self) -> None:
        self.now = Instant(1_000_000)
        self.boxes: dict[NodeId, Box] = {}
        self.links: set[frozenset[str]] = set()
        self.queue: deque[tuple[NodeId, Event]] = deque()
        self.cut: set[frozenset[str]] = set()
        self.aliases: dict[str, NodeId] = {}
        """Addresses that do not name the node that listens there."""
        self.filter: Damage = lambda _from, _to, _message: None
        """Given a message, what arrives instead; None: the message itself."""
        self.signs = False
        """Whether nodes sign what they say of themselves, and check what others have signed."""
        self.reach = False
        """Whether nodes look into how they are reached."""
        self.relays: set[str] = set()
        """Nodes that relay."""
        self.nat: dict[str, str] = {}
        """Nodes that cannot be dialled from outside, and where they are seen to come from."""
        self.dead: set[frozenset[str]] = set()
        """Pairs of whom each one's machine refuses the other now."""
        self.seen: dict[tuple[str, str], list[Message]] = defaultdict(list)

    def add(
        self,
        name: str,
        *specialists: Specialist,
        bootstrap: tuple[str, ...] = (),
        queue_per_engine: int = limits.QUEUE_PER_ENGINE,
        hedge: float = 0.0,
    ) -> NodeCore:
        """A node that starts now; its engines are ready."""
        node = NodeId(name)
        addresses = tuple(b if b.startswith("/") else address_of(b) for b in bootstrap)
        config = CoreConfig(
            node,
            name,
            bootstrap=addresses,
            queue_per_engine=queue_per_engine,
            hedge=hedge,
            verify_node=signed_by if self.signs else None,
            relay=("on" if name in self.relays else "off") if self.reach else None,
        )
        core = NodeCore(config, Chance.from_int(len(self.boxes)))
        self.boxes[node] = Box(core)
        self.give(name, Started(1, (address_of(name),)))
        if specialists:
            self.give(name, HostingChanged(specialists, Hardware(cores=2)))
            for model in dict.fromkeys(s.model for s in specialists):
                self.give(name, EngineReady(model, SLOTS))
        return core

    def give(self, name: str, event: Event) -> list[Effect]:
        """Hand an event to a node and let everything that follows happen."""
        box = self.boxes[NodeId(name)]
        start = len(box.done)
        self.queue.append((NodeId(name), event))
        while self.queue:
            self._handle(*self.queue.popleft())
        return box.done[start:]

    def effects(self, name: str, kind: type[E]) -> list[E]:
        """Effects of one kind that a node has asked for so far."""
        return [e for e in self.boxes[NodeId(name)].done if isinstance(e, kind)]

    def pass_time(self, ms: float) -> None:
        """Let virtual time go on, firing what is due in its order."""
        end = after(self.now, ms)
        while True:
            due = min(
                (
                    (at, generation, node, key)
                    for node, box in self.boxes.items()
                    for key, (at, generation) in box.timers.items()
                    if at <= end
                ),
                key=lambda entry: entry[:3],
                default=None,
            )
            if due is None:
                break
            at, generation, node, key = due
            self.now = max(self.now, at)
            del self.boxes[node].timers[key]
            self.give(node, TimerFired(key, generation))
        self.now = end

    def break_link(self, a: str, b: str, reason: str = "broken") -> None:
        """Both sides hear that their link is gone, and that nothing listens there any more."""
        self.dead.add(frozenset((a, b)))
        self.cut_link(a, b, reason)
        self.dead.clear()

    def cut_link(self, a: str, b: str, reason: str = "cable") -> None:
        """Both sides hear that their link is gone."""
        self.links.discard(frozenset((a, b)))
        self.queue.append((NodeId(b), PeerDisconnected(NodeId(a), reason)))
        self.give(a, PeerDisconnected(NodeId(b), reason))

    def peer_state(self, name: str, other: str) -> str:
        """How one node sees another."""
        views = self.boxes[NodeId(name)].core.peers(self.now)
        return next((view.state for view in views if view.node == other), "unknown")

    def _handle(self, node: NodeId, event: Event) -> None:
        box = self.boxes[node]
        for effect in box.core.handle(event, self.now):
            box.done.append(effect)
            self._perform(node, box, effect)
        box.core.check()

    def _perform(self, node: NodeId, box: Box, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(node, effect)
        elif isinstance(effect, StartTimer):
            at = after(self.now, effect.after_ms)
            box.timers[effect.key] = (at, effect.generation)
        elif isinstance(effect, StopTimer):
            box.timers.pop(effect.key, None)
        elif isinstance(effect, SealStatement):
            self.queue.append((node, sealed(node, effect)))
        elif isinstance(effect, Dial):
            self._dial(node, effect.address)
        elif isinstance(effect, Disconnect):
            pair = frozenset((node, effect.peer))
            if pair in self.links:
                self.links.discard(pair)
                self.queue.append((node, PeerDisconnected(effect.peer, effect.reason)))
                self.queue.append((effect.peer, PeerDisconnected(node, "closed by the other side")))

    def _send(self, node: NodeId, effect: Send) -> None:
        pair = frozenset((node, effect.peer))
        message = decode(effect.message)
        self.seen[node, effect.peer].append(message)
        if pair not in self.links or pair in self.cut or effect.peer not in self.boxes:
            return
        instead = self.filter(node, effect.peer, message)
        arrivals = [effect.message] if instead is None else [encode(m) for m in instead]
        self.queue.extend((effect.peer, BytesReceived(node, data)) for data in arrivals)

    def _dial(self, node: NodeId, address: str) -> None:
        other = self.aliases.get(address, NodeId(address.rpartition("/p2p/")[2]))
        pair = frozenset((node, other))
        if pair in self.links and address in self.aliases:
            self.queue.append((node, DialFailed(address, "linked already", other)))
            return
        if pair in self.dead:
            self.queue.append((node, DialFailed(address, "connection refused", refused=True)))
        elif other not in self.boxes or pair in self.cut:
            self.queue.append((node, DialFailed(address, "nobody there")))
        elif pair not in self.links:
            self.links.add(pair)
            self.queue.append((node, PeerConnected(other, address)))
            self.queue.append((other, PeerConnected(node, "", f"/memory/{node}")))
