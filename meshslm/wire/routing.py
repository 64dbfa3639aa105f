"""How a client wants its request to be routed: part of a request, of use where it entered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from meshslm import limits
from meshslm.wire.schema import Tag


@dataclass(frozen=True, slots=True)
class Routing:
    """What a client says about the choice of who answers."""

    strategy: Annotated[str, Tag(1, most=32)] = ""
    """Name of a strategy; empty: the node's own."""
    conversation: Annotated[str, Tag(2, most=limits.NAME_BYTES)] = ""
    """Requests with the same name stay together where they can; empty: told by their turns."""
    private: Annotated[bool, Tag(3)] = False
    """The prompt does not leave the mesh."""
    cascade: Annotated[bool, Tag(4)] = False
    """A small model answers first, and a larger one where that is not good enough."""


ROUTED_ANYHOW: Final = Routing()
