"""What a node is told at its start and never changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm import limits, mesh_limits
from meshslm.core.certificates import Credentials
from meshslm.core.records import VerifyNode
from meshslm.core.state_config import StateConfig
from meshslm.core.strategies import AUTO
from meshslm.ids import NodeId
from meshslm.wire import codec
from meshslm.wire.messages import Message


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """Settings of one core."""

    node: NodeId
    name: str
    mesh: str = "default"
    """Nodes of open meshes that give different names here refuse each other."""
    agent: str = ""
    """Program and version, for people."""
    bootstrap: tuple[str, ...] = ()
    """Multiaddresses dialled until they answer, for ever."""
    roles: tuple[str, ...] = ("coordinator", "gateway", "specialist")
    credentials: Credentials | None = None
    """Of a private mesh; None: the mesh is open."""
    queue_per_engine: int = limits.QUEUE_PER_ENGINE
    voters: int = 3
    """Coordinators that decide what there must be one of, where this node leads them; 0: as they
    were ordered."""
    lease_reads: bool = True
    """A leader answers from what it knows while no other can have been chosen."""
    hedge: float = 0.0
    """Share of requests that may be asked of two nodes, where the first is late."""
    state: StateConfig | None = None
    """Shared documents; None: this node has none."""
    semantic: bool = False
    """Judge what requests are about, and how hard they are, by trained weights: with vectors of an
    embedding model, where one is loaded here."""
    unsure_below: float = 0.3
    """Least probability with which a domain is then recognised."""
    tiers: tuple[float, float] = (0.3, 0.7)
    """Complexities from which a larger model, and from which an upstream is to answer."""
    full_mesh: int = mesh_limits.FULL_MESH
    """Other members up to which every two keep a link."""
    decode: Callable[[bytes], Message] = codec.decode
    """Reads what peers send; raises what `codec.decode` raises. Messages never change: where many
    nodes of one process hear the same bytes, they may share what they mean."""
    verify_node: VerifyNode | None = None
    """Checks what other members have signed; without it a mesh never counts as large here."""
    strategy: str = AUTO
    """By which requests are routed that name none; see `core.strategies`."""
    relay: str | None = None
    """Relay for members: `off`, `on`, or in a private mesh, if others can dial this node, `auto`.
    None: do not even find out whether they can."""
