"""What a node is told at its start and never changes."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import limits
from meshslm.ids import NodeId


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """Settings of one core."""

    node: NodeId
    name: str
    mesh: str = "default"
    """Nodes that give different names here refuse each other."""
    agent: str = ""
    """Program and version, for people."""
    bootstrap: tuple[str, ...] = ()
    """Multiaddresses dialled until they answer, for ever."""
    roles: tuple[str, ...] = ("coordinator", "gateway", "specialist")
    queue_per_engine: int = limits.QUEUE_PER_ENGINE
