"""A gateway on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import trio

from meshslm.gateway import HttpAddress, create_app, serve
from tests.gateway.scripted_service import ScriptedService

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


@dataclass
class Served:
    """A running gateway, the service behind it and a client before it."""

    service: ScriptedService
    address: HttpAddress
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.address.url

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.http.post(CHAT, json=chat_body(**fields))

    async def text(self, **fields: Any) -> httpx.Response:
        return await self.http.post(TEXT, json={"model": "auto", "prompt": "Once", **fields})


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], **fields}


@asynccontextmanager
async def gateway(service: ScriptedService, **options: Any) -> AsyncIterator[Served]:
    """Serve `service` on a free port of loopback."""
    app = create_app(service, version="0.0", **options)
    async with trio.open_nursery() as nursery:
        address: HttpAddress = await nursery.start(partial(serve, app, port=0))
        async with httpx.AsyncClient(base_url=address.url, timeout=20, trust_env=False) as http:
            yield Served(service, address, http)
        nursery.cancel_scope.cancel()
