"""What the core's shell needs of the outside world.

Each port is small and has at least two adapters: the real one, and one for tests or simulation
that passes the same contract suite.

Rules:
- A call on a port returns at once; whatever comes of it is posted as an event.
- Only `post` may wait: that is the back-pressure from the core to whoever reads from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshslm.core.events import Event, Lane
from meshslm.ids import Instant, NodeId, RunId
from meshslm.wire.messages import TaskRequest


class Post(Protocol):
    """Hands events to the core, in order; others have their turn before many have been taken."""

    async def __call__(self, *events: Event) -> None:
        """Returns when they were handled."""
        ...


class Handle(Protocol):
    """Hands events to the core, in order, without letting others have their turn."""

    def __call__(self, *events: Event) -> None:
        """Returns when they were handled."""
        ...


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> Instant:
        """Monotonic microseconds."""
        ...


class Link(Protocol):
    """Authenticated, encrypted, ordered-per-lane message passing to directly connected peers.

    Posts `PeerConnected`, `PeerDisconnected`, `DialFailed` and `BytesReceived`. Between a
    `PeerConnected` and its `PeerDisconnected` there is one link to the peer, whatever the number of
    connections underneath. It may lose what was queued when a link breaks.
    """

    @property
    def node_id(self) -> NodeId:
        """This node's identity."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses others can dial, each ending in /p2p/ID. Known once it runs."""
        ...

    def send(self, peer: NodeId, lane: Lane, message: bytes) -> None:
        """Queue a message. Without effect where the peer is not connected.

        A lane that overflows (`limits.LANE_QUEUE_BYTES`) breaks the link.
        """
        ...

    def dial(self, address: str) -> None:
        """Begin to connect; ends in `PeerConnected` or `DialFailed`."""
        ...

    def disconnect(self, peer: NodeId, reason: str) -> None:
        """Close the link once its control lane is empty, at the latest after two seconds."""
        ...

    async def run(self, post: Post, *, started: Callable[[], None]) -> None:
        """Serve until cancelled; calls `started` when it listens.

        Raises `OurFault` where it cannot listen. Closes every socket when cancelled.
        """
        ...


class Reach(Protocol):
    """What a link may offer beside links: trial dials, relays, direct upgrades.

    Posts `DialTried`, `Reserved` and `NotReserved`. A node without it does not look into how it is
    reached (`CoreConfig.relay`).
    """

    def try_dial(self, number: int, address: str) -> None:
        """Find out whether the peer named in `address` answers there; ends in `DialTried`."""
        ...

    def reserve(self, relay: NodeId) -> None:
        """Get a place at a linked relay; ends in `Reserved` or `NotReserved`."""
        ...

    def offer_relay(self, *, on: bool) -> None:
        """Relay for members from now on, or no longer."""
        ...

    def punch(self, address: str) -> None:
        """Dial a peer that dials this node at the same time, in a relayed link's place."""
        ...


class Engine(Protocol):
    """One loaded base model, in a process of its own or a stand-in.

    Posts `EngineReady`, `EngineLost`, `EngineMeasured`, `RunProduced`, `RunEnded` and `RunFailed`.
    Every started run ends in exactly one of `RunEnded` and `RunFailed`, or in an `EngineLost`,
    unless it was stopped.
    """

    @property
    def model(self) -> str:
        """Name of the base model, as in `StartRun.model`."""
        ...

    def start_run(self, run: RunId, request: TaskRequest, *, coalesce: bool = False) -> None:
        """Begin a run; `request` has the profile's system prompt and sampling defaults in it.

        With `coalesce` tokens may wait `limits.COALESCE_MS` for those that follow, but the first.
        """
        ...

    def stop_run(self, run: RunId) -> None:
        """Stop a run within one step. Unknown runs are ignored."""
        ...

    async def run(self, post: Post) -> None:
        """Load, serve, and restart after a crash, until cancelled."""
        ...
