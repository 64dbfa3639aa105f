"""How long things take in a group of coordinators.

Clocks are asked for durations alone, and may show anything. What the lease needs of them: between
two nodes the same stretch of time may differ by `ELECTION / LEASE`, a third. A clock that stands
still while its machine sleeps breaks that, so such machines read without a lease.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import mesh_limits


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in milliseconds, and sizes, of one group."""

    heartbeat_ms: int = mesh_limits.HEARTBEAT_MS
    election_ms: int = mesh_limits.ELECTION_MS
    """A follower waits for its leader from this to twice this long, and helps nobody to take its
    place before."""
    lease_ms: int = mesh_limits.LEASE_MS
    """0: every question costs a round of heartbeats."""
    log_entries: int = mesh_limits.LOG_ENTRIES
    append_entries: int = mesh_limits.APPEND_ENTRIES
    part_bytes: int = mesh_limits.SNAPSHOT_PART_BYTES
