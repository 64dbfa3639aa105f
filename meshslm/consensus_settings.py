"""The section `[consensus]` of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Switch = Annotated[bool, Meta(extra={"expected": "true or false"})]


class ConsensusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Its part in deciding what there must be one of: rollouts, quotas, revocations."""

    coordinator: Annotated[
        Switch,
        Meta(description="Whether this node keeps a log of decisions and has a vote, if invited."),
    ] = True
    voters: Annotated[
        Literal[0, 1, 3, 5, 7],
        Meta(
            description="Coordinators that decide; any majority of them does. Where there are "
            "fewer members, an odd number of them. 0: only as ordered."
        ),
    ] = 3
    lease_reads: Annotated[
        Switch,
        Meta(
            description="A leader answers questions by itself while no other can have been chosen, "
            "by its clock. Switch it off on machines that are suspended while they run."
        ),
    ] = True
