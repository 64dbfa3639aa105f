"""What a mesh says that is too large for a link between every two: records, and who asks whom.

A `Record` is what a member says of itself, an `Accusation` what another says of it. Both are signed
by their author as the bytes of their message behind `SIGNED_PREFIX`, and are handed on as they are.

Rules:
- The same as for every other message: numbered fields, each with a bound.
- A record is newer by (boot, counter); what is older is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits, mesh_limits
from meshslm.ids import NodeId
from meshslm.wire.admission import Credential, Signed
from meshslm.wire.schema import Tag

_ID = 128
_NAME = limits.NAME_BYTES
_COUNT = 2**53
_BOOTS = 2**48
_EMBEDDED = 64 * limits.KIB


# --- statements ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Service:
    """A specialist, without the texts of its domains."""

    profile: Annotated[str, Tag(1, most=_NAME)]
    model: Annotated[str, Tag(2, most=_NAME)]
    digest: Annotated[str, Tag(3, most=_NAME)]
    quantisation: Annotated[str, Tag(4, most=32)]
    context: Annotated[int, Tag(5, most=_COUNT)]
    slots: Annotated[int, Tag(6, most=4096)]
    domains: Annotated[
        tuple[str, ...], Tag(7, most=_NAME, items=limits.DOMAINS_PER_SPECIALIST)
    ] = ()
    price: Annotated[float, Tag(8, most=1e9)] = 0.0
    batch_invariant: Annotated[bool, Tag(9)] = False
    operations: Annotated[tuple[str, ...], Tag(10, most=16, items=8)] = ("generate",)
    adapters: Annotated[tuple[str, ...], Tag(11, most=_NAME, items=limits.ADAPTERS_ANNOUNCED)] = ()
    private: Annotated[bool, Tag(12)] = False


@dataclass(frozen=True, slots=True)
class Record:
    """What a member says of itself. Only ever inside a `Signed`, by the key of its peer id."""

    KIND: ClassVar[int] = 60
    mesh: Annotated[str, Tag(1, most=_NAME)]
    node: Annotated[NodeId, Tag(2, most=_ID)]
    boot: Annotated[int, Tag(3, most=_BOOTS)]
    counter: Annotated[int, Tag(4, most=_COUNT)]
    life: Annotated[int, Tag(5, most=_COUNT)] = 0
    """Begun anew whenever the member refutes that it is gone."""
    left: Annotated[bool, Tag(6)] = False
    """It has gone by its own will."""
    name: Annotated[str, Tag(7, most=_NAME)] = ""
    addresses: Annotated[tuple[str, ...], Tag(8, most=256, items=limits.ADDRESSES_PER_PEER)] = ()
    """Without their last part, /p2p/ID."""
    roles: Annotated[tuple[str, ...], Tag(9, most=32, items=8)] = ()
    services: Annotated[tuple[Service, ...], Tag(10, items=mesh_limits.SERVICES)] = ()
    credential: Annotated[Credential | None, Tag(11)] = None
    """Of a private mesh: its certificate."""
    dialled: Annotated[bool, Tag(12)] = False
    """Others have dialled it in this life, so it can be reached."""


@dataclass(frozen=True, slots=True)
class Accusation:
    """That one life of a member seems over. Only ever inside a `Signed`, by the key of `by`."""

    KIND: ClassVar[int] = 61
    node: Annotated[NodeId, Tag(1, most=_ID)]
    boot: Annotated[int, Tag(2, most=_BOOTS)]
    life: Annotated[int, Tag(3, most=_COUNT)]
    by: Annotated[NodeId, Tag(4, most=_ID)]


# --- between neighbours -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Beat:
    """The sender is there, and this is the sum of what it knows."""

    KIND: ClassVar[int] = 62
    root: Annotated[int, Tag(1, most=2**64 - 1)]
    """XOR of the marks of all members that it takes for alive."""
    neighbour: Annotated[bool, Tag(2)] = True
    """It takes the receiver for a neighbour, or asks to be one."""
    quiet: Annotated[bool, Tag(3)] = False
    """Nothing has changed there for a while, so that a difference is not just news on its way."""


@dataclass(frozen=True, slots=True)
class Part:
    """The receiver is no neighbour of the sender, or no longer."""

    KIND: ClassVar[int] = 63


@dataclass(frozen=True, slots=True)
class Facts:
    """Signed records and accusations."""

    KIND: ClassVar[int] = 64
    statements: Annotated[tuple[Signed, ...], Tag(1, items=mesh_limits.FACTS)]
    asked: Annotated[bool, Tag(2)] = False
    """In answer to a comparison, not because they are new."""


@dataclass(frozen=True, slots=True)
class Prune:
    """What the receiver sends as news comes another way too: it need not."""

    KIND: ClassVar[int] = 65


@dataclass(frozen=True, slots=True)
class Digest:
    """What the sender knows, in parts, to be compared."""

    KIND: ClassVar[int] = 66
    buckets: Annotated[bytes, Tag(1, most=8 * mesh_limits.BUCKETS)]
    """XOR of the marks of the members in each bucket, big-endian, 8 bytes each."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Every member that the sender takes for alive in some buckets."""

    KIND: ClassVar[int] = 67
    buckets: Annotated[bytes, Tag(1, most=mesh_limits.BUCKETS)]
    """Their numbers, a byte each."""
    marks: Annotated[bytes, Tag(2, most=8 * mesh_limits.MEMBERS)]
    """Big-endian: 4 bytes for the member, 4 for what is known of it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Statements that the sender lacks, by their marks."""

    KIND: ClassVar[int] = 68
    marks: Annotated[bytes, Tag(1, most=8 * mesh_limits.MEMBERS)]


# --- between a node and a coordinator -----------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ask:
    """Who can take such a request, and how busy are they?"""

    KIND: ClassVar[int] = 69
    number: Annotated[int, Tag(1, most=_COUNT)]
    topic: Annotated[str, Tag(2, most=2 * _NAME)]
    name: Annotated[str, Tag(3, most=_NAME)] = ""
    """Profile or model, where one is asked for."""
    adapter: Annotated[str, Tag(4, most=_NAME)] = ""
    operation: Annotated[str, Tag(5, most=16)] = ""
    cards: Annotated[bool, Tag(6)] = False
    """The texts of the domain are wanted too."""
    tokens: Annotated[int, Tag(7, most=_COUNT)] = 0
    """That the answer may have, about; 0: nobody knows."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One who can."""

    node: Annotated[NodeId, Tag(1, most=_ID)]
    presence: Annotated[bytes, Tag(2, most=_EMBEDDED)]
    """The message with which it told how busy it is."""
    age_ms: Annotated[int, Tag(3, most=_COUNT)] = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers an `Ask`."""

    KIND: ClassVar[int] = 70
    number: Annotated[int, Tag(1, most=_COUNT)]
    offers: Annotated[tuple[Offer, ...], Tag(2, items=mesh_limits.OFFERS)] = ()
    card: Annotated[bytes, Tag(3, most=2 * _EMBEDDED)] = b""
    """A `Capability` message with the one domain that was asked for."""


GrowthMessage = (
    Record | Accusation | Beat | Part | Facts | Prune | Digest | Marks | Wanted | Ask | Answer
)
