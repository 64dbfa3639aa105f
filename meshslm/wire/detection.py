"""How nodes find out who is there, on the wire: pings, probes for others, and what is said of whom.

Rules:
- The same as for every other message: numbered fields, each with a bound.
- What one node says of another is hearsay: nobody is given up because somebody said so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import mesh_limits
from meshslm.ids import NodeId
from meshslm.wire.schema import Tag

_ID = 128
_COUNT = 2**53
_BOOTS = 2**48
_NOBODY = NodeId("")


@dataclass(frozen=True, slots=True)
class News:
    """What somebody holds of a node: hearsay, to be looked into."""

    node: Annotated[NodeId, Tag(1, most=_ID)]
    state: Annotated[str, Tag(2, most=16)]
    """`alive`, `suspect` or `dead`; others are ignored."""
    boot: Annotated[int, Tag(3, most=_BOOTS)]
    counter: Annotated[int, Tag(4, most=_COUNT)] = 0
    """Grows with each suspicion that the node refutes. It is said of (`boot`, `counter`) alone."""
    by: Annotated[NodeId, Tag(5, most=_ID)] = _NOBODY
    """Who came to suspect it."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `Pong` with the same nonce: is the receiver there, and how far away?"""

    KIND: ClassVar[int] = 6
    nonce: Annotated[int, Tag(1, most=_COUNT)]
    news: Annotated[tuple[News, ...], Tag(2, items=mesh_limits.NEWS)] = ()


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a `Ping`."""

    KIND: ClassVar[int] = 7
    nonce: Annotated[int, Tag(1, most=_COUNT)]
    news: Annotated[tuple[News, ...], Tag(2, items=mesh_limits.NEWS)] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks the receiver to find out whether `peer` answers it. Each is answered by one `Probed`."""

    KIND: ClassVar[int] = 9
    peer: Annotated[NodeId, Tag(1, most=_ID)]
    nonce: Annotated[int, Tag(2, most=_COUNT)]


@dataclass(frozen=True, slots=True)
class Probed:
    """Answers a `Probe`."""

    KIND: ClassVar[int] = 10
    peer: Annotated[NodeId, Tag(1, most=_ID)]
    nonce: Annotated[int, Tag(2, most=_COUNT)]
    reached: Annotated[bool, Tag(3)] = False


@dataclass(frozen=True, slots=True)
class Gossip:
    """News that does not wait for the next ping."""

    KIND: ClassVar[int] = 11
    news: Annotated[tuple[News, ...], Tag(1, items=mesh_limits.NEWS)] = ()


DetectionMessage = Ping | Pong | Probe | Probed | Gossip
