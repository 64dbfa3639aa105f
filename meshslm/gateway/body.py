"""Reading a request's body, within a size and a time."""

from __future__ import annotations

from typing import Any

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from meshslm import limits


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """The whole body.

    Raises `HTTPException` 413 as soon as it is larger than `most` bytes, 408 where it takes longer
    than `limits.HTTP_BODY_MS`, and `ClientDisconnect` where the client went away.
    """
    if declared_length(scope) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(limits.HTTP_BODY_MS / 1000):
        while True:
            message: dict[str, Any] = dict(await receive())
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > most:
                raise _too_large(most)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
    raise HTTPException(408, f"The body did not arrive within {limits.HTTP_BODY_MS / 1000:g} s.")


def declared_length(scope: Scope) -> int:
    """`Content-Length`; 0 without a sane one, which says nothing about the body's size."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The body is too large; at most {most} bytes are taken.")
