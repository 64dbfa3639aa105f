"""Answers that are not streams: JSON, and every error in the shape of the family it belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from meshslm.api.faults import HTTP_FAULTS, ErrorBody, ErrorEnvelope, envelope
from meshslm.api.messages_replies import PATH as MESSAGES
from meshslm.api.messages_replies import message_error
from meshslm.errors import RequestFault

REFUSALS = {
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    500: "internal",
    503: "overloaded",
}


def json_reply(
    payload: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`payload` as JSON."""
    return Response(
        msgspec.json.encode(payload),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def fault_reply(
    fault: RequestFault, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> Response:
    """`fault` with its status; says when to try again where that is known."""
    told = dict(headers or {})
    if fault.retry_after_ms is not None:
        told["retry-after"] = str(max(1, math.ceil(fault.retry_after_ms / 1000)))
        told["retry-after-ms"] = str(fault.retry_after_ms)
    status = HTTP_FAULTS[fault.code].status
    body = message_error(status, fault.detail) if path == MESSAGES else envelope(fault)
    return json_reply(body, status=status, headers=told)


def refusal(
    status: int, message: str, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> Response:
    """An error of HTTP itself (no such route, body too large), in the same shapes."""
    if path == MESSAGES:
        return json_reply(message_error(status, message), status=status, headers=headers)
    body = ErrorBody(
        message=message,
        type="server_error" if status >= 500 else "invalid_request_error",
        code=REFUSALS.get(status, f"http_{status}"),
    )
    return json_reply(ErrorEnvelope(error=body), status=status, headers=headers)
