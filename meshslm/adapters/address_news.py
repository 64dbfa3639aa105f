"""Hears when addresses of this machine come and go: another network, a new lease, a cable.

Linux tells at once, over a netlink socket (rtnetlink(7), the groups for IPv4 and IPv6 addresses);
elsewhere it is looked up again every few seconds.

Rules:
- What is heard is only that something changed. Whoever waits looks for itself.
- Many changes at a time are one.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
import sys
from typing import Any

import psutil
import trio

log = logging.getLogger("meshslm.link")

_IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x10, 0x100
"""`RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h."""
SETTLE_S = 0.05
"""A change of network removes and adds several addresses in a row."""


def own_hosts() -> set[str]:
    """All addresses of this machine, as texts without a zone."""
    return {
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6)
    }


class AddressNews:
    """Waits for changes. `close` it after use."""

    def __init__(self) -> None:
        self._socket = _listen()

    async def wait(self, seconds: float) -> None:
        """Return after a change, and after so long in any case."""
        with trio.move_on_after(seconds):
            if self._socket is None:
                await trio.sleep_forever()
            await self._drained(self._socket)
            while True:
                with trio.move_on_after(SETTLE_S) as quiet:
                    await self._drained(self._socket)
                if quiet.cancelled_caught:
                    return

    @staticmethod
    async def _drained(socket: Any) -> None:
        try:
            await socket.recv(65536)
        except OSError as error:  # more changes than it holds: then there was one
            log.debug("news of addresses were lost: %s", error)

    def close(self) -> None:
        """Wait no more."""
        if self._socket is not None:
            self._socket.close()


def _listen() -> Any:
    """A socket that becomes readable with each change; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    socket = stdlib_socket.socket(
        stdlib_socket.AF_NETLINK, stdlib_socket.SOCK_RAW, stdlib_socket.NETLINK_ROUTE
    )
    try:
        socket.bind((0, _IPV4_ADDRESSES | _IPV6_ADDRESSES))
    except OSError as error:
        socket.close()
        log.debug("changes of addresses are looked for, and not told of: %s", error)
        return None
    return trio.socket.from_stdlib_socket(socket)
