"""What shared documents need from outside the core, and their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm import limits, state_limits
from meshslm.ids import NodeId

INTERESTS = ("registry", "rollout", "memory/*", "ledger/*")
"""Documents that a node keeps unless told otherwise. Journals stay with their authors."""


@dataclass(frozen=True, slots=True)
class StateConfig:
    """Shared documents of one node."""

    sign: Callable[[bytes], bytes]
    """This node's signature over bytes. Deterministic; never raises."""
    verify: Callable[[NodeId, bytes, bytes], bool]
    """Whether a signature (third) over data (second) is by a node (first). Never raises."""
    mesh: bytes = b""
    """Which mesh: what was written in another is refused."""
    interests: tuple[str, ...] = INTERESTS
    """Documents that this node keeps, beside those that it writes to: names, or beginnings with
    `*` behind them."""
    document_bytes: int = state_limits.DOCUMENT_MIB * limits.MIB
    """Live bytes of this node in one document."""
