"""The messages of libp2p's Kademlia DHT that a client of it needs: to protobuf and back.

Source: libp2p's specification of its DHT, and the table of multiaddress codes.

Rules:
- What a server sends may be anything: what is malformed raises `PeerFault`; peers and addresses
  that are well-formed and of no use here (another transport, another kind of key) are left out.
- Of an address that a member left only the host, the port and the seal are read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Final

from meshslm import mesh_limits
from meshslm.adapters.multiaddrs import Address, AddressError, parse
from meshslm.adapters.protobuf import (
    as_bytes,
    bytes_field,
    fields,
    framed,
    number_field,
    read_varint,
    varint,
)
from meshslm.errors import PeerFault

KADEMLIA: Final = "/ipfs/kad/1.0.0"

_IP4, _TCP, _IP6, _P2P, _CERTHASH = 4, 6, 41, 421, 466
_KINDS: Final = {_IP4: "ip4", _IP6: "ip6"}
_WIDTHS: Final = {_IP4: 4, _IP6: 16, _TCP: 2}
"""Bytes of a part's value; of others the length stands before it."""


class Kind(IntEnum):
    """What a message is."""

    ADD_PROVIDER = 2
    GET_PROVIDERS = 3


@dataclass(frozen=True, slots=True)
class Place:
    """An address in a message."""

    address: Address
    """Without a peer."""
    seal: bytes = b""
    """A multihash behind it; only members put one there."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody in a message."""

    id: bytes
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says about a key."""

    closer: tuple[Peer, ...]
    """Servers."""
    providers: tuple[Peer, ...]
    """Who has put down a record."""


def encode_question(key: bytes) -> bytes:
    """Ask for the records of a key and the servers close to it; with its length before it."""
    return framed(number_field(1, Kind.GET_PROVIDERS) + bytes_field(2, key))


def encode_record(key: bytes, peer: Peer) -> bytes:
    """Put down a record; with its length before it. The server takes it from nobody but `peer`."""
    places = b"".join(bytes_field(2, encode_place(place)) for place in peer.places)
    provider = bytes_field(9, bytes_field(1, peer.id) + places)
    return framed(number_field(1, Kind.ADD_PROVIDER) + bytes_field(2, key) + provider)


def decode_answer(body: bytes) -> Answer:
    """Read the body of an answer. Raises `PeerFault`."""
    kind = 0
    found: dict[int, list[bytes]] = {8: [], 9: []}
    for number, value in fields(body):
        if number == 1:
            kind = value if isinstance(value, int) else -1
        elif number in found:
            found[number].append(as_bytes(value))
    if kind != Kind.GET_PROVIDERS:
        raise PeerFault(f"an answer of the kind {kind}, to another question")
    return Answer(_peers(found[8]), _peers(found[9]))


def _peers(bodies: Iterable[bytes]) -> tuple[Peer, ...]:
    peers = (_peer(body) for body in islice(bodies, mesh_limits.DHT_CLOSEST))
    return tuple(peer for peer in peers if peer.places)


def _peer(body: bytes) -> Peer:
    peer, places = b"", []
    for number, value in fields(body):
        if number == 1:
            peer = as_bytes(value)
        elif number == 2:
            place = decode_place(as_bytes(value))
            if place is not None and place not in places:
                places.append(place)
    return Peer(peer, tuple(places))


def encode_place(place: Place) -> bytes:
    """An address of a host and a port, and its seal, as a multiaddress."""
    address = place.address
    host = ipaddress.ip_address(address.host)
    code = _IP4 if host.version == 4 else _IP6
    seal = varint(_CERTHASH) + framed(place.seal) if place.seal else b""
    return varint(code) + host.packed + varint(_TCP) + address.port.to_bytes(2, "big") + seal


def decode_place(raw: bytes) -> Place | None:
    """Read a multiaddress; None where it is not of an IP address and a TCP port.

    Names are left out: what they stand for could be anything by the time they are dialled.
    """
    try:
        (kind, host), (tcp, port), *rest = _parts(raw)
        address = parse(f"/{_KINDS[kind]}/{ipaddress.ip_address(host)}/tcp/{_port(tcp, port)}")
    except (PeerFault, AddressError, KeyError, ValueError):
        return None  # another transport, or nonsense: others of the peer may do
    codes = [code for code, _ in rest]
    if codes in ([], [_P2P]):
        return Place(address)
    return Place(address, rest[0][1]) if codes == [_CERTHASH] else None


def _port(code: int, value: bytes) -> int:
    if code != _TCP:
        raise PeerFault("an address of another transport")
    return int.from_bytes(value, "big")


def _parts(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Codes and values of a multiaddress; raises where there is one of an unknown width."""
    at = 0
    while at < len(raw):
        code, at = read_varint(raw, at)
        if code in _WIDTHS:
            size = _WIDTHS[code]
        elif code in (_P2P, _CERTHASH):
            size, at = read_varint(raw, at)
        else:
            raise PeerFault(f"the part {code} of an address is of no use here")
        if size > len(raw) - at:
            raise PeerFault("an address that breaks off")
        yield code, raw[at : at + size]
        at += size
