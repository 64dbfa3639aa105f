"""How nodes find out who can be dialled, and link directly where nobody can be: on the wire.

Rules:
- The same as for every other message: numbered fields, each with a bound.
- What a node is told about itself is hearsay, and what it asks others to dial is bounded: only
  where it comes from itself, so that nobody can be made to knock at a third one's door.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits
from meshslm.wire.schema import Tag

_ADDRESS = 256
_COUNT = 2**53


@dataclass(frozen=True, slots=True)
class Seen:
    """Where the receiver is seen to come from, and whether the sender relays for it."""

    KIND: ClassVar[int] = 76
    address: Annotated[str, Tag(1, most=_ADDRESS)] = ""
    """Empty where the sender dialled the receiver."""
    relay: Annotated[bool, Tag(2)] = False


@dataclass(frozen=True, slots=True)
class DialBack:
    """Asks the receiver to dial the sender anew, at one of these addresses."""

    KIND: ClassVar[int] = 77
    number: Annotated[int, Tag(1, most=_COUNT)]
    addresses: Annotated[tuple[str, ...], Tag(2, most=_ADDRESS, items=limits.ADDRESSES_PER_PEER)]


@dataclass(frozen=True, slots=True)
class DialedBack:
    """What came of a `DialBack`."""

    KIND: ClassVar[int] = 78
    number: Annotated[int, Tag(1, most=_COUNT)]
    outcome: Annotated[str, Tag(2, most=16)]
    """`reached`, `failed` or `refused`; others count as refused."""
    address: Annotated[str, Tag(3, most=_ADDRESS)] = ""
    """Which of the addresses was dialled."""
    detail: Annotated[str, Tag(4, most=256)] = ""


@dataclass(frozen=True, slots=True)
class Punch:
    """Over a relay: let us dial each other at the same time. Three of them, as in DCUtR.

    `offer` and `answer` bring addresses, and the time between the two is a round trip; `now` makes
    its receiver dial at once, while its sender waits for half of that.
    """

    KIND: ClassVar[int] = 79
    step: Annotated[str, Tag(1, most=16)]
    number: Annotated[int, Tag(2, most=_COUNT)]
    addresses: Annotated[
        tuple[str, ...], Tag(3, most=_ADDRESS, items=limits.ADDRESSES_PER_PEER)
    ] = ()


ReachMessage = Seen | DialBack | DialedBack | Punch
