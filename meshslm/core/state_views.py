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
    known: int = 0
    """Deltas of others that were here when they came."""
    waiting: int = 0
    """Writes of local programs that are not durable yet."""

    @property
    def count(self) -> int:
        """Documents of which something is here."""
        return len(self.documents)

    @property
    def live_bytes(self) -> int:
        """Of all documents."""
        return sum(document.live_bytes for document in self.documents)

    @property
    def full_bytes(self) -> int:
        """The same with what was written over."""
        return sum(document.full_bytes for document in self.documents)

    @property
    def quarantined(self) -> int:
        """Documents that differ from another replica and are being mended."""
        return sum(document.quarantined for document in self.documents)
