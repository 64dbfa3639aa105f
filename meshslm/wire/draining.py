"""How a node that leaves lets go of what it does for others, on the wire.

Rules:
- The same as for every other message: numbered fields, each with a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits
from meshslm.wire.schema import Tag


@dataclass(frozen=True, slots=True)
class Draining:
    """The sender leaves: the receiver is to go on elsewhere with what the sender serves it.

    Said again while there is something left; what can go on nowhere else is finished until then.
    """

    KIND: ClassVar[int] = 94
    left_ms: Annotated[int, Tag(1, most=limits.DRAIN_MS)]
    """Until the sender goes, whatever is left."""


DrainMessage = Draining
