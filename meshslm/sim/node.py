"""A simulated machine: one identity, the process on it, and its ends of links.

Rules:
- A machine outlives its process: what belongs to the process is gone after a kill, the identity,
  the address and the count of boots stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import BytesReceived, Event, Lane, TimerKey
from meshslm.core.views import PeerView, StatusView
from meshslm.ids import MICROSECONDS_PER_MS, Instant, NodeId

SECOND = 1000 * MICROSECONDS_PER_MS
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Core(Protocol):
    """What the world drives: production's `NodeCore`, or a small one in tests of the world."""

    def handle(self, event: Event, now: Instant) -> list[Any]:
        """Decide; the list holds effects."""
        ...

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        ...

    def peers(self, now: Instant) -> tuple[PeerView, ...]:
        """Every node as this one sees it."""
        ...

    def status(self, now: Instant) -> StatusView:
        """This node about itself."""
        ...


MakeCore = Callable[[CoreConfig, Chance], Core]


class Guard:
    """Stands for what must still be so when an entry comes up."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = True


class End:
    """One node's end of one link. It guards what is on its way to that node."""

    __slots__ = (
        "address",
        "floor",
        "latency_us",
        "open",
        "other",
        "owner",
        "resetting",
    )

    def __init__(self, owner: SimNode, address: str, latency_us: int) -> None:
        self.owner = owner
        self.address = address
        self.latency_us = latency_us
        self.open = True
        self.resetting = False
        """Its closing is on its way to the owner."""
        self.floor = [0] * len(Lane)
        """Arrival of the last message here, by lane: no later one overtakes it by itself."""
        self.other: End = self


class SimNode:
    """One machine with one identity; its process comes and goes."""

    __slots__ = (
        "address",
        "boot",
        "chance",
        "core",
        "ends",
        "events",
        "held",
        "host_up",
        "hung",
        "id",
        "index",
        "joining",
        "last_received",
        "leaving",
        "life",
        "name",
        "sent_bytes",
        "sent_messages",
        "timers",
        "up",
        "up_since",
        "up_us",
        "uplink",
    )

    def __init__(self, index: int, node: NodeId, chance: Chance) -> None:
        self.index = index
        self.id = node
        self.name = f"n{index}"
        self.address = f"/memory/{self.name}/p2p/{node}"
        self.chance = chance
        self.core: Core | None = None
        self.boot = 0
        self.up = False
        """A process runs."""
        self.host_up = True
        """The machine runs; without it nobody answers a dial or resets a connection."""
        self.hung = False
        self.leaving = False
        self.life = Guard()
        self.ends: dict[NodeId, End] = {}
        self.joining: list[End] = []
        self.timers: dict[TimerKey, Guard] = {}
        self.held: list[tuple[Any, Event]] = []
        self.uplink = [0] * len(Lane)
        """When the last byte of each lane will have left."""
        self.sent_bytes = 0
        self.sent_messages = 0
        self.events = 0
        self.up_since = 0
        self.up_us = 0
        self.last_received = BytesReceived(node, b"")

    def received(self, message: bytes) -> BytesReceived:
        """The arrival of a message from this node; one value for all receivers of a broadcast."""
        if self.last_received.message is not message:
            self.last_received = BytesReceived(self.id, message)
        return self.last_received

    @property
    def living(self) -> bool:
        """Takes part: its process runs and is not stopped."""
        return self.up and not self.hung


def identity(chance: Chance) -> NodeId:
    """A name that looks and sorts like a peer id of an Ed25519 key."""
    return NodeId("12D3KooW" + "".join(_BASE58[chance.below(58)] for _ in range(44)))
