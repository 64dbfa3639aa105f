"""Events and effects of consensus; `core.events` has them in its unions.

Rules:
- What a reply promises is on disk before the reply leaves: `PersistLog` goes out, and what
  depends on it is held back until `LogPersisted` of its number comes in.
- Numbers of `PersistLog` count up, and are performed in this order; `LogPersisted` covers all up to
  its number.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.ids import NodeId
from meshslm.wire.consensus import Command, Configuration, Decision, Entry

NOBODY = NodeId("")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What all entries up to `index` came to."""

    index: int
    term: int
    configuration: Configuration
    data: bytes
    """`Kept.decisions`, encoded."""


# --- events -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class LogRecovered:
    """What this node's log holds; the first event of consensus in a boot. Without it there is none.

    Entries follow the snapshot without a gap.
    """

    store: int
    """Drawn when the log was made, above 0."""
    group: str = ""
    """Empty: this node was never in a group."""
    term: int = 0
    vote: NodeId | None = None
    snapshot: Snapshot | None = None
    entries: tuple[Entry, ...] = ()
    founding: bool = False
    """The mesh was made here: begin a group, if there is none."""


@dataclass(frozen=True, slots=True)
class LogPersisted:
    """Everything up to this number is on disk."""

    number: int


@dataclass(frozen=True, slots=True)
class LogFailed:
    """The disk does not take the log: this node promises nothing more until it is restarted."""

    detail: str


@dataclass(frozen=True, slots=True)
class DecisionWanted:
    """Somebody here proposes a command or, without one, asks what is decided.

    Answered by one `DecisionMade` of the same number.
    """

    number: int
    command: Command | None
    kind: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class SeatOrdered:
    """An operator founds a group, or changes who decides; answered at once by `DecisionMade`."""

    number: int
    order: str
    """`found`, `add`, `remove` or `transfer`."""
    node: NodeId = NOBODY


ConsensusEvent = LogRecovered | LogPersisted | LogFailed | DecisionWanted | SeatOrdered


# --- effects ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PersistLog:
    """Write durably, as one: first the cut, then the snapshot, then the entries."""

    number: int
    group: str
    term: int
    vote: NodeId | None
    cut: int | None = None
    """Entries from this index on are no more."""
    snapshot: Snapshot | None = None
    """It stands for all entries up to its index, which are no more."""
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """The end of `DecisionWanted` or `SeatOrdered`."""

    number: int
    code: str
    """`decided`; or why not: `no_majority` and `unknown` may still come to be, others never."""
    detail: str = ""
    index: int = 0
    decisions: tuple[Decision, ...] = ()


ConsensusEffect = PersistLog | DecisionMade
