"""`/mesh/registry`: members that are there, and those that were of late."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm.api.registry import REGISTRY as PATH
from meshslm.api.registry import HostedInfo, MemberInfo, RegistryReply
from meshslm.core.registry import Known, members
from meshslm.core.views import PeerView
from meshslm.gateway.memory import SharedState, shared
from meshslm.gateway.replies import json_reply
from meshslm.gateway.service import NodeService

_THERE = ("self", "alive")


class RegistryPage:
    """The route."""

    def __init__(self, service: NodeService, state: SharedState | None) -> None:
        self._service = service
        self._state = state

    def routes(self) -> list[Route]:
        """For the application's list."""
        return [Route(PATH, self.show, methods=["GET"])]

    async def show(self, _request: Request) -> Response:
        """Everybody of whom the registry tells, in the order of their ids."""
        state = shared(self._state)
        now_ms = state.now_ms()
        peers = {peer.node: peer for peer in self._service.peers()}
        found = members(state.documents, now_ms)
        shapes = [_shape(known, peers.get(known.node), now_ms) for known in found]
        return json_reply(RegistryReply(members=shapes))


def _shape(known: Known, peer: PeerView | None, now_ms: int) -> MemberInfo:
    there = peer is not None and peer.state in _THERE
    seen_ms = float(now_ms - known.written_ms)
    if peer is not None and peer.heard_ms is not None:
        seen_ms = min(seen_ms, peer.heard_ms)
    facts = known.facts
    return MemberInfo(
        node=known.node,
        name=facts.name,
        version=facts.version,
        there=there,
        seen_ms=0.0 if there else seen_ms,
        addresses=list(facts.addresses),
        cores=facts.cores,
        memory_mib=facts.memory_mib,
        accelerator=facts.accelerator,
        hosts=[msgspec.convert(hosted, HostedInfo, from_attributes=True) for hosted in facts.hosts],
    )
