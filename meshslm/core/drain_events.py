"""Events and effects of a node that finishes its work and leaves; part of the core's vocabulary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Take nothing new, finish or hand over what is under way, then say `Drained`.

    A second request may only make the time shorter.
    """

    limit_ms: int
    """Whatever is left then ends with the node."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is left, or the time is up: the node may go."""

    whole: bool
    """Nothing was broken off."""


DrainEvent = DrainRequested
DrainEffect = Drained
