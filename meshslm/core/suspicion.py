"""How long to wait before a silent peer counts as dead, and how far this node trusts itself.

Source: Lifeguard (Dadgar, Phillips, Currey 2018): a suspicion that others share is sooner believed,
and a node that has trouble itself gives others more time.

Rules:
- A wait never gets longer by a confirmation, and stays between its two bounds.
- Health moves a step at a time, up by a sign of trouble here, down by an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log

from meshslm import mesh_limits
from meshslm.ids import NodeId


def silence_ms(confirmed: int, wanted: int) -> float:
    """Silence after which a suspect is dead, with `confirmed` of `wanted` further suspicions.

    Falls by the logarithm, so that the first confirmation counts most. With nobody there to
    confirm, one's own suspicion has to do.
    """
    if confirmed >= wanted:
        return mesh_limits.SUSPICION_MS
    span = mesh_limits.SUSPICION_MOST_MS - mesh_limits.SUSPICION_MS
    return mesh_limits.SUSPICION_MOST_MS - span * log(confirmed + 1) / log(wanted + 1)


@dataclass(slots=True)
class Suspicion:
    """That one life of a peer may be over."""

    by: dict[NodeId, None] = field(default_factory=dict)
    """Who came to suspect it, this node among them or not: the first few."""

    def confirm(self, by: NodeId) -> bool:
        """Somebody suspects it; true where that was not known and counts."""
        if by in self.by or len(self.by) > mesh_limits.CONFIRMATIONS:
            return False
        self.by[by] = None
        return True

    def wait_ms(self, members: int, stretch: int) -> float:
        """Silence to wait for in a mesh of `members`, this node and the suspect included."""
        wanted = min(mesh_limits.CONFIRMATIONS, max(0, members - 2))
        return silence_ms(max(0, len(self.by) - 1), wanted) * stretch


class Health:
    """Signs that it is this node that is slow or cut off, and not the others."""

    def __init__(self) -> None:
        self._trouble = 0

    @property
    def stretch(self) -> int:
        """By what waits for others are multiplied; 1 while all is well."""
        return 1 + self._trouble

    def worse(self) -> None:
        """A timer came late, nobody answers, or others suspect this node."""
        self._trouble = min(self._trouble + 1, mesh_limits.HEALTH_MOST)

    def better(self) -> None:
        """A peer answered."""
        self._trouble = max(self._trouble - 1, 0)
