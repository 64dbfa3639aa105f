"""The few multiaddresses a node dials and listens on: an IP address or name, a TCP port, an id.

Why not a library: the grammar needed here is one line, and strictness is the point. A peer hands
us addresses, so what is not exactly of this form is refused rather than guessed at:

    /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/ID]

Rules:
- Parsing never looks a name up; `Address.targets` does, off the event loop.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

import psutil
import trio

from meshslm.ids import NodeId

_FORM = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/\s]{1,253})/tcp/(\d{1,5})(?:/p2p/([^/\s]+))?/?")
_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,128}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_FAMILIES = {
    "ip4": socket.AF_INET,
    "dns4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
}


class AddressError(ValueError):
    """Not an address of the form that nodes use; the message says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """One place to dial or to listen at."""

    kind: str
    """`ip4`, `ip6`, `dns`, `dns4` or `dns6`."""
    host: str
    port: int
    peer: NodeId | None = None
    """Who must answer there; None where anybody may."""

    def __str__(self) -> str:
        text = f"/{self.kind}/{self.host}/tcp/{self.port}"
        return f"{text}/p2p/{self.peer}" if self.peer else text

    @property
    def family(self) -> int:
        """The socket family, `AF_UNSPEC` where a name may have either."""
        return int(_FAMILIES[self.kind])

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it. What a name stands for is not looked up."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    async def targets(self) -> list[tuple[int, tuple[str, int]]]:
        """Socket families and addresses to try, in order. Raises `OSError` for an unknown name."""
        found = await trio.socket.getaddrinfo(
            self.host, self.port, self.family, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )
        return [(int(family), (str(at[0]), int(at[1]))) for family, _, _, _, at in found]


@dataclass(frozen=True, slots=True)
class Circuit:
    """A way to a peer through a relay."""

    relay: NodeId
    peer: NodeId


def parse_circuit(text: str) -> Circuit | None:
    """Read a multiaddress through a relay: `[PLACE]/p2p/RELAY/p2p-circuit/p2p/ID`.

    None where it leads through no relay. Raises `AddressError` where it is not of this form.
    """
    place, found, rest = text.partition("/p2p-circuit")
    if not found:
        return None
    at, _, relay = place.rpartition("/p2p/")
    peer = rest.removeprefix("/p2p/")
    if at:
        parse(at)
    if not rest.startswith("/p2p/") or not _ID.fullmatch(relay) or not _ID.fullmatch(peer):
        raise AddressError(f"{text[:128]!r} is not of the form /p2p/RELAY/p2p-circuit/p2p/ID")
    return Circuit(NodeId(relay), NodeId(peer))


def parse(text: str) -> Address:
    """Read a multiaddress. Raises `AddressError` for anything that is not of the one form."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise AddressError(f"{text[:128]!r} is not of the form /ip4/HOST/tcp/PORT[/p2p/ID]")
    kind, host, port, peer = match.groups()
    if int(port) > 65535:
        raise AddressError(f"port {port} is above 65535")
    if peer is not None and not _ID.fullmatch(peer):
        raise AddressError(f"{peer[:128]!r} is not a node id")
    return Address(kind, _checked_host(kind, host), int(port), NodeId(peer) if peer else None)


def _checked_host(kind: str, host: str) -> str:
    if kind.startswith("dns"):
        if not _NAME.fullmatch(host):
            raise AddressError(f"{host!r} is not a host name")
        return host
    try:
        address = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
    except ValueError:
        raise AddressError(f"{host!r} is not an address for /{kind}") from None
    return str(address)


def seen_at(host: str, port: int) -> str:
    """The multiaddress of the other end of a connection."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return f"/ip{address.version}/{address}/tcp/{port}"


def reachable(bound: Address) -> list[Address]:
    """What others can dial for a socket bound to `bound`.

    A wildcard becomes the interfaces' own addresses, loopback last. Link-local ones are left out:
    they mean nothing without a zone.
    """
    if bound.kind not in ("ip4", "ip6") or not ipaddress.ip_address(bound.host).is_unspecified:
        return [bound]
    family = socket.AF_INET if bound.kind == "ip4" else socket.AF_INET6
    found = [
        ipaddress.ip_address(entry.address.partition("%")[0])
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family
    ]
    usable = sorted(
        {address for address in found if not address.is_link_local},
        key=lambda address: (address.is_loopback, int(address)),
    )
    return [Address(bound.kind, str(address), bound.port, bound.peer) for address in usable]
