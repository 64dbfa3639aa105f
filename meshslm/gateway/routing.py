"""Routing as clients see it: its headers, and `POST /mesh/route`, which runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from meshslm.api.decode import bad_request
from meshslm.api.routing import (
    CASCADE_HEADER,
    CONVERSATION_HEADER,
    PRIVATE_HEADER,
    STRATEGY_HEADER,
    CandidateInfo,
    ComplexitySign,
    CostTerms,
    DomainScore,
    RouteReply,
    RoutingShape,
    with_headers,
)
from meshslm.core.candidates import Assessment, Decision, Verdict
from meshslm.gateway.body import read_body
from meshslm.gateway.jobs import Job
from meshslm.gateway.openai_jobs import read_chat, read_completion
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService
from meshslm.gateway.translate import routing_of, tenant
from meshslm.wire.routing import ROUTED_ANYHOW

_HEADERS = (STRATEGY_HEADER, CONVERSATION_HEADER, PRIVATE_HEADER, CASCADE_HEADER)


def routed(job: Job, scope: Scope) -> Job:
    """A job with what its request's headers say of routing.

    Raises `RequestFault` where they make no sense, or say something else than its body.
    """
    said = _said(scope)
    if not said:
        return job
    body = job.requests[0].routing
    conversation = said.get(CONVERSATION_HEADER)
    shape = with_headers(
        RoutingShape(
            strategy=body.strategy or None,
            conversation=body.conversation or None,
            private=body.private or None,
            cascade=body.cascade or None,
        ),
        strategy=said.get(STRATEGY_HEADER),
        conversation=None if conversation is None else tenant(conversation),
        private=said.get(PRIVATE_HEADER),
        cascade=said.get(CASCADE_HEADER),
    )
    routing = replace(
        routing_of(
            RoutingShape(strategy=shape.strategy, private=shape.private, cascade=shape.cascade)
        ),
        conversation=shape.conversation or "",
    )
    if routing == ROUTED_ANYHOW:
        return job
    return replace(job, requests=tuple(replace(r, routing=routing) for r in job.requests))


def _said(scope: Scope) -> dict[str, str]:
    """What the headers say; raises `RequestFault` where one is there twice and differs."""
    wanted = tuple(name.encode() for name in _HEADERS)
    said: dict[str, str] = {}
    for raw, value in scope["headers"]:
        if raw in wanted:
            name, text = raw.decode(), value.decode("latin-1")
            if said.setdefault(name, text) != text:
                raise bad_request(f"The header {name} is there twice, and differs.", name)
    return said


class RoutePage:
    """`POST /mesh/route`: the body of a chat or text completion."""

    def __init__(self, service: NodeService, *, body_bytes: int, deadline_ms: int) -> None:
        self._service = service
        self._body_bytes = body_bytes
        self._deadline_ms = deadline_ms

    async def __call__(self, request: Request) -> Response:
        """Who would be asked."""
        if request.method != "POST":
            raise HTTPException(405)
        body = await read_body(request.scope, request.receive, self._body_bytes)
        read = self._reader(body)
        job = routed(read(body, deadline_ms=self._deadline_ms), request.scope)
        await self._service.read(job.requests[0])
        return json_reply(route_reply(self._service.explain(job.requests[0])))

    def _reader(self, body: bytes) -> Callable[..., Job]:
        try:
            asked = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return read_chat  # it says what is wrong with it
        return read_completion if isinstance(asked, dict) and "prompt" in asked else read_chat


def route_reply(decision: Decision) -> RouteReply:
    """A decision in HTTP's shape."""
    outcome = decision.outcome
    chosen = outcome.candidate if isinstance(outcome, Verdict) else None
    return RouteReply(
        node=chosen.node if chosen else "",
        node_name=chosen.node_name if chosen else "",
        profile=chosen.specialist.profile if chosen else "",
        model=chosen.specialist.model if chosen else "",
        reason=outcome.reason if isinstance(outcome, Verdict) else outcome.detail,
        strategy=decision.strategy,
        tier=decision.tier,
        complexity=decision.complexity,
        signs=[ComplexitySign(sign=s, weight=round(w, 4)) for s, w in decision.signs],
        domains=[DomainScore(domain=d, score=round(s, 4)) for d, s in decision.domains],
        candidates=[_candidate(a) for a in decision.assessments],
    )


def _candidate(assessment: Assessment) -> CandidateInfo:
    candidate, terms = assessment.candidate, assessment.terms
    cost = None
    if terms is not None:
        names = CostTerms.__struct_fields__
        cost = CostTerms(**{name: round(getattr(terms, name), 3) for name in names})
    return CandidateInfo(
        node=candidate.node,
        node_name=candidate.node_name,
        profile=candidate.specialist.profile,
        model=candidate.specialist.model,
        rank=assessment.rank,
        dropped=assessment.dropped,
        upstream=candidate.upstream,
        cost_ms=cost,
    )
