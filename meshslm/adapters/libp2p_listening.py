"""Where a node listens, and at which addresses others can dial it, now and after each change."""

from __future__ import annotations

import socket as stdlib_socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from meshslm.adapters.address_news import AddressNews, own_hosts
from meshslm.adapters.multiaddrs import Address, reachable
from meshslm.adapters.tcp import listen
from meshslm.ids import NodeId


class Listening:
    """The listeners of one node. `open` them before anything else."""

    def __init__(self, places: tuple[Address, ...], node: NodeId) -> None:
        self._places = places
        self._node = node
        self.listeners: list[trio.socket.SocketType] = []
        self.addresses: tuple[str, ...] = ()
        """Where others can dial this node; a wildcard is expanded to the interfaces' addresses."""

    async def open(self) -> None:
        """Listen everywhere. Raises `OurFault` where that cannot be."""
        self.listeners = await listen(self._places)
        self.addresses = self._dialable()

    def close(self) -> None:
        """Listen no more."""
        for listener in self.listeners:
            listener.close()

    def _dialable(self) -> tuple[str, ...]:
        found: list[str] = []
        for listener in self.listeners:
            host, port = listener.getsockname()[:2]
            kind = "ip6" if listener.family == stdlib_socket.AF_INET6 else "ip4"
            places = reachable(Address(kind, host, port))
            found += [str(replace(place, peer=self._node)) for place in places]
        return tuple(found)

    async def watch(
        self,
        seconds: float,
        hosts_now: Callable[[set[str]], None],
        changed: Callable[[tuple[str, ...]], Awaitable[None]],
    ) -> None:
        """Tell of addresses that come and go, for ever; only behind a wildcard they do.

        `hosts_now` hears all of the machine's, after each change and every so many seconds.
        """
        news = AddressNews()
        try:
            while True:
                await news.wait(seconds)
                hosts_now(own_hosts())
                addresses = self._dialable()
                if addresses != self.addresses:
                    self.addresses = addresses
                    await changed(addresses)
        finally:
            news.close()
