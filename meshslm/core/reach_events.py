"""Events and effects of how this node is reached: trial dials, relays, direct upgrades.

Rules:
- As for all events and effects: frozen values; whatever comes of an effect returns as an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.ids import NodeId


@dataclass(frozen=True, slots=True)
class DialTried:
    """What came of a `TryDial`."""

    number: int
    reached: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reserved:
    """A relay takes calls for this node, as long as their link lasts, and for `seconds` at most."""

    relay: NodeId
    seconds: int


@dataclass(frozen=True, slots=True)
class NotReserved:
    """A relay will not, or cannot."""

    relay: NodeId
    reason: str


ReachEvent = DialTried | Reserved | NotReserved


@dataclass(frozen=True, slots=True)
class TryDial:
    """Find out whether the peer named in `address` answers there; no link comes of it.

    Ends in one `DialTried`.
    """

    number: int
    address: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """Ask a linked relay to take calls for this node; ends in `Reserved` or `NotReserved`."""

    relay: NodeId


@dataclass(frozen=True, slots=True)
class OfferRelay:
    """Relay for members from now on, or no longer."""

    on: bool


@dataclass(frozen=True, slots=True)
class PunchTo:
    """Dial a peer that dials this node at the same time: a direct link replaces a relayed one.

    Nothing is told where it fails.
    """

    address: str


ReachEffect = TryDial | Reserve | OfferRelay | PunchTo
