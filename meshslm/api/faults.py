"""Errors in OpenAI's shape, and how a fault's kind shows in HTTP.

One table for both directions: the gateway turns a `RequestFault` into a status and an envelope, the
client turns them back into the same `RequestFault`.

Rules:
- Every `FaultCode` has a row; `code` in the envelope is OpenAI's word where OpenAI has one.
- A code that is not in the table reads as the kind that its status suggests.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshslm.errors import FaultCode, RequestFault


class ErrorBody(msgspec.Struct, kw_only=True):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(msgspec.Struct, kw_only=True):
    """Body of every answer that is not 2xx, and the last event of a stream that broke off."""

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class HttpFault:
    """How one kind of fault shows."""

    status: int
    type: str
    code: str


HTTP_FAULTS: dict[FaultCode, HttpFault] = {
    FaultCode.BAD_REQUEST: HttpFault(400, "invalid_request_error", "bad_request"),
    FaultCode.CONTEXT_OVERFLOW: HttpFault(400, "invalid_request_error", "context_length_exceeded"),
    FaultCode.UNKNOWN_MODEL: HttpFault(404, "invalid_request_error", "model_not_found"),
    FaultCode.OVERLOADED: HttpFault(429, "rate_limit_error", "overloaded"),
    FaultCode.DEADLINE: HttpFault(504, "server_error", "deadline"),
    FaultCode.CANCELLED: HttpFault(503, "server_error", "cancelled"),
    FaultCode.PEER_LOST: HttpFault(503, "server_error", "peer_lost"),
    FaultCode.WORKER_LOST: HttpFault(503, "server_error", "worker_lost"),
    FaultCode.FORBIDDEN: HttpFault(403, "permission_error", "not_permitted"),
    FaultCode.CONFLICT: HttpFault(409, "invalid_request_error", "conflict"),
    FaultCode.NOT_READY: HttpFault(503, "server_error", "not_ready"),
    FaultCode.INTERNAL: HttpFault(500, "server_error", "internal"),
}

_CODE_OF_WORD = {shown.code: code for code, shown in HTTP_FAULTS.items()}

_CODE_OF_STATUS = {
    404: FaultCode.BAD_REQUEST,
    409: FaultCode.CONFLICT,
    429: FaultCode.OVERLOADED,
    503: FaultCode.NOT_READY,
    504: FaultCode.DEADLINE,
}


def envelope(fault: RequestFault) -> ErrorEnvelope:
    """The body that tells a client of `fault`."""
    shown = HTTP_FAULTS[fault.code]
    return ErrorEnvelope(
        error=ErrorBody(message=fault.detail, type=shown.type, param=fault.param, code=shown.code)
    )


def fault_of(status: int, error: ErrorBody, *, retry_after_ms: int | None = None) -> RequestFault:
    """The fault that an answer with `status` and `error` speaks of."""
    code = _CODE_OF_WORD.get(error.code or "")
    if code is None:
        otherwise = FaultCode.INTERNAL if status >= 500 else FaultCode.BAD_REQUEST
        code = _CODE_OF_STATUS.get(status, otherwise)
    return RequestFault(code, error.message, param=error.param, retry_after_ms=retry_after_ms)
