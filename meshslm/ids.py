"""Names for things, and the one unit of time.

Everything here is a plain value, so that a decision can be replayed from its inputs.

Rules:
- An `Instant` is a whole number of microseconds since an origin that only its clock knows.
  It is compared and subtracted, never shown. Durations are named `*_ms`.
- Identifiers are minted from a `Chance` that was handed in, never from the system.
"""

from __future__ import annotations

from typing import NewType

NodeId = NewType("NodeId", str)
"""A libp2p peer id in base58, derived from the node's Ed25519 public key."""

TaskId = NewType("TaskId", str)
"""128 random bits in hex: one request of one client, on whatever nodes it runs."""

RunId = NewType("RunId", int)
"""One execution on one node's engine; counts up from one in each boot."""

Instant = NewType("Instant", int)
"""Microseconds on a monotonic clock."""

MICROSECONDS_PER_MS = 1000


def after(now: Instant, duration_ms: float) -> Instant:
    """The instant `duration_ms` milliseconds after `now`."""
    return Instant(now + int(duration_ms * MICROSECONDS_PER_MS))


def ms_between(earlier: Instant, later: Instant) -> float:
    """Milliseconds from `earlier` to `later`; negative where they are the other way round."""
    return (later - earlier) / MICROSECONDS_PER_MS
