"""What can go wrong in a simulation, as a scenario writes it down.

Rules:
- A fault says what happens and when; who is hit is drawn from the seed, unless `nodes` says so.
- Times are seconds of virtual time.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshslm.sim.tables import Count, NotNegative, Positive, Share, Table


class Aimed(Table, frozen=True, kw_only=True):
    """A fault of single nodes."""

    at_s: NotNegative
    count: Count = 1
    nodes: tuple[int, ...] = ()
    """Which ones, counted from 0; empty: `count` drawn from the living."""


class Lasting(Aimed, frozen=True, kw_only=True):
    """One that is over after a while."""

    for_s: Positive


class Kill(Aimed, frozen=True, kw_only=True, tag_field="kind", tag="kill"):
    """Processes die at once and lose their state; their machines close what they had open."""

    back_after_s: Positive | None = None
    """Started again with the same identity so much later; never where it is left out."""
    silent: bool = False
    """The machine lost power: nobody is told, what peers send it goes nowhere."""
    disk_lost: bool = False
    """What comes back has a new disk: another identity, and no count of its boots."""


class Hang(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="hang"):
    """Processes stop (as by SIGSTOP) and later go on; connections stay open meanwhile."""

    clock_stops: bool = False
    """Their clocks stop too, as when a machine sleeps: afterwards they do not know of it."""


class Leave(Aimed, frozen=True, kw_only=True, tag_field="kind", tag="leave"):
    """Nodes are asked to shut down, and end when they had time to say goodbye."""

    back_after_s: Positive | None = None


class Churn(Table, frozen=True, kw_only=True, tag_field="kind", tag="churn"):
    """Kills at random instants, each followed by a restart."""

    from_s: NotNegative
    to_s: Positive
    every_s: Positive
    """Mean time between two kills."""
    down_s: Positive = 3.0
    silent_share: Share = 0.3


class Partition(Table, frozen=True, kw_only=True, tag_field="kind", tag="partition"):
    """The network falls into groups that do not hear each other, and heals."""

    at_s: NotNegative
    for_s: Positive
    shares: tuple[Positive, ...] = (0.5, 0.5)
    """Sizes of the groups, relative to each other; who is in which is drawn."""


class OneWay(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="one_way"):
    """Some nodes are heard by nobody, while they hear everybody."""


class Cut(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="cut"):
    """Some nodes and some others do not hear each other, while all others hear both."""

    from_nodes: tuple[int, ...] = ()
    """The others; empty: `from_count` drawn."""
    from_count: Count = 1
    one_way: bool = False
    """Only the others do not hear the nodes: these still hear them."""


class Clog(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="clog"):
    """The uplinks of some nodes become narrow."""

    bandwidth_mbit: Positive = 0.1


class Rough(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="rough"):
    """What some nodes send and receive is lost, doubled, overtaken and late."""

    loss: Share = 0.2
    duplicate: Share = 0.0
    reorder: Share = 0.0
    delay_ms: NotNegative = 0.0
    """Added to each message, either way."""


class Flap(Table, frozen=True, kw_only=True, tag_field="kind", tag="flap"):
    """The connections of some nodes go silent at random instants, for a moment each."""

    from_s: NotNegative
    to_s: Positive
    every_s: Positive
    """Mean time between two silences of one node."""
    down_s: Positive = 1.0
    count: Count = 1
    nodes: tuple[int, ...] = ()


class Busy(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="busy"):
    """Processes run half of the time, as where others want the processor too."""

    pause_ms: Positive = 400.0
    """The longest time without it, and the longest with it; each is drawn."""


class ClockFault(Aimed, frozen=True, kw_only=True, tag_field="kind", tag="clock"):
    """The clocks of some nodes jump ahead, and go wrong from then on."""

    jump_s: NotNegative = 0.0
    drift_ppm: Annotated[float, msgspec.Meta(ge=-500_000, le=500_000)] = 0.0
    """Millionths by which they are fast from then on; a bad quartz has 100."""


class SlowDisk(Lasting, frozen=True, kw_only=True, tag_field="kind", tag="slow_disk"):
    """What some nodes read from disk takes longer: the loads of their models."""

    times: Annotated[float, msgspec.Meta(ge=1.0)] = 10.0


class EngineCrash(Aimed, frozen=True, kw_only=True, tag_field="kind", tag="engine_crash"):
    """Engine processes die below their daemons, and come back."""

    for_s: Positive = 1.0


class NatRestart(Aimed, frozen=True, kw_only=True, tag_field="kind", tag="nat_restart"):
    """The NAT boxes of some nodes forget the connections through them."""


Fault = (
    Kill
    | Hang
    | Leave
    | Churn
    | Partition
    | OneWay
    | Cut
    | Clog
    | Rough
    | Flap
    | Busy
    | ClockFault
    | SlowDisk
    | EngineCrash
    | NatRestart
)


def end_s(fault: Fault) -> float:
    """When the mesh is whole again, as far as this fault is concerned."""
    if isinstance(fault, Churn | Flap):
        return fault.to_s + fault.down_s
    if isinstance(fault, Kill | Leave):
        return fault.at_s + (fault.back_after_s or 0.0)
    if isinstance(fault, ClockFault | NatRestart):
        return fault.at_s
    return fault.at_s + fault.for_s
