"""Events and effects of a large mesh; `events` has them in its unions."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.wire.admission import Signed


@dataclass(frozen=True, slots=True)
class SealStatement:
    """Sign a statement with this node's key; ends in `StatementSealed`."""

    payload: bytes
    farewell: bytes = b""
    """A second one, for later: what it says when it leaves."""


@dataclass(frozen=True, slots=True)
class StatementSealed:
    """What was to be signed is."""

    signed: Signed
    farewell: Signed | None = None


GrowthEvent = StatementSealed
GrowthEffect = SealStatement
