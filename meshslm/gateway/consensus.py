"""Decisions of the coordinators over HTTP.

Rules:
- A read is linearizable: it costs a word with the leader, wherever it is asked.
- What is refused comes as an error with the reason; where nothing can be decided at the moment the
  status is 503, and every other route answers as ever.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm import limits, mesh_limits
from meshslm.api.consensus import (
    CommandRequest,
    ConsensusReply,
    DecisionInfo,
    DecisionReply,
    SeatRequest,
)
from meshslm.api.decode import bad_request, decode_body
from meshslm.core.consensus.events import DecisionMade
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.body import read_body
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService
from meshslm.ids import NodeId
from meshslm.wire.consensus import Command

PATH = "/mesh/consensus"
DECISIONS = "/mesh/consensus/decisions"
SEATS = "/mesh/consensus/seats"

NOT_NOW = ("no_majority", "no_group", "unknown", "busy", "elsewhere", "lost")

_commands = msgspec.json.Decoder(CommandRequest)
_seats = msgspec.json.Decoder(SeatRequest)


class ConsensusPages:
    """The routes of consensus."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """For the application's list."""
        return [
            Route(PATH, self.view, methods=["GET"]),
            Route(DECISIONS, self.read, methods=["GET"]),
            Route(DECISIONS, self.decide, methods=["POST"]),
            Route(SEATS, self.seat, methods=["POST"]),
        ]

    async def view(self, _request: Request) -> Response:
        """The group, seen from this node."""
        view = self._service.consensus()
        return json_reply(msgspec.convert(view, ConsensusReply, from_attributes=True))

    async def read(self, request: Request) -> Response:
        """What is decided, of a kind and about a subject where these are given."""
        asked = request.query_params
        kind, subject = asked.get("kind", ""), asked.get("subject", "")
        if len(kind.encode()) > 32 or len(subject.encode()) > 128:
            raise bad_request("No kind has more than 32 bytes, and no subject more than 128.")
        return _reply(await self._service.decide(None, kind, subject))

    async def decide(self, request: Request) -> Response:
        """Have something decided."""
        body = await read_body(request.scope, request.receive, 8 * limits.KIB)
        asked = decode_body(body, _commands)
        for name, most in (
            ("subject", 128),
            ("holder", 128),
            ("value", mesh_limits.DECISION_VALUE_BYTES),
        ):
            if len(getattr(asked, name).encode()) > most:
                raise bad_request(f"'{name}' has more than {most} bytes.", name)
        command = Command(
            asked.act, asked.subject, asked.holder, asked.value, asked.amount, asked.expected
        )
        return _reply(await self._service.decide(command))

    async def seat(self, request: Request) -> Response:
        """Found the group, or change who is in it."""
        body = await read_body(request.scope, request.receive, limits.KIB)
        asked = decode_body(body, _seats)
        return _reply(await self._service.seat(asked.order, NodeId(asked.node)))


def _reply(made: DecisionMade) -> Response:
    checked(made)
    found = [msgspec.convert(d, DecisionInfo, from_attributes=True) for d in made.decisions]
    return json_reply(DecisionReply(index=made.index, decisions=found))


def checked(made: DecisionMade) -> DecisionMade:
    """The same, if it was decided. Raises `RequestFault` where nothing was."""
    if made.code == "decided":
        return made
    detail = f"{made.code}: {made.detail}" if made.detail else made.code
    if made.code in NOT_NOW:
        raise RequestFault(FaultCode.NOT_READY, detail)
    if made.code == "forbidden":
        raise RequestFault(FaultCode.FORBIDDEN, detail)
    if made.code == "bad_command":
        raise bad_request(detail)
    raise RequestFault(FaultCode.CONFLICT, detail)
