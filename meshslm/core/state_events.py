"""Events and effects of shared documents: what the journal and local programs tell, and are told.

Rules:
- What is given to the journal in one `Persist` is durable together, or not at all.
- A number that was persisted is answered by one `StatePersisted`, in the order of numbers; one
  that fails may be answered by any number of `StateNotPersisted` first, as it is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.errors import FaultCode
from meshslm.ids import NodeId
from meshslm.state.entry import Entry
from meshslm.state.part import PartKey
from meshslm.wire.state import SignedDelta


@dataclass(frozen=True, slots=True)
class StoredDelta:
    """A signed delta, and what of it the journal has to know."""

    part: PartKey
    before: int
    after: int
    signed: SignedDelta


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A part's state at a clock, in the CRDT library's own form: for this node's own use alone."""

    part: PartKey
    clock: int
    content: bytes
    base: bool
    sealed: bool
    logged: int
    """Bytes of all deltas up to here, and how many they are."""
    deltas: int
    state: bytes


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part as the journal has it: the last snapshot, and the deltas behind it, in order."""

    part: PartKey
    snapshot: StoredSnapshot | None
    deltas: tuple[StoredDelta, ...] = ()


# --- events -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class StateOpened:
    """What the journal holds; after `Started`, and before anything else about documents."""

    parts: tuple[StoredPart, ...] = ()
    clean: bool = False
    """The last life of this node said goodbye to this very journal."""
    forgotten: tuple[PartKey, ...] = ()
    """Parts of these authors, up to these generations, are given up for ever."""


@dataclass(frozen=True, slots=True)
class StatePersisted:
    """What was given under this number, and all lower ones, is durable."""

    number: int


@dataclass(frozen=True, slots=True)
class StateNotPersisted:
    """It could not be written yet: the disk is full, or broken. It is tried again."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeltasRead:
    """Answers a `ReadDeltas`."""

    request: int
    deltas: tuple[StoredDelta, ...]
    more: bool = False
    """There are further ones behind them."""


@dataclass(frozen=True, slots=True)
class PartReloaded:
    """Answers a `ReloadPart`."""

    stored: StoredPart


@dataclass(frozen=True, slots=True)
class Change:
    """What a program wants to become of one key."""

    key: str
    value: bytes | None
    """None: the entry is to be deleted."""
    revision: int | None = None
    """Only if this is the present revision; 0: only if there is no entry. None: in any case."""
    expires_ms: int = 0
    """Milliseconds since 1970 after which it is no more; 0: never."""


@dataclass(frozen=True, slots=True)
class StateWrite:
    """A local program changes a document: all of it or nothing. Answered by `StateWritten`."""

    request: int
    document: str
    changes: tuple[Change, ...]
    unix_ms: int


@dataclass(frozen=True, slots=True)
class StateCheckAsked:
    """Compare all documents with every member that is there, now."""


@dataclass(frozen=True, slots=True)
class DayIs:
    """What the wall clock says, now and then: what is of days long past is cleared away."""

    unix_ms: int


@dataclass(frozen=True, slots=True)
class HistoryAsked:
    """A local program asks what became of tasks that entered elsewhere; see `HistoryFound`."""

    number: int
    task: str = ""
    """Empty: the newest ones."""
    limit: int = 1
    """Of each member, at most."""
    state: str = ""
    """Of the newest only those whose last event is of this kind; empty: any."""


StateEvent = (
    StateOpened
    | StatePersisted
    | StateNotPersisted
    | DeltasRead
    | PartReloaded
    | StateWrite
    | StateCheckAsked
    | DayIs
    | HistoryAsked
)


# --- effects ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Persist:
    """Make this durable, in one transaction; ends in `StatePersisted`."""

    number: int
    deltas: tuple[StoredDelta, ...] = ()
    snapshots: tuple[StoredSnapshot, ...] = ()
    dropped: tuple[PartKey, ...] = ()
    """Parts whose place another has taken, or which are given up."""
    forgotten: tuple[PartKey, ...] = ()
    """To be remembered: parts of these authors, up to these generations, are given up."""


@dataclass(frozen=True, slots=True)
class ReadDeltas:
    """Read stored deltas of a part that reach beyond `clock`, up to so many bytes or one delta.

    Ends in `DeltasRead`. Sees what was given to `Persist` before.
    """

    request: int
    part: PartKey
    clock: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class ReloadPart:
    """Read all of a part again; ends in `PartReloaded`."""

    part: PartKey


@dataclass(frozen=True, slots=True)
class StateWritten:
    """The answer to a `StateWrite`: it is durable on this node, or was not done."""

    request: int
    revisions: tuple[int, ...] = ()
    """Of each change, in order."""
    code: FaultCode | None = None
    """Why it was not done."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Entries of a document have changed, durably; whoever watches looks at them.

    `document` exists for whoever follows it; keys are sorted.
    """

    document: str
    keys: tuple[str, ...]
    entries: tuple[Entry | None, ...]
    """What now holds under each key; None: its last entry went away with a part."""


@dataclass(frozen=True, slots=True)
class PastTaskAt:
    """A task that entered at another member."""

    node: NodeId
    task: str
    events: bytes
    """JSON as that member gave it: a list of what happened, or anything else."""


@dataclass(frozen=True, slots=True)
class HistoryFound:
    """The end of a `HistoryAsked`."""

    number: int
    found: tuple[PastTaskAt, ...]
    silent: tuple[NodeId, ...]
    """Who was asked and has not said what it has."""


StateEffect = Persist | ReadDeltas | ReloadPart | StateWritten | StateChanged | HistoryFound
