"""Says in the registry what this node is, when that has changed and every few hours.

Rules:
- Where the registry cannot be written to, that is told once in the log, and tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from meshslm.core.registry import REGISTRY, due, facts_of
from meshslm.core.views import PeerView
from meshslm.daemon.state_desk import StateDesk
from meshslm.errors import RequestFault

LOOK_S = 2.0
RETRY_S = 60.0

_log = logging.getLogger("meshslm.state")


class Registrar:
    """Keeps the entry of a running node."""

    def __init__(self, desk: StateDesk, own: Callable[[], PeerView]) -> None:
        self._desk = desk
        self._own = own
        self._told = ""

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            well = await self.look()
            await trio.sleep(LOOK_S if well else RETRY_S)

    async def look(self) -> bool:
        """Write where something is to be said; whether that went well."""
        documents = self._desk.documents
        if not documents.ready:
            return True
        facts = facts_of(self._own())
        change = due(documents, documents.node, facts, self._desk.now_ms())
        if change is None:
            return True
        try:
            await self._desk.write(REGISTRY, (change,))
        except RequestFault as fault:
            if fault.detail != self._told:
                _log.warning("the registry is not written: %s", fault.detail)
            self._told = fault.detail
            return False
        self._told = ""
        return True
