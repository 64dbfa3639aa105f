"""A simulated machine: one identity, the process on it, and its ends of links.

Rules:
- A machine outlives its process: what belongs to the process is gone after a kill, the identity,
  the address and the count of boots stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import BytesReceived, Event, Lane, TimerKey
from meshslm.core.views import PeerView, StatusView
from meshslm.ids import MICROSECONDS_PER_MS, Instant, NodeId

if TYPE_CHECKING:
    from meshslm.sim.relays import Circuit

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
        "circuit",
        "floor",
        "latency_us",
        "open",
        "other",
        "owner",
        "resetting",
        "unanswered",
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
        self.circuit: Circuit | None = None
        """Through a relay, by this."""
        self.unanswered = False
        """What comes for it is lost on the way, and nobody says so."""


class Clock:
    """A machine's own clock: it begins anywhere, and may be fast, slow or stopped.

    Timers go by it too.
    """

    __slots__ = ("_at", "_shown", "rate")

    def __init__(self, origin: int) -> None:
        self._at = 0
        self._shown = origin
        self.rate = 1.0

    def read(self, now: int) -> Instant:
        """What it shows at an instant of the world, of which none is before the last change."""
        passed = now - self._at
        return Instant(self._shown + (passed if self.rate == 1.0 else int(passed * self.rate)))

    def change(self, now: int, *, jump_us: int = 0, rate: float | None = None) -> None:
        """Let it jump, and run at another rate from now on."""
        self._shown = self.read(now) + jump_us
        self._at = now
        if rate is not None:
            self.rate = rate

    def wait(self, microseconds: int) -> int:
        """How long the world takes until it has gone on by so much."""
        return microseconds if self.rate == 1.0 else int(microseconds / self.rate)


class Line:
    """How a machine hangs on the network: what its messages suffer beyond everybody's."""

    __slots__ = ("delay_us", "duplicate", "loss", "reorder", "us_per_byte")

    def __init__(self, us_per_byte: float, delay_us: int = 0, loss: float = 0.0) -> None:
        self.us_per_byte = us_per_byte
        self.delay_us = delay_us
        self.loss = loss
        self.duplicate = 0.0
        self.reorder = 0.0


class SimNode:
    """One machine with one identity; its process comes and goes."""

    __slots__ = (
        "address",
        "boot",
        "busy",
        "chance",
        "clock",
        "core",
        "disk_times",
        "ends",
        "events",
        "held",
        "host_up",
        "hostile",
        "hung",
        "id",
        "index",
        "joining",
        "last_received",
        "leaving",
        "life",
        "line",
        "name",
        "place",
        "sent_bytes",
        "sent_messages",
        "timers",
        "up",
        "up_since",
        "up_us",
        "uplink",
    )

    def __init__(
        self,
        index: int,
        node: NodeId,
        chance: Chance,
        line: Line,
        origin: int = 0,
        place: str = "",
    ) -> None:
        self.index = index
        self.id = node
        self.name = f"n{index}"
        self.place = place or f"/memory/{self.name}"
        """Where it listens."""
        self.address = f"{self.place}/p2p/{node}"
        self.chance = chance
        self.clock = Clock(origin)
        self.line = line
        self.disk_times = 1.0
        """How much longer than usual its disk takes."""
        self.core: Core | None = None
        self.boot = 0
        self.up = False
        """A process runs."""
        self.host_up = True
        """The machine runs; without it nobody answers a dial or resets a connection."""
        self.hung = False
        self.busy = False
        """It is stopped for moments only: who dials it meanwhile gets an answer afterwards."""
        self.hostile = False
        """It means ill, and is not judged."""
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

    def renamed(self, node: NodeId) -> None:
        """A new disk: another identity at the same place, which was never booted."""
        self.id = node
        self.address = f"{self.place}/p2p/{node}"
        self.boot = 0
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
