"""Where members of a small mesh listen, in their own signed words.

From version 2 on these take the place of `Peers`, which anybody may make up.

Rules:
- The same as for every other message: numbered fields, each with a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits
from meshslm.wire.admission import Signed
from meshslm.wire.schema import Tag


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Records of members, the sender's own among them or not."""

    KIND: ClassVar[int] = 120
    records: Annotated[tuple[Signed, ...], Tag(1, items=limits.PEERS_PER_EXCHANGE)] = ()
    """Each a `Record` that its member has signed."""


@dataclass(frozen=True, slots=True)
class Introduce:
    """Whom does the receiver know that the sender does not? Answered by `Whereabouts`, or not."""

    KIND: ClassVar[int] = 121
    known: Annotated[bytes, Tag(1, most=4 * limits.PEERS)] = b""
    """Members that the sender is linked with: the first 4 bytes of BLAKE2b of each one's id, with
    a digest of 4 bytes."""


WhereaboutsMessage = Whereabouts | Introduce
