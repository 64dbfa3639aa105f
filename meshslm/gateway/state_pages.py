"""`/mesh/state`: how large shared documents are, and whether all members hold the same."""

from __future__ import annotations

from typing import Protocol

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm.api.state import PATH, VERIFY, StateReply
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService

ANSWERS_S = 3.0
"""Time for members to answer: a member that is there does so in one round trip."""
LOOK_S = 0.02
_NONE = "This node keeps no documents: 'state.enabled' is false."


class Comparing(Protocol):
    """Who has documents to compare."""

    def compare(self) -> None:
        """Compare all documents with all members; the status tells what comes of it."""
        ...


class StatePages:
    """The routes."""

    def __init__(self, service: NodeService, state: Comparing | None) -> None:
        self._service = service
        self._state = state

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route(PATH, self.show, methods=["GET"]),
            Route(VERIFY, self.verify, methods=["POST"]),
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
        return json_reply(self._reply())

    def _waiting(self) -> bool:
        return any(check.state == "waiting" for check in self._reply().checks)

    def _reply(self) -> StateReply:
        state = self._service.status().state
        if state is None:
            raise RequestFault(FaultCode.BAD_REQUEST, _NONE)
        return msgspec.convert(state, StateReply, from_attributes=True)
