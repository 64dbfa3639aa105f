"""The messages of libp2p's circuit relay, version 2: to protobuf and back.

Source: the circuit relay v2 specification of libp2p.

Rules:
- A message has at most `MESSAGE_BYTES`, behind its length.
- Fields that are not known are skipped; of one that comes twice the last counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshslm import limits
from meshslm.adapters.protobuf import as_bytes, as_int, bytes_field, fields, framed, number_field

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
MESSAGE_BYTES: Final = 4 * limits.KIB
"""What libp2p's other implementations take too."""


class Status(IntEnum):
    """How a request ended."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


class Hop(IntEnum):
    """What a message between a node and its relay is."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class Stop(IntEnum):
    """What a message between a relay and the node that is called is."""

    CONNECT = 0
    STATUS = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """What one circuit may take; 0: without bound."""

    seconds: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class HopMessage:
    """Between a node and a relay."""

    kind: int
    peer: bytes = b""
    """Whom to connect to."""
    expires: int = 0
    """When the reservation ends, in Unix seconds."""
    limit: Limit = Limit()
    status: int = 0


@dataclass(frozen=True, slots=True)
class StopMessage:
    """Between a relay and the node that is called."""

    kind: int
    peer: bytes = b""
    """Who calls."""
    limit: Limit = Limit()
    status: int = 0


def encode_hop(message: HopMessage) -> bytes:
    """With its length before it."""
    return framed(
        number_field(1, message.kind)
        + _peer(2, message.peer)
        + (bytes_field(3, number_field(1, message.expires)) if message.expires else b"")
        + _limit(4, message.limit)
        + (number_field(5, message.status) if message.status else b"")
    )


def encode_stop(message: StopMessage) -> bytes:
    """With its length before it."""
    return framed(
        number_field(1, message.kind)
        + _peer(2, message.peer)
        + _limit(3, message.limit)
        + (number_field(4, message.status) if message.status else b"")
    )


def decode_hop(body: bytes) -> HopMessage:
    """Read the body of a message. Raises `PeerFault`."""
    found = dict(fields(body))
    reservation = dict(fields(as_bytes(found.get(3, b""))))
    return HopMessage(
        as_int(found.get(1, -1)),
        as_bytes(dict(fields(as_bytes(found.get(2, b"")))).get(1, b"")),
        as_int(reservation.get(1, 0)),
        _read_limit(found.get(4, b"")),
        as_int(found.get(5, 0)),
    )


def decode_stop(body: bytes) -> StopMessage:
    """Read the body of a message. Raises `PeerFault`."""
    found = dict(fields(body))
    return StopMessage(
        as_int(found.get(1, -1)),
        as_bytes(dict(fields(as_bytes(found.get(2, b"")))).get(1, b"")),
        _read_limit(found.get(3, b"")),
        as_int(found.get(4, 0)),
    )


def _peer(field: int, peer: bytes) -> bytes:
    return bytes_field(field, bytes_field(1, peer)) if peer else b""


def _limit(field: int, limit: Limit) -> bytes:
    if limit == Limit():
        return b""
    return bytes_field(field, number_field(1, limit.seconds) + number_field(2, limit.bytes))


def _read_limit(value: int | bytes) -> Limit:
    found = dict(fields(as_bytes(value)))
    return Limit(as_int(found.get(1, 0)), as_int(found.get(2, 0)))
