"""`POST /mesh/drain`: have this node finish its work and leave.

It is answered at once with what is left; `/mesh/status` tells how far it is, until the node is
gone. A client that goes away takes nothing back.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from meshslm import limits
from meshslm.api.admin import DrainInfo, DrainRequest
from meshslm.api.decode import decode_body
from meshslm.gateway.body import read_body
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService

PATH = "/mesh/drain"

_drains = msgspec.json.Decoder(DrainRequest)


class DrainPage:
    """Answers it."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        """202, with what is left."""
        body = await read_body(request.scope, request.receive, limits.KIB)
        asked = decode_body(body, _drains) if body else DrainRequest()
        view = self._service.drain(int(asked.limit_s * 1000))
        return json_reply(msgspec.convert(view, DrainInfo, from_attributes=True), status=202)
