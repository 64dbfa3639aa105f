"""How what a client has of several choices is divided among them: part of a request that goes on.

Rules:
- The parts stand one behind the other, in the order of the choices, and leave nothing over.
- A node that does not know of it sees several choices and something delivered, and refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, TypeVar

from meshslm import limits
from meshslm.wire.schema import Tag

Whole = TypeVar("Whole", bytes, str)


@dataclass(frozen=True, slots=True)
class Shares:
    """Each choice's part of `delivered`, or of `begun`, and how it ended."""

    sizes: Annotated[tuple[int, ...], Tag(1, most=limits.PROMPT_BYTES, items=limits.CHOICES)] = ()
    """Bytes of `delivered`, or characters of `begun`."""
    finishes: Annotated[tuple[str, ...], Tag(2, most=32, items=limits.CHOICES)] = ()
    """`stop`, `length` or `tool_calls`; empty for a choice that goes on."""

    def parts(self, whole: Whole) -> list[Whole]:
        """The parts of all choices. Raises `ValueError` where sizes, parts and ends do not fit."""
        if sum(self.sizes) != len(whole) or len(self.sizes) != len(self.finishes):
            raise ValueError(
                f"{len(self.sizes)} parts of {sum(self.sizes)} altogether and {len(self.finishes)} "
                f"ends, where {len(whole)} were delivered"
            )
        places = accumulate(self.sizes, initial=0)
        return [whole[start:end] for start, end in pairwise(places)]
