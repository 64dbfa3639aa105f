"""How the coordinators of a mesh agree on the few things of which there must be one.

It is Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014): ballots, appended entries,
snapshots in parts; and what any member asks the coordinators.

Rules:
- The same as for every other message: numbered fields, each with a bound.
- Every message between coordinators names its group: two groups never mix.
- `Kept` is what a log holds on disk and a snapshot carries; it never travels by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits, mesh_limits
from meshslm.ids import NodeId
from meshslm.wire.schema import Tag

_ID = 128
_COUNT = 2**53
_GROUP = 32
_CODE = 32
_DETAIL = 256
_NOBODY = NodeId("")


# --- parts --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Seat:
    """One coordinator: a node and the disk that it acknowledges with."""

    node: Annotated[NodeId, Tag(1, most=_ID)]
    store: Annotated[int, Tag(2, most=_COUNT)] = 0
    """Drawn when its log was made: a node that lost its log has another. 0: not known yet."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who decides."""

    voters: Annotated[tuple[Seat, ...], Tag(1, items=mesh_limits.SEATS)] = ()
    learners: Annotated[tuple[Seat, ...], Tag(2, items=mesh_limits.SEATS)] = ()
    """They receive everything and have no vote."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be decided; which fields count depends on `act`."""

    act: Annotated[str, Tag(1, most=_CODE)]
    """`rollout.begin`, `rollout.end`, `quota.set`, `quota.grant`, `quota.release`, `revoke` or
    `generation`."""
    subject: Annotated[str, Tag(2, most=_ID)]
    holder: Annotated[str, Tag(3, most=_ID)] = ""
    value: Annotated[str, Tag(4, most=mesh_limits.DECISION_VALUE_BYTES)] = ""
    amount: Annotated[int, Tag(5, most=_COUNT)] = 0
    expected: Annotated[int, Tag(6, most=_COUNT)] = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A command that is carried out once, however often it is sent."""

    id: Annotated[str, Tag(1, most=_GROUP)]
    base: Annotated[int, Tag(2, most=_COUNT)]
    """An index that was committed when it was made: results are kept for so long after it."""
    command: Annotated[Command, Tag(3)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in the log. With neither of both it only marks the begin of a leader's term."""

    index: Annotated[int, Tag(1, most=_COUNT)]
    term: Annotated[int, Tag(2, most=_COUNT)]
    proposal: Annotated[Proposal | None, Tag(3)] = None
    configuration: Annotated[Configuration | None, Tag(4)] = None


@dataclass(frozen=True, slots=True)
class Share:
    """What one holder has of a quota."""

    holder: Annotated[str, Tag(1, most=_ID)]
    amount: Annotated[int, Tag(2, most=_COUNT)]


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that is decided."""

    kind: Annotated[str, Tag(1, most=_CODE)]
    """`rollout`, `quota`, `revoked` or `generation`."""
    subject: Annotated[str, Tag(2, most=_ID)]
    value: Annotated[str, Tag(3, most=mesh_limits.DECISION_VALUE_BYTES)] = ""
    amount: Annotated[int, Tag(4, most=_COUNT)] = 0
    """Of a quota: all there is; of a generation: its number."""
    revision: Annotated[int, Tag(5, most=_COUNT)] = 0
    """Index of the entry that made it what it is."""
    shares: Annotated[tuple[Share, ...], Tag(6, items=mesh_limits.SHARES)] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a proposal."""

    id: Annotated[str, Tag(1, most=_GROUP)]
    index: Annotated[int, Tag(2, most=_COUNT)]
    code: Annotated[str, Tag(3, most=_CODE)]
    """`decided`, or why not."""
    detail: Annotated[str, Tag(4, most=_DETAIL)] = ""


@dataclass(frozen=True, slots=True)
class Decisions:
    """All that is decided, and what became of the last proposals."""

    decisions: Annotated[tuple[Decision, ...], Tag(1, items=mesh_limits.DECISIONS)] = ()
    results: Annotated[tuple[Result, ...], Tag(2, items=mesh_limits.PROPOSALS_REMEMBERED)] = ()


# --- messages -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ballot:
    """The sender wants to lead in `term`."""

    KIND: ClassVar[int] = 112
    group: Annotated[str, Tag(1, most=_GROUP)]
    term: Annotated[int, Tag(2, most=_COUNT)]
    last_index: Annotated[int, Tag(3, most=_COUNT)]
    last_term: Annotated[int, Tag(4, most=_COUNT)]
    pre: Annotated[bool, Tag(5)] = False
    """It only asks whether it would get the vote; nobody's term changes."""
    handover: Annotated[bool, Tag(6)] = False
    """The present leader asked it to: that this one is heard does not count against it."""


@dataclass(frozen=True, slots=True)
class BallotReply:
    """Answers a `Ballot`."""

    KIND: ClassVar[int] = 113
    group: Annotated[str, Tag(1, most=_GROUP)]
    term: Annotated[int, Tag(2, most=_COUNT)]
    """The voter's; of a vote that was asked for beforehand and given: the one asked for."""
    granted: Annotated[bool, Tag(3)] = False
    pre: Annotated[bool, Tag(4)] = False
    store: Annotated[int, Tag(5, most=_COUNT)] = 0


@dataclass(frozen=True, slots=True)
class Append:
    """The leader's entries behind `previous_index`, or only that it is there."""

    KIND: ClassVar[int] = 114
    group: Annotated[str, Tag(1, most=_GROUP)]
    term: Annotated[int, Tag(2, most=_COUNT)]
    previous_index: Annotated[int, Tag(3, most=_COUNT)]
    previous_term: Annotated[int, Tag(4, most=_COUNT)]
    entries: Annotated[tuple[Entry, ...], Tag(5, items=mesh_limits.APPEND_ENTRIES)] = ()
    commit: Annotated[int, Tag(6, most=_COUNT)] = 0
    round: Annotated[int, Tag(7, most=_COUNT)] = 0
    """Repeated in the reply: so the leader knows since when it was still followed."""
    stand: Annotated[bool, Tag(8)] = False
    """The leader hands over: stand for election at once."""


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Answers an `Append` or a `SnapshotPart`."""

    KIND: ClassVar[int] = 115
    group: Annotated[str, Tag(1, most=_GROUP)]
    term: Annotated[int, Tag(2, most=_COUNT)]
    success: Annotated[bool, Tag(3)]
    match: Annotated[int, Tag(4, most=_COUNT)]
    """On success: up to here both logs are the same, durably. Else: where to try next."""
    round: Annotated[int, Tag(5, most=_COUNT)] = 0
    store: Annotated[int, Tag(6, most=_COUNT)] = 0
    offset: Annotated[int | None, Tag(7, most=_COUNT)] = None
    """Of a snapshot that is not whole yet: the next byte that is wanted."""


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """A part of a snapshot, for a coordinator that lacks entries which are no longer kept."""

    KIND: ClassVar[int] = 116
    group: Annotated[str, Tag(1, most=_GROUP)]
    term: Annotated[int, Tag(2, most=_COUNT)]
    index: Annotated[int, Tag(3, most=_COUNT)]
    """The last entry that is in it."""
    last_term: Annotated[int, Tag(4, most=_COUNT)]
    configuration: Annotated[Configuration, Tag(5)]
    offset: Annotated[int, Tag(6, most=limits.MESSAGE_BYTES)]
    total: Annotated[int, Tag(7, most=limits.MESSAGE_BYTES)]
    data: Annotated[bytes, Tag(8, most=mesh_limits.SNAPSHOT_PART_BYTES)]
    round: Annotated[int, Tag(9, most=_COUNT)] = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A member proposes something, or wants to know what is decided."""

    KIND: ClassVar[int] = 117
    id: Annotated[str, Tag(1, most=_GROUP)]
    proposal: Annotated[Proposal | None, Tag(2)] = None
    """None: what is decided, of this kind and subject, is asked for."""
    topic: Annotated[str, Tag(3, most=_CODE)] = ""
    """Empty: of every kind."""
    subject: Annotated[str, Tag(4, most=_ID)] = ""
    """Empty: about every subject."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers an `Asked`."""

    KIND: ClassVar[int] = 118
    id: Annotated[str, Tag(1, most=_GROUP)]
    code: Annotated[str, Tag(2, most=_CODE)]
    """`decided` (of a question: what is), `elsewhere`, `busy`, or why it is refused."""
    detail: Annotated[str, Tag(3, most=_DETAIL)] = ""
    index: Annotated[int, Tag(4, most=_COUNT)] = 0
    """What was committed then."""
    decisions: Annotated[tuple[Decision, ...], Tag(5, items=mesh_limits.DECISIONS)] = ()
    leader: Annotated[NodeId, Tag(6, most=_ID)] = _NOBODY
    coordinators: Annotated[tuple[NodeId, ...], Tag(7, most=_ID, items=mesh_limits.SEATS)] = ()
    """Whom to ask instead."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry, or all that is decided: as a log has it on disk."""

    KIND: ClassVar[int] = 119
    entry: Annotated[Entry | None, Tag(1)] = None
    decisions: Annotated[Decisions | None, Tag(2)] = None
    configuration: Annotated[Configuration | None, Tag(3)] = None


ConsensusMessage = (
    Ballot | BallotReply | Append | AppendReply | SnapshotPart | Asked | Answered | Kept
)
