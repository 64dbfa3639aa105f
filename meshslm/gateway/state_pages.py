"""`/mesh/state`: what documents are here, whether all members hold the same, what is given up.

Rules:
- What is given up is decided by the coordinators: without a majority it is refused, and says so.
- Nobody is given up who is there, unless that is said, nor of whom nothing is known here.
"""

from __future__ import annotations

import msgspec
import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm import limits
from meshslm.api.decode import bad_request, decode_body
from meshslm.api.state import (
    FORGET,
    PATH,
    VERIFY,
    ForgetReply,
    ForgetRequest,
    ForgottenInfo,
    StateReply,
)
from meshslm.core.consensus.decided import GENERATION
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.body import read_body
from meshslm.gateway.consensus import checked
from meshslm.gateway.memory import Kept, SharedState
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService
from meshslm.ids import NodeId
from meshslm.mesh_limits import DECISION_VALUE_BYTES
from meshslm.state.forgotten import as_text, listed
from meshslm.state.names import complaint
from meshslm.wire.consensus import Command, Decision

ANSWERS_S = 3.0
"""Time for members to answer: a member that is there does so in one round trip."""
LOOK_S = 0.02
ATTEMPTS = 4
"""Somebody else may have given up another author of the same document at the same time."""
_NONE = "This node keeps no documents: 'state.enabled' is false."

_forgets = msgspec.json.Decoder(ForgetRequest)


class StatePages:
    """The routes."""

    def __init__(self, service: NodeService, state: SharedState | None) -> None:
        self._service = service
        self._state = state

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route(PATH, self.show, methods=["GET"]),
            Route(VERIFY, self.verify, methods=["POST"]),
            Route(FORGET, self.forget, methods=["POST"]),
        ]

    async def show(self, _request: Request) -> Response:
        """What is held here."""
        return json_reply(self._reply())

    async def verify(self, _request: Request) -> Response:
        """Compare with every member, and tell what came of it."""
        if self._state is None:
            raise RequestFault(FaultCode.BAD_REQUEST, _NONE)
        self._state.compare()
        with trio.move_on_after(ANSWERS_S):
            while self._waiting():  # noqa: ASYNC110 - the core has no waiters
                await trio.sleep(LOOK_S)
        reply = self._reply()
        asked = {check.node for check in reply.checks}
        there = [p.node for p in self._service.peers() if p.state == "alive"]
        reply.unasked = sum(node not in asked for node in there)
        return json_reply(reply)

    async def forget(self, request: Request) -> Response:
        """Have it decided that parts of an author that is gone are given up for ever."""
        if self._state is None:
            raise RequestFault(FaultCode.BAD_REQUEST, _NONE)
        body = await read_body(request.scope, request.receive, limits.KIB)
        asked = decode_body(body, _forgets)
        last = self._last(asked, self._state.documents)
        name, author = asked.document, NodeId(asked.author)
        for _ in range(ATTEMPTS):
            before = await self._generation(name)
            authors = listed(before.value)
            if authors.get(author, -1) >= last:
                return json_reply(_forgot(before))
            value = as_text({**authors, author: last})
            if len(value) > DECISION_VALUE_BYTES:
                why = f"{name} has given up {len(authors)} authors already, and no more fit"
                raise RequestFault(FaultCode.CONFLICT, f"{why}; begin a new document")
            command = Command(GENERATION, name, value=value, expected=before.amount)
            made = await self._service.decide(command)
            if made.code != "conflict":
                checked(made)
        raise RequestFault(FaultCode.CONFLICT, f"others decide about {name} all the time; again")

    def _last(self, asked: ForgetRequest, held: Kept) -> int:
        """The author's last generation that is known here. Refuses what should not be."""
        why = complaint(asked.document)
        if why:
            raise bad_request(why, "document")
        last = held.authors(asked.document).get(NodeId(asked.author))
        if last is None:
            why = f"this node has nothing of {asked.author} in {asked.document}"
            raise HTTPException(404, why)
        there = any(p.node == asked.author and p.state == "alive" for p in self._service.peers())
        if (there or asked.author == held.node) and not asked.force:
            why = f"{asked.author} is there, and would lose what it wrote; 'force' does it anyway"
            raise RequestFault(FaultCode.CONFLICT, why, param="author")
        return last

    async def _generation(self, name: str) -> Decision:
        """What is decided of a document; what is answered here is acted on here, too."""
        made = checked(await self._service.decide(None, GENERATION, name))
        return made.decisions[0] if made.decisions else Decision(GENERATION, name)

    def _waiting(self) -> bool:
        return any(check.state == "waiting" for check in self._reply().checks)

    def _reply(self) -> StateReply:
        state = self._service.status().state
        if state is None:
            raise RequestFault(FaultCode.BAD_REQUEST, _NONE)
        return msgspec.convert(state, StateReply, from_attributes=True)


def _forgot(decision: Decision) -> ForgetReply:
    authors = listed(decision.value)
    return ForgetReply(
        document=decision.subject,
        generation=decision.amount,
        forgotten=[ForgottenInfo(author=a, generation=authors[a]) for a in sorted(authors)],
    )
