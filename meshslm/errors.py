"""Errors, split by who is to blame.

`OurFault`: this node's configuration, disk or machine. `PeerFault`: bytes or behaviour of a peer.
`RequestFault`: what a client asked for. Anything else that is raised is a bug.

Rules:
- Nothing a peer sends may raise anything but `PeerFault`.
- A message says what was wrong, the numbers involved, and what to do next.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading somebody else's JSON raises; the last where it is nested without end."""


class MeshslmError(Exception):
    """Base of every error that this program raises on purpose."""


class OurFault(MeshslmError):
    """This node cannot do it: bad configuration, missing file, port in use, full disk."""


class PeerFault(MeshslmError):
    """A peer sent what it must not send."""


class RequestFault(MeshslmError):
    """A client asked for something that cannot be given.

    `code` tells the kind; `detail` is for a person; `param` names the offending field, if one does.
    """

    def __init__(
        self,
        code: FaultCode,
        detail: str,
        *,
        param: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.param = param
        self.retry_after_ms = retry_after_ms


class FaultCode(StrEnum):
    """Why a task ended without its answer. Travels on the wire as text."""

    BAD_REQUEST = "bad_request"
    """The request itself is wrong, on any node."""
    UNKNOWN_MODEL = "unknown_model"
    """Nobody in the mesh hosts what was asked for."""
    CONTEXT_OVERFLOW = "context_overflow"
    """Prompt and answer do not fit the model's context; the detail has both numbers."""
    OVERLOADED = "overloaded"
    """Queues are full; try again after the given time."""
    DEADLINE = "deadline"
    """The time allowed ran out."""
    CANCELLED = "cancelled"
    """The client went away or asked to stop."""
    PEER_LOST = "peer_lost"
    """The node that was answering is gone."""
    WORKER_LOST = "worker_lost"
    """The engine process died."""
    CONFLICT = "conflict"
    """It contradicts what is decided or written already."""
    FORBIDDEN = "forbidden"
    """The certificate of the node where it entered does not allow it to submit tasks."""
    NOT_READY = "not_ready"
    """The model is still loading, or the node is shutting down."""
    INTERNAL = "internal"
    """A bug; the log has the trace."""


RETRYABLE: frozenset[FaultCode] = frozenset(
    {
        FaultCode.OVERLOADED,
        FaultCode.PEER_LOST,
        FaultCode.WORKER_LOST,
        FaultCode.NOT_READY,
        FaultCode.INTERNAL,
        FaultCode.UNKNOWN_MODEL,
    }
)
"""Faults of one node, which another node may not have. The rest end the task at once."""
