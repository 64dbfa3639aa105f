"""Which versions of the protocol this node speaks, and which one two nodes use.

The protocol id in libp2p names the stream format (frames, msgpack, the hello). It changes only
when a reader of the old one could not even refuse politely. Everything else is a version number
inside the hello: both sides name the lowest and highest they speak, and use the highest common one.
"""

from __future__ import annotations

from typing import Final

PROTOCOL_ID: Final = "/meshslm/1.0.0"
"""Offered and asked for when a stream is opened."""

PROTOCOL_LOW: Final = 1
PROTOCOL_HIGH: Final = 2
"""Lowest and highest version that this program speaks."""

SIGNED_ADDRESSES: Final = 2
"""From this version on members hand on each other's addresses as signed records."""

OURS: Final = (PROTOCOL_LOW, PROTOCOL_HIGH)
UNSIGNED: Final = (PROTOCOL_LOW, SIGNED_ADDRESSES - 1)
"""Of a node that can check no signatures."""


def negotiate(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """The highest version in both (low, high) ranges; None where they have none in common.

    Symmetric, so both sides of a link arrive at the same one without another message.
    """
    low, high = max(ours[0], theirs[0]), min(ours[1], theirs[1])
    if low > high or theirs[0] > theirs[1]:
        return None
    return high
