"""What a node tells about itself and its mesh over HTTP.

The shapes follow the core's views field by field (a test compares them), so that the gateway only
copies; they are separate because the client must not need the core.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshslm import limits

DEFAULT_URL = f"http://127.0.0.1:{limits.HTTP_PORT}"
"""Where a client finds the node of its own machine."""

LONGEST_MS = limits.DEADLINE_MS
"""Time for a request that names no deadline, and the longest it may name."""


class Card(msgspec.Struct, kw_only=True):
    """What a domain is about."""

    domain: str
    sentence: str = ""
    examples: list[str] = []


class SpecialistInfo(msgspec.Struct, kw_only=True):
    """One profile on one node."""

    profile: str
    model: str
    digest: str
    quantisation: str
    context: int
    slots: int
    domains: list[Card] = []
    price: float = 0.0
    batch_invariant: bool = False
    operations: list[str] = msgspec.field(default_factory=lambda: ["generate"])
    """What it can be asked for: `generate`, `embed`, `rerank`, `tokenize`, ..."""
    adapters: list[str] = []
    """LoRA adapters that a request may name."""
    size_mib: int = 0
    """Of its model's weights; 0 where nobody knows."""
    private: bool = False
    """Prompts of its domains never go to an upstream."""


class HardwareInfo(msgspec.Struct, kw_only=True):
    """What a node runs on."""

    cores: int = 0
    memory_mib: int = 0
    features: list[str] = []
    accelerator: str = ""
    on_battery: bool = False
    battery: float = 1.0
    """How full it is, 0 to 1."""
    temperature_c: float = 0.0
    """Of the processor; 0 where the system does not tell."""
    metered: bool = False
    """Its link is paid for by volume."""


class LoadInfo(msgspec.Struct, kw_only=True):
    """How busy the engine of one base model is. Speeds in tokens a second, 0 while unmeasured."""

    model: str
    ready: bool
    running: int = 0
    queued: int = 0
    free_slots: int = 0
    prefill_tps: float = 0.0
    decode_tps: float = 0.0
    run_ms: float = 0.0
    """How long its runs take of late; 0 while none has ended."""
    load_ms: float = 0.0
    """How long its last load took; 0 while there was none."""
    wait_ms: float = 0.0
    """How long a request that comes now would wait for a slot, about."""


class PeerInfo(msgspec.Struct, kw_only=True):
    """One node as the asked node sees it; the asked node itself has the state `self`."""

    node: str
    name: str
    state: str
    agent: str
    address: str
    rtt_ms: float | None
    heard_ms: float | None
    specialists: list[SpecialistInfo]
    hardware: HardwareInfo
    loads: list[LoadInfo]
    addresses: list[str] = []


class PeersReply(msgspec.Struct, kw_only=True):
    """Answer of `GET /mesh/peers`."""

    peers: list[PeerInfo]


class TaskCountsInfo(msgspec.Struct, kw_only=True):
    """Tasks that entered at the asked node, since its start."""

    arrived: int
    finished: int
    failed: int
    cancelled: int
    active: int
    retried: int
    continued: int
    served: int
    refused: int
    hedged: int = 0
    hedges_won: int = 0


class ModelStatus(msgspec.Struct, kw_only=True):
    """One base model on the asked node's disk."""

    model: str
    state: str
    loaded: float = 0.0
    need_mib: int = 0
    pinned: bool = False
    reason: str = ""


class UnloadRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /mesh/models/{name}/unload`; without one nothing is broken off."""

    now: bool = False
    """Hand back what runs on it, too."""


class DialInfo(msgspec.Struct, kw_only=True):
    """One address from the asked node's configuration at which it looks for a member."""

    address: str
    state: str
    peer: str = ""
    attempts: int = 0
    last_ms: float | None = None
    reason: str = ""
    next_ms: float | None = None


class BanInfo(msgspec.Struct, kw_only=True):
    """One identity to which the asked node takes no link for a time."""

    node: str
    reason: str
    strikes: int
    left_ms: float


class DrainRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /mesh/drain`."""

    limit_s: Annotated[float, msgspec.Meta(ge=0, le=limits.DRAIN_MS / 1000)] = 60.0
    """The node leaves then, whatever is left."""


class DrainInfo(msgspec.Struct, kw_only=True):
    """How far the asked node is that finishes its work and leaves."""

    left_ms: float
    tasks: int
    runs: int


class WitnessInfo(msgspec.Struct, kw_only=True):
    """What one linked member knows of how the node is reached."""

    node: str
    seen: str
    outcome: str
    address: str
    detail: str
    relays: bool


class RelayInfo(msgspec.Struct, kw_only=True):
    """A member that was asked to take calls for the node."""

    node: str
    used: bool
    age_ms: float
    reason: str


class ReachInfo(msgspec.Struct, kw_only=True):
    """How the node is reached by others."""

    state: str = "unknown"
    reason: str = ""
    witnesses: list[WitnessInfo] = []
    relays: list[RelayInfo] = []
    offers_relay: bool = False
    relayed: list[str] = []


class DhtInfo(msgspec.Struct, kw_only=True):
    """How the node looks for members through a distributed hash table."""

    servers: list[str]
    answered: int
    """Servers that answered in the last round."""
    found: int
    """Addresses of members found then."""
    kept: int
    """Servers that keep the node's addresses."""
    age_ms: float | None
    reason: str


class StateInfo(msgspec.Struct, kw_only=True):
    """Shared documents of the asked node, in short; `GET /mesh/state` has each of them."""

    ready: bool
    trouble: str = ""
    """Why nothing can be stored at present; empty where it can."""
    count: int = 0
    live_bytes: int = 0
    full_bytes: int = 0
    """With what was written over."""
    quarantined: int = 0
    """Documents that differ from another replica and are being mended."""
    diverged: int = 0
    """Comparisons since the start that found such a difference."""
    waiting: int = 0
    """Writes of local programs that are not durable yet."""


class StatusReply(msgspec.Struct, kw_only=True):
    """Answer of `GET /mesh/status`."""

    node: str
    name: str
    mesh: str
    version: str
    boot: int
    uptime_ms: float
    addresses: list[str]
    peers_alive: int
    leaving: bool
    tasks: TaskCountsInfo
    loads: list[LoadInfo]
    models: list[ModelStatus] = []
    memory_budget_mib: int = 0
    bootstrap: list[DialInfo] = []
    banned: list[BanInfo] = []
    state: StateInfo | None = None
    """None where the node keeps no shared documents."""
    drain: DrainInfo | None = None
    reach: ReachInfo = msgspec.field(default_factory=ReachInfo)
    dht: DhtInfo | None = None
    """None where it does not look for members so."""


class Readiness(msgspec.Struct, kw_only=True):
    """Answer of `GET /readyz`: 200 when ready, else 503."""

    ready: bool
    reason: str


class Health(msgspec.Struct, kw_only=True):
    """Answer of `GET /healthz`: the process is there and its loop turns."""

    status: str = "ok"
