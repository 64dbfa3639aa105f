"""What happened, and what to do about it: the whole vocabulary between core and world.

Rules:
- Events and effects are frozen values; one union each.
- An effect is performed by one executor, in order; whatever comes of it returns as an event.
- Times that come with an event were read by whoever made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from meshslm.core.admission_events import AdmissionEffect, AdmissionEvent
from meshslm.core.consensus.events import ConsensusEffect, ConsensusEvent
from meshslm.core.drain_events import DrainEffect, DrainEvent
from meshslm.core.growth_events import GrowthEffect, GrowthEvent
from meshslm.core.reach_events import ReachEffect, ReachEvent
from meshslm.core.reading_events import RequestRead, RequestShown
from meshslm.core.residency import UNBOUNDED, ModelOrdered, OrderAnswered, Residency
from meshslm.core.state_events import StateEffect, StateEvent
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.messages import Chunk, Hardware, Specialist, TaskRequest, Timings, Usage


class Lane(IntEnum):
    """Priority of a message on a link; a lower one goes first."""

    CONTROL = 0
    INTERACTIVE = 1
    BACKGROUND = 2


@dataclass(frozen=True, slots=True)
class TimerKey:
    """Names a timer; starting it again replaces it."""

    kind: str
    subject: str = ""


# --- events: the link ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A link to `peer` is up; its identity is proven. Of several links one is ever reported."""

    peer: NodeId
    address: str
    """Multiaddress the peer was dialled at; empty where the peer dialled us."""
    came_from: str = ""
    """Where it dialled us from, as a multiaddress; empty where it was dialled."""


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The link to `peer` is gone."""

    peer: NodeId
    reason: str
    fault: bool = False
    """It ended because the peer, beyond doubt, broke the protocol."""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No new link came of dialling `address`."""

    address: str
    reason: str
    peer: NodeId | None = None
    """Who listens there, where that was proven: a peer that is linked already, by another dial."""
    refused: bool = False
    """The machine is there, and nothing listens at that port."""


@dataclass(frozen=True, slots=True)
class BytesReceived:
    """One whole message from a connected peer, not yet decoded."""

    peer: NodeId
    message: bytes


@dataclass(frozen=True, slots=True)
class AddressFound:
    """Discovery heard of a node that listens at `address` (ending in /p2p/ID)."""

    address: str


# --- events: time and this node -----------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Started:
    """First event of a boot. `boot` is larger than in any earlier life of this identity."""

    boot: int
    addresses: tuple[str, ...]
    """Multiaddresses this node can be dialled at."""


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """This node can be dialled elsewhere than before: a new lease, another network."""

    addresses: tuple[str, ...]
    """All of them, as in `Started`."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer ran out. Ignored unless `generation` is the newest of its key."""

    key: TimerKey
    generation: int


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Say goodbye to everybody and take no more tasks."""


# --- events: tasks of local clients ------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TaskArrived:
    """A local client wants an answer."""

    task: TaskId
    request: TaskRequest


@dataclass(frozen=True, slots=True)
class TaskDropped:
    """The local client of `task` went away."""

    task: TaskId


# --- events: the engine -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class HostingChanged:
    """What this node hosts: the specialists whose models are on its disk."""

    specialists: tuple[Specialist, ...]
    hardware: Hardware
    residency: Residency = UNBOUNDED

    upstream: tuple[Specialist, ...] = ()
    """Endpoints outside the mesh, for this node's own clients; no peer hears of them."""


@dataclass(frozen=True, slots=True)
class EngineLoading:
    """How far the load of `model` is, 0 to 1."""

    model: str
    fraction: float


@dataclass(frozen=True, slots=True)
class EngineReady:
    """The engine of `model` takes runs. `slots` sequences fit its batch."""

    model: str
    slots: int


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine of `model` is gone or going; its runs are dead. It may become ready again."""

    model: str
    reason: str
    final: bool = False
    """It will not, unless it is loaded anew; its memory is free."""


@dataclass(frozen=True, slots=True)
class EngineUnloaded:
    """The engine of `model` has left, as `UnloadModel` asked; its memory is free."""

    model: str


@dataclass(frozen=True, slots=True)
class EngineMeasured:
    """Speeds of the engine of `model`, in tokens a second (see `EngineLoad`)."""

    model: str
    prefill_tps: float
    decode_tps: float
    warm: tuple[int, ...] = ()
    """Runs whose prompts are still in its memory, the last used first."""


@dataclass(frozen=True, slots=True)
class RunProduced:
    """New tokens of a run."""

    run: RunId
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class RunEnded:
    """All choices of a run finished."""

    run: RunId
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run broke off, or never began."""

    run: RunId
    code: FaultCode
    detail: str
    param: str = ""
    """Field of the request that is at fault, if one is."""
    retry_after_ms: int = 0


Event = (
    PeerConnected
    | PeerDisconnected
    | DialFailed
    | BytesReceived
    | AddressFound
    | Started
    | AddressesChanged
    | TimerFired
    | ShutdownRequested
    | TaskArrived
    | TaskDropped
    | HostingChanged
    | ModelOrdered
    | RequestShown
    | EngineLoading
    | EngineReady
    | EngineLost
    | EngineUnloaded
    | EngineMeasured
    | RunProduced
    | RunEnded
    | RunFailed
    | AdmissionEvent
    | ConsensusEvent
    | StateEvent
    | DrainEvent
    | GrowthEvent
    | ReachEvent
)


# --- effects: the link --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Send:
    """Queue an encoded message for a connected peer; nothing where it is not connected."""

    peer: NodeId
    lane: Lane
    message: bytes


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to link to `address`; ends in `PeerConnected` or `DialFailed`."""

    address: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the link after what is queued in the control lane has gone, or two seconds."""

    peer: NodeId
    reason: str


# --- effects: time ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class StartTimer:
    """Fire `TimerFired(key, generation)` after `after_ms`; replaces a running timer of this key."""

    key: TimerKey
    generation: int
    after_ms: int


@dataclass(frozen=True, slots=True)
class StopTimer:
    """Forget a timer. One that fires all the same is stale and ignored."""

    key: TimerKey


# --- effects: the engine ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class LoadModel:
    """Start the engine of `model`; ends in `EngineReady`, or in a final `EngineLost`."""

    model: str


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """End the engine of `model`, on which nothing runs; ends in `EngineUnloaded`."""

    model: str


@dataclass(frozen=True, slots=True)
class StartRun:
    """Give a run to the engine of `model`, with the profile's defaults still to be filled in."""

    run: RunId
    model: str
    profile: str
    request: TaskRequest
    coalesce: bool = False
    """Its tokens may wait `COALESCE_MS` for those that follow, but for the first."""


@dataclass(frozen=True, slots=True)
class StopRun:
    """Stop a run within one step. Its outcome is of no interest."""

    run: RunId
    model: str


# --- effects: local clients ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class RouteChosen:
    """Who will answer `task`, and why. Sent again when an attempt moves to another node."""

    task: TaskId
    node: NodeId
    node_name: str
    profile: str
    model: str
    digest: str
    reason: str
    attempt: int
    continued: str = ""
    """It goes on behind what the client has: in `tokens`, as the former node would have, or in
    `text`, with another model's words. Empty at the beginning of an answer."""


@dataclass(frozen=True, slots=True)
class EmitChunk:
    """Hand new text to the local client: in order, each once."""

    task: TaskId
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class FinishTask:
    """The local client has all of it. The last effect of its task."""

    task: TaskId
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class FailTask:
    """The local client gets an error. The last effect of its task."""

    task: TaskId
    code: FaultCode
    detail: str
    retry_after_ms: int = 0
    param: str = ""
    """Field of the request that is at fault, if one is."""


# --- effects: telling ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tell:
    """Something worth a log line or a count. `topic` is a fixed dotted name."""

    topic: str
    detail: str = ""
    peer: NodeId | None = None
    task: TaskId | None = None


Effect = (
    AdmissionEffect
    | ConsensusEffect
    | StateEffect
    | DrainEffect
    | GrowthEffect
    | ReachEffect
    | Send
    | Dial
    | Disconnect
    | StartTimer
    | StopTimer
    | LoadModel
    | UnloadModel
    | StartRun
    | StopRun
    | RouteChosen
    | EmitChunk
    | FinishTask
    | FailTask
    | OrderAnswered
    | RequestRead
    | Tell
)
