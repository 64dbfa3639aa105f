"""What coordinators decide, over HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from meshslm import mesh_limits
from meshslm.api.acts import Act

Words = Annotated[str, Meta(max_length=128)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class CommandRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /mesh/consensus/decisions`; which fields count depends on `act`."""

    act: Act
    subject: Annotated[str, Meta(min_length=1, max_length=128)]
    """A model, a quota's name, what is revoked, or a document."""
    holder: Words = ""
    value: Annotated[str, Meta(max_length=mesh_limits.DECISION_VALUE_BYTES)] = ""
    amount: Count = 0
    expected: Count = 0


class SeatRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /mesh/consensus/seats`."""

    order: Literal["found", "add", "remove", "transfer"]
    node: Words = ""


class ShareInfo(msgspec.Struct, kw_only=True):
    """What one holder has of a quota."""

    holder: str
    amount: int


class DecisionInfo(msgspec.Struct, kw_only=True):
    """Something that is decided."""

    kind: str
    subject: str
    value: str = ""
    amount: int = 0
    revision: int = 0
    shares: list[ShareInfo] = []


class DecisionReply(msgspec.Struct, kw_only=True):
    """What was decided, and as of which entry of the log."""

    index: int
    decisions: list[DecisionInfo] = []


class SeatInfo(msgspec.Struct, kw_only=True):
    """A coordinator; without a vote it only learns."""

    node: str
    votes: bool


class ConsensusReply(msgspec.Struct, kw_only=True):
    """Answer of `GET /mesh/consensus`: the group, seen from the asked node."""

    group: str
    role: str
    term: int
    leader: str
    coordinators: list[str]
    seats: list[SeatInfo]
    committed: int
    last: int
    decisions: int
    unwritten: int
    trouble: str
