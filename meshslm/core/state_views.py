"""What a person or a program may see of shared documents, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.ids import NodeId
from meshslm.state.document import Statistics


@dataclass(frozen=True, slots=True)
class CheckView:
    """The last comparison of everything with one peer."""

    node: NodeId
    state: str
    """`equal`, `behind` where one side lacks something, `diverged`, or `waiting`."""
    documents: int
    """Compared."""
    behind: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StateView:
    """Shared documents on one node."""

    ready: bool
    trouble: str
    """Why nothing can be stored at present; empty where it can."""
    documents: tuple[Statistics, ...]
    taken: int
    """Deltas of others that were taken since the start."""
    refused: int
    compared: int
    agreed: int
    diverged: int
    repaired: int
    rebuilt: int
    checks: tuple[CheckView, ...] = ()
