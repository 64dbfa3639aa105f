"""How a request is to be routed, and how it would be: `routing`, its headers, `POST /mesh/route`.

Rules:
- The same thing said in a field and in a header, differently, is refused.
- An unknown strategy is refused with the names of those that there are.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from meshslm import limits
from meshslm.api.decode import bad_request
from meshslm.api.fields import check_bytes, check_choice
from meshslm.strategies import STRATEGIES

STRATEGY_HEADER = "x-meshslm-strategy"
CONVERSATION_HEADER = "x-meshslm-conversation"
PRIVATE_HEADER = "x-meshslm-private"
CASCADE_HEADER = "x-meshslm-cascade"

T = TypeVar("T")

_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class RoutingShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`routing` of a request: what its client says about who is to answer."""

    strategy: str | None = None
    conversation: str | None = None
    """Requests of the same name stay at one node where they can."""
    private: bool | None = None
    """The prompt does not leave the mesh for an upstream."""
    cascade: bool | None = None
    """A small model answers first, and a larger one where that is not good enough."""

    def check(self) -> None:
        """Raises `RequestFault` where it makes no sense."""
        check_choice(self.strategy, "routing.strategy", STRATEGIES)
        check_bytes(self.conversation or "", "routing.conversation", limits.NAME_BYTES)


def with_headers(
    shape: RoutingShape,
    *,
    strategy: str | None,
    conversation: str | None,
    private: str | None,
    cascade: str | None = None,
) -> RoutingShape:
    """What field and headers say together; raises `RequestFault` where they disagree."""
    check_choice(strategy, STRATEGY_HEADER, STRATEGIES)
    check_choice(private and private.lower(), PRIVATE_HEADER, _TRUTHS)
    check_choice(cascade and cascade.lower(), CASCADE_HEADER, _TRUTHS)
    check_bytes(conversation or "", CONVERSATION_HEADER, limits.NAME_BYTES)
    in_steps = None if cascade is None else _TRUTHS[cascade.lower()]
    meant = None if private is None else _TRUTHS[private.lower()]
    return RoutingShape(
        strategy=_one(shape.strategy, strategy, "strategy", STRATEGY_HEADER),
        conversation=_one(shape.conversation, conversation, "conversation", CONVERSATION_HEADER),
        private=_one(shape.private, meant, "private", PRIVATE_HEADER),
        cascade=_one(shape.cascade, in_steps, "cascade", CASCADE_HEADER),
    )


def _one(field: T | None, header: T | None, name: str, header_name: str) -> T | None:
    if field is not None and header is not None and field != header:
        raise bad_request(
            f"'routing.{name}' ({field}) and the header {header_name} ({header}) disagree; give "
            "one of them.",
            f"routing.{name}",
        )
    return header if field is None else field


class CostTerms(msgspec.Struct, kw_only=True):
    """What asking one candidate is expected to cost, each part in milliseconds."""

    network: float
    queue: float
    prefill: float
    decode: float
    load: float
    price: float
    power: float
    reliability: float
    trust: float
    sticky: float
    total: float


class CandidateInfo(msgspec.Struct, kw_only=True):
    """One specialist on one node, as the choice sees it."""

    node: str
    node_name: str
    profile: str
    model: str
    rank: int
    """From 1; 0 where it was dropped."""
    dropped: str
    """Why it was not in the choice; empty where it was."""
    upstream: bool
    cost_ms: CostTerms | None
    """None where it was dropped."""


class DomainScore(msgspec.Struct, kw_only=True):
    """How well the text fits a domain."""

    domain: str
    score: float


class ComplexitySign(msgspec.Struct, kw_only=True):
    """Something about a request that makes it harder, and how much of the estimate that is."""

    sign: str
    weight: float


class RouteReply(msgspec.Struct, kw_only=True):
    """Answer of `POST /mesh/route`: who would be asked, and why. Nothing was run."""

    node: str
    """Who would be asked; empty where nobody can be."""
    node_name: str
    profile: str
    model: str
    reason: str
    """Why, or why nobody."""
    strategy: str
    tier: str
    complexity: float | None
    signs: list[ComplexitySign] = []
    """What the complexity is the sum of, the weightiest first."""
    domains: list[DomainScore]
    candidates: list[CandidateInfo]
