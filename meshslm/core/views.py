"""What a person or a program may see of a node: snapshots of the core, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.core.state_views import StateView
from meshslm.ids import NodeId
from meshslm.wire.messages import EngineLoad, Hardware, Specialist


@dataclass(frozen=True, slots=True)
class PeerView:
    """One node as this node sees it; this node itself is among them."""

    node: NodeId
    name: str
    state: str
    """`self`, `alive`, `connecting`, `unreachable` or `left`."""
    agent: str
    address: str
    """Multiaddress in use, or the last one known."""
    rtt_ms: float | None
    heard_ms: float | None
    """Time since its last message."""
    specialists: tuple[Specialist, ...]
    hardware: Hardware
    loads: tuple[EngineLoad, ...]
    addresses: tuple[str, ...] = ()
    """Multiaddresses where it says that it listens."""


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """Tasks that entered at this node, since its start."""

    arrived: int
    finished: int
    failed: int
    cancelled: int
    active: int
    retried: int
    """Attempts after a first one."""
    continued: int
    """Attempts that went on behind tokens which the client had."""
    served: int
    """Runs begun on this node, for whomever."""
    refused: int
    """Runs refused by this node."""
    hedged: int = 0
    """Asked of a second node too, as the first was late."""
    hedges_won: int = 0
    """Answered by that one."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """One base model on this node's disk."""

    model: str
    state: str
    """`absent`, `waiting` for memory, `loading`, `ready`, `draining` for another, `restarting`,
    `unloading` or `failed`."""
    loaded: float
    """How much of it is loaded, 0 to 1."""
    need_mib: int
    """Memory that it takes, estimated."""
    pinned: bool
    reason: str
    """Why it is restarting, or failed."""


@dataclass(frozen=True, slots=True)
class DialView:
    """One address from the configuration at which a member is looked for."""

    address: str
    state: str
    """`linked`, `dialling` or `waiting`."""
    peer: NodeId
    """Who answered or must answer there; empty where that is not known."""
    attempts: int
    """Rounds of dials in a row that came to nothing."""
    last_ms: float | None
    """Time since the last attempt; None before the first one."""
    reason: str
    """Why that came to nothing; empty where it did not, or while it is under way."""
    next_ms: float | None
    """Time until the next attempt; None while one is under way, or where it is linked."""


@dataclass(frozen=True, slots=True)
class BanView:
    """One identity to which no link is taken for a time."""

    node: NodeId
    reason: str
    """Of its last strike."""
    strikes: int
    left_ms: float
    """Until a link is taken again."""


@dataclass(frozen=True, slots=True)
class DrainView:
    """How far a node is that finishes its work and leaves."""

    left_ms: float
    """Until it leaves, whatever is left."""
    tasks: int
    """Answers to its own clients that are under way."""
    runs: int
    """Runs here for other nodes that have not moved to others yet."""


@dataclass(frozen=True, slots=True)
class WitnessView:
    """What one linked member knows of how this node is reached."""

    node: NodeId
    seen: str
    """Multiaddress it sees this node come from; empty where it has dialled this node."""
    outcome: str
    """`reached`, `failed`, `asked` or `not asked`."""
    address: str
    """Where it dialled this node when asked to."""
    detail: str
    relays: bool
    """It relays for members."""


@dataclass(frozen=True, slots=True)
class RelayView:
    """A member that was asked to take calls for this node."""

    node: NodeId
    used: bool
    age_ms: float
    """Since it was asked."""
    reason: str = ""
    """Why it is not used."""


@dataclass(frozen=True, slots=True)
class ReachView:
    """How this node is reached by others."""

    state: str = "unknown"
    """`public`, `private` or `unknown`."""
    reason: str = ""
    witnesses: tuple[WitnessView, ...] = ()
    relays: tuple[RelayView, ...] = ()
    offers_relay: bool = False
    relayed: tuple[NodeId, ...] = ()
    """Peers linked through a third one."""


@dataclass(frozen=True, slots=True)
class DhtView:
    """How members are looked for through a distributed hash table."""

    servers: tuple[str, ...]
    """Those of the settings."""
    answered: int = 0
    """Servers that answered in the last round."""
    found: int = 0
    """Addresses of members that were found then."""
    kept: int = 0
    """Servers that keep this node's addresses."""
    age_ms: float | None = None
    """Since then; None before the first round is over."""
    reason: str = ""
    """Why nobody answered."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """One node about itself."""

    node: NodeId
    name: str
    mesh: str
    version: str
    boot: int
    uptime_ms: float
    addresses: tuple[str, ...]
    peers_alive: int
    """Other nodes, not counting this one."""
    leaving: bool
    tasks: TaskCounts
    loads: tuple[EngineLoad, ...]
    models: tuple[ModelView, ...] = ()
    memory_budget_mib: int = 0
    """Memory for all models together; 0: without bound."""
    bootstrap: tuple[DialView, ...] = ()
    banned: tuple[BanView, ...] = ()
    state: StateView | None = None
    """Shared documents; None where this node has none."""
    drain: DrainView | None = None
    """None where it is not leaving."""
    reach: ReachView = ReachView()
    dht: DhtView | None = None
    """None where members are not looked for so."""
