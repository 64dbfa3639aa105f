"""The messages of libp2p's circuit relay, version 2: to protobuf and back.

Why by hand: three small messages of numbered fields, from strangers. What is read is bounded, and
everything that is not exactly of the form is refused.

Source: the circuit relay v2 specification of libp2p, and the protobuf encoding.

Rules:
- A message has at most `MESSAGE_BYTES`, behind its length.
- Fields that are not known are skipped; of one that comes twice the last counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshslm import limits
from meshslm.errors import PeerFault

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
MESSAGE_BYTES: Final = 4 * limits.KIB
"""What libp2p's other implementations take too."""
_MOST_VARINT_BYTES: Final = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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


def varint(number: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_hop(message: HopMessage) -> bytes:
    """With its length before it."""
    return _framed(
        _number(1, message.kind)
        + _peer(2, message.peer)
        + (_field(3, _number(1, message.expires)) if message.expires else b"")
        + _limit(4, message.limit)
        + (_number(5, message.status) if message.status else b"")
    )


def encode_stop(message: StopMessage) -> bytes:
    """With its length before it."""
    return _framed(
        _number(1, message.kind)
        + _peer(2, message.peer)
        + _limit(3, message.limit)
        + (_number(4, message.status) if message.status else b"")
    )


def decode_hop(body: bytes) -> HopMessage:
    """Read the body of a message. Raises `PeerFault`."""
    found = dict(_fields(body))
    reservation = dict(_fields(_bytes(found.get(3, b""))))
    return HopMessage(
        _int(found.get(1, -1)),
        _bytes(dict(_fields(_bytes(found.get(2, b"")))).get(1, b"")),
        _int(reservation.get(1, 0)),
        _read_limit(found.get(4, b"")),
        _int(found.get(5, 0)),
    )


def decode_stop(body: bytes) -> StopMessage:
    """Read the body of a message. Raises `PeerFault`."""
    found = dict(_fields(body))
    return StopMessage(
        _int(found.get(1, -1)),
        _bytes(dict(_fields(_bytes(found.get(2, b"")))).get(1, b"")),
        _read_limit(found.get(3, b"")),
        _int(found.get(4, 0)),
    )


def _framed(body: bytes) -> bytes:
    return varint(len(body)) + body


def _number(field: int, value: int) -> bytes:
    return varint(field << 3 | _VARINT) + varint(value)


def _field(field: int, value: bytes) -> bytes:
    return varint(field << 3 | _BYTES) + varint(len(value)) + value


def _peer(field: int, peer: bytes) -> bytes:
    return _field(field, _field(1, peer)) if peer else b""


def _limit(field: int, limit: Limit) -> bytes:
    if limit == Limit():
        return b""
    return _field(field, _number(1, limit.seconds) + _number(2, limit.bytes))


def _read_limit(value: int | bytes) -> Limit:
    found = dict(_fields(_bytes(value)))
    return Limit(_int(found.get(1, 0)), _int(found.get(2, 0)))


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise PeerFault("a field that should be a number is none")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise PeerFault("a field that should be bytes is none")
    return value


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a message."""
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        field, kind = tag >> 3, tag & 7
        if field == 0:
            raise PeerFault("a field without a number")
        if kind == _VARINT:
            value, at = _read_varint(body, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise PeerFault(f"a field of the kind {kind}, which there is not")
        if size > len(body) - at:
            raise PeerFault("a field that is longer than its message")
        if kind == _BYTES:
            yield field, body[at : at + size]
        at += size


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(_MOST_VARINT_BYTES):
        if at + place >= len(body):
            raise PeerFault("a number that breaks off")
        byte = body[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at + place + 1
    raise PeerFault("a number of more than 64 bits")
