"""Orders about this node's models: load, unload, pin, unpin.

An order is answered at once with how the model stands; what comes of it is in `/mesh/status`. So a
load of minutes needs no connection of minutes, and a client that goes away takes nothing back.
"""

from __future__ import annotations

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from meshslm import limits
from meshslm.api.admin import ModelStatus, UnloadRequest
from meshslm.api.decode import bad_request, decode_body
from meshslm.core.residency import Order
from meshslm.gateway.body import read_body
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService

PATH = "/mesh/models/{name}/{order}"
UNDER_WAY = ("waiting", "loading", "draining", "restarting", "unloading")
"""States that will be followed by others."""

_unloads = msgspec.json.Decoder(UnloadRequest)


class ModelOrders:
    """`POST /mesh/models/{name}/{order}`."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        """202 with the model's state while it changes, 200 where it is so already."""
        word = request.path_params["order"]
        if word not in list(Order):
            raise HTTPException(404)
        body = await read_body(request.scope, request.receive, limits.KIB)
        order = Order(word)
        asked = decode_body(body, _unloads) if body else UnloadRequest()
        if asked.now and order is not Order.UNLOAD:
            raise bad_request(f"Only an unload can be 'now', not a {word}.", "now")
        view = self._service.order_model(request.path_params["name"], order, at_once=asked.now)
        told = msgspec.convert(view, ModelStatus, from_attributes=True)
        return json_reply(told, status=202 if view.state in UNDER_WAY else 200)
