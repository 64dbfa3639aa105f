"""How shared documents travel: signed deltas, and how nodes find out who lacks which.

A `Delta` is signed by its author as the bytes of its message behind `SIGNED_PREFIX`, and travels
as these bytes with their signature, so that whoever keeps it can hand it on and be believed.

Rules:
- The same as for every other message: numbered fields, each with a bound.
- A part of a document is what one author wrote in one generation; it is named by (document,
  author, generation), and its clock counts the author's changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits, state_limits
from meshslm.ids import NodeId
from meshslm.wire.admission import Credential
from meshslm.wire.histories import HistoryMessage
from meshslm.wire.schema import Tag

SIGNATURE_BYTES = 64
MESH_BYTES = 16
VECTOR_BYTES = 8
CONTENT_BYTES = 16
_ID = 128
_COUNT = 2**53
_GENERATIONS = 2**64 - 1
_DOCUMENT = state_limits.DOCUMENT_NAME_BYTES


# --- parts --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SignedDelta:
    """A `Delta` as its author encoded it, and the author's signature."""

    payload: Annotated[bytes, Tag(1, most=state_limits.SIGNED_DELTA_BYTES)]
    signature: Annotated[bytes, Tag(2, most=SIGNATURE_BYTES)]


@dataclass(frozen=True, slots=True)
class DocumentDigest:
    """What a node holds of one document, in short."""

    document: Annotated[str, Tag(1, most=_DOCUMENT)]
    vector: Annotated[bytes, Tag(2, most=VECTOR_BYTES)]
    """Hash over the clocks of all parts."""
    content: Annotated[bytes, Tag(3, most=CONTENT_BYTES)]
    """Sum over the values; to be compared where the vectors are equal."""


@dataclass(frozen=True, slots=True)
class PartClock:
    """How much of one part a node holds."""

    author: Annotated[NodeId, Tag(1, most=_ID)]
    generation: Annotated[int, Tag(2, most=_GENERATIONS)]
    clock: Annotated[int, Tag(3, most=_COUNT)] = 0
    content: Annotated[bytes, Tag(4, most=CONTENT_BYTES)] = b""
    """Sum over its values; only where a divergence is looked into."""


@dataclass(frozen=True, slots=True)
class Holding:
    """How much of one part of one document a node holds."""

    document: Annotated[str, Tag(1, most=_DOCUMENT)]
    part: Annotated[PartClock, Tag(2)]


# --- messages -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Delta:
    """A statement: changes that one author made to its part of a document. Never by itself."""

    KIND: ClassVar[int] = 100
    mesh: Annotated[bytes, Tag(1, most=MESH_BYTES)]
    """Which mesh it was written in: it means nothing in another."""
    author: Annotated[NodeId, Tag(2, most=_ID)]
    document: Annotated[str, Tag(3, most=_DOCUMENT)]
    generation: Annotated[int, Tag(4, most=_GENERATIONS)]
    before: Annotated[int, Tag(5, most=_COUNT)]
    """Clock of the part that it follows on."""
    after: Annotated[int, Tag(6, most=_COUNT)]
    updates: Annotated[
        tuple[bytes, ...], Tag(7, most=state_limits.UPDATE_BYTES, items=state_limits.DELTA_UPDATES)
    ]
    """Yjs updates, version 1, of a flat map: one for each write, in order."""
    base: Annotated[bool, Tag(8)] = False
    """With this the part has all that its author's earlier generations have, and replaces them."""
    sealed: Annotated[bool, Tag(9)] = False
    """It is the last one of its part."""


@dataclass(frozen=True, slots=True)
class StateInterest:
    """Documents that the sender wants: names, or beginnings that end in `*`."""

    KIND: ClassVar[int] = 101
    patterns: Annotated[tuple[str, ...], Tag(1, most=_DOCUMENT, items=state_limits.INTERESTS)] = ()
    answer: Annotated[bool, Tag(2)] = False
    """Say what you want, too: what was said before we took each other for members is lost."""


@dataclass(frozen=True, slots=True)
class StateSummary:
    """One hash over all documents that both sides want; nothing is answered where it agrees."""

    KIND: ClassVar[int] = 102
    total: Annotated[bytes, Tag(1, most=CONTENT_BYTES)]


@dataclass(frozen=True, slots=True)
class StateDigests:
    """What the sender holds of the documents that both sides want."""

    KIND: ClassVar[int] = 103
    digests: Annotated[tuple[DocumentDigest, ...], Tag(1, items=state_limits.DIGESTS)] = ()
    more: Annotated[bool, Tag(2)] = False
    """Further ones follow: what is not among them may be among those."""
    nonce: Annotated[int, Tag(3, most=_COUNT)] = 0
    """Of the `StateCheck` that it answers; 0: of none."""


@dataclass(frozen=True, slots=True)
class StateVector:
    """What the sender holds of one document, part by part."""

    KIND: ClassVar[int] = 104
    document: Annotated[str, Tag(1, most=_DOCUMENT)]
    parts: Annotated[tuple[PartClock, ...], Tag(2, items=state_limits.PARTS)] = ()
    want: Annotated[bool, Tag(3)] = False
    """Send what is missing."""
    partial: Annotated[bool, Tag(4)] = False
    """Nothing is said of parts that are not listed."""
    contents: Annotated[bool, Tag(5)] = False
    """It comes with sums, to find the part in which two replicas differ."""
    forgotten: Annotated[tuple[PartClock, ...], Tag(6, items=state_limits.PARTS)] = ()
    """Parts of these authors up to these generations are given up for ever: do not send them."""
    came: Annotated[tuple[int, ...], Tag(7, most=_COUNT, items=state_limits.STATE_CAME)] = ()
    """Numbers of answers of the receiver that have come since they were last told."""


@dataclass(frozen=True, slots=True)
class StateDeltas:
    """Signed deltas: pushed by their author, or handed on to who asked."""

    KIND: ClassVar[int] = 105
    deltas: Annotated[tuple[SignedDelta, ...], Tag(1, items=state_limits.DELTAS)] = ()
    packed: Annotated[bytes, Tag(2, most=limits.MESSAGE_BYTES)] = b""
    """The same, encoded as such a message and compressed by zlib; then `deltas` is empty."""
    document: Annotated[str, Tag(3, most=_DOCUMENT)] = ""
    """The document whose `StateVector` this answers."""
    more: Annotated[bool, Tag(4)] = False
    """There are more than these; ask again."""
    answer: Annotated[int, Tag(5, most=_COUNT)] = 0
    """Number of this answer, to be told in `came` of the next `StateVector`; 0: it has none."""


@dataclass(frozen=True, slots=True)
class StateHave:
    """The sender has come to hold these: whoever holds less may ask."""

    KIND: ClassVar[int] = 106
    holdings: Annotated[tuple[Holding, ...], Tag(1, items=state_limits.HOLDINGS)] = ()


@dataclass(frozen=True, slots=True)
class StateCheck:
    """Asks for `StateDigests` with the same nonce, to compare."""

    KIND: ClassVar[int] = 107
    nonce: Annotated[int, Tag(1, most=_COUNT)]


@dataclass(frozen=True, slots=True)
class AuthorWanted:
    """Asks for the credential of a node that wrote something, and may not be here."""

    KIND: ClassVar[int] = 108
    author: Annotated[NodeId, Tag(1, most=_ID)]


@dataclass(frozen=True, slots=True)
class AuthorShown:
    """The credential of a node that wrote something."""

    KIND: ClassVar[int] = 109
    author: Annotated[NodeId, Tag(1, most=_ID)]
    credential: Annotated[Credential, Tag(2)]


StateMessage = (
    Delta
    | StateInterest
    | StateSummary
    | StateDigests
    | StateVector
    | StateDeltas
    | StateHave
    | StateCheck
    | AuthorWanted
    | AuthorShown
    | HistoryMessage
)
