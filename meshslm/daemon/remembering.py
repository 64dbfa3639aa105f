"""Keeps the file of acquaintances up to date while a node runs.

Rules:
- Only members are remembered: peers whose hello was taken, with the address that worked first.
- The disk is never waited for on the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio

from meshslm import limits
from meshslm.adapters.peers_file import Acquaintance, PeersFile
from meshslm.core.events import AddressFound
from meshslm.core.views import PeerView
from meshslm.daemon.pump import Pump
from meshslm.daemon.service import NodeService

LOOK_S = 2.0
"""Between two looks at who is there: what a node may have missed that is killed."""


class Remembering:
    """Joins a node and its file."""

    def __init__(self, file: PeersFile, service: NodeService, pump: Pump) -> None:
        self._file = file
        self._service = service
        self._pump = pump

    def recall(self) -> None:
        """Look for everybody who was known in an earlier life; once, after `Started`."""
        for entry in self._file.load():
            for address in entry.addresses:
                self._pump.handle(AddressFound(address))

    async def run(self) -> None:
        """Write down who is met, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            await trio.to_thread.run_sync(self._file.save, met(self._service.peers()))


def met(peers: Iterable[PeerView]) -> tuple[Acquaintance, ...]:
    """The members among `peers`: those that are there first, then the latest heard."""
    members = [peer for peer in peers if peer.state != "self" and peer.addresses]
    members.sort(
        key=lambda p: (p.state != "alive", 0 if p.state == "alive" else p.heard_ms or math.inf)
    )
    return tuple(Acquaintance(peer.node, _addresses(peer)) for peer in members)


def _addresses(peer: PeerView) -> tuple[str, ...]:
    """Of one member, the one in use first; ours to it may have been dialled without its id."""
    suffix = f"/p2p/{peer.node}"
    used = peer.address.removesuffix(suffix) + suffix if peer.address else peer.addresses[0]
    return tuple(dict.fromkeys((used, *peer.addresses)))[: limits.ADDRESSES_PER_PEER]
