"""`GET /mesh/recording`: what the flight recorder has, as a file.

Rules:
- Only a client on this machine gets it: it says who talked with whom and when, and more where the
  operator chose to keep texts.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meshslm.gateway.guard import is_loopback


class RecordingPage:
    """The route."""

    def __init__(self, dump: Callable[[str], bytes] | None) -> None:
        self._dump = dump

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file; 403 for who is elsewhere, 404 where nothing is recorded."""
        client = Request(scope).client
        if client is None or not is_loopback(client.host):
            raise HTTPException(403, "A recording is given to clients on this machine only.")
        if self._dump is None:
            raise HTTPException(404, "This node records nothing: 'record.mib' is 0.")
        # In the loop's own thread: nothing may happen to the core while it is read.
        body = self._dump("asked for")
        await Response(body, media_type="application/gzip")(scope, receive, send)
