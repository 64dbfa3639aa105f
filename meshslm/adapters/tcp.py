"""Listening and connecting over TCP, with the errors a person can act on.

Rules:
- A port in use is an error. libp2p's own listener shares it (SO_REUSEPORT), and a second daemon
  would then start in silence and take half of the connections. Here it is shared with our own
  outgoing connections alone.
"""

from __future__ import annotations

import errno
import socket as stdlib_socket
from collections.abc import Iterable

import trio

from meshslm.adapters.multiaddrs import Address
from meshslm.errors import MeshslmError, OurFault

BACKLOG = 128
"""Connections that the system accepts ahead of us; Linux's own limit until lately."""


class ConnectFailed(MeshslmError):
    """Nobody answers at an address; the message is for a person."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        """The machine is there, and nothing listens at that port."""


async def listen(addresses: Iterable[Address]) -> list[trio.socket.SocketType]:
    """Sockets that listen at all of `addresses`; `OurFault` where one cannot."""
    sockets: list[trio.socket.SocketType] = []
    try:
        for address in addresses:
            try:
                for family, target in await address.targets():
                    socket = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
                    sockets.append(socket)
                    await _listen_at(socket, family, target)
            except OSError as error:
                raise OurFault(f"cannot listen at {address}: {_advice(error)}") from error
    except BaseException:
        for socket in sockets:
            socket.close()
        raise
    return sockets


async def _listen_at(socket: trio.socket.SocketType, family: int, target: tuple[str, int]) -> None:
    _prepare(socket, family)
    if target[1]:
        # A port in use must be an error, so it is taken once without sharing. Then it is shared,
        # as connections that open a NAT have to come from this very port.
        with trio.socket.socket(family, stdlib_socket.SOCK_STREAM) as alone:
            _prepare(alone, family)
            await alone.bind(target)
    socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEPORT, 1)
    await socket.bind(target)
    socket.listen(BACKLOG)


def _prepare(socket: trio.socket.SocketType, family: int) -> None:
    # So that a daemon can start again at once; on Linux this never shares a port that is in use.
    socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
    if family == stdlib_socket.AF_INET6:
        socket.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 1)


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "it is in use; stop what listens there (see: ss -ltnp), or choose another port"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address"
        case errno.EACCES:
            return "ports below 1024 need privileges; choose a higher one"
        case _:
            return error.strerror or str(error)


async def connect(address: Address) -> trio.SocketStream:
    """A connection to the first of the address's targets that answers, or `ConnectFailed`."""
    try:
        targets = await address.targets()
    except OSError as error:
        raise ConnectFailed(f"the name {address.host} is not known: {error.strerror}") from error
    reason, refusals = "no address", 0
    for family, target in targets:
        socket = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
        try:
            await socket.connect(target)
        except OSError as error:
            socket.close()
            reason = (error.strerror or str(error)).lower()
            refusals += error.errno == errno.ECONNREFUSED
        except BaseException:
            socket.close()
            raise
        else:
            return trio.SocketStream(socket)
    raise ConnectFailed(reason, refused=0 < refusals == len(targets))


async def connect_from(
    listener: trio.socket.SocketType, address: Address, again_s: float
) -> trio.SocketStream:
    """A connection that leaves from a listener's port, tried until it stands or is cancelled.

    Two that do so to each other at the same time meet in the middle (RFC 9293, 3.5), and open the
    NATs between them from inside.
    """
    family, target = (await address.targets())[0]
    if family != listener.family:
        raise ConnectFailed("it is of another family of IP than the listener")
    while True:
        socket = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
        try:
            _prepare(socket, family)
            socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEPORT, 1)
            await socket.bind(listener.getsockname()[:2])
            await socket.connect(target)
        except ConnectionRefusedError:
            socket.close()  # the other's first packet may still be on its way
            await trio.sleep(again_s)
        except OSError as error:
            socket.close()
            raise ConnectFailed((error.strerror or str(error)).lower()) from error
        except BaseException:
            socket.close()
            raise
        else:
            return trio.SocketStream(socket)
