"""What a node tells about itself and its mesh, in HTTP shapes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshslm.api.admin import PeerInfo, PeersReply, StatusReply
from meshslm.api.openai_responses import Model, ModelHost, ModelInfo, ModelList
from meshslm.core.views import PeerView, StatusView
from meshslm.wire.messages import Specialist

AUTO = "auto"
_THERE = ("self", "alive")


def peers_reply(peers: Iterable[PeerView]) -> PeersReply:
    """`GET /mesh/peers`."""
    shapes = [msgspec.convert(peer, PeerInfo, from_attributes=True) for peer in peers]
    return PeersReply(peers=shapes)


def status_reply(status: StatusView) -> StatusReply:
    """`GET /mesh/status`."""
    return msgspec.convert(status, StatusReply, from_attributes=True)


def model_list(peers: Iterable[PeerView], created: int) -> ModelList:
    """Everything that `model` of a request may name now, with who answers for it.

    `auto` first, then domains, profiles and models by name. A profile named like a model shadows
    it in the list, as it does in routing.
    """
    hosts: dict[tuple[str, str], list[ModelHost]] = {("auto", AUTO): []}
    for peer in peers:
        if peer.state not in _THERE:
            continue
        ready = {load.model for load in peer.loads if load.ready}
        for specialist in peer.specialists:
            host = _host(peer, specialist, ready=specialist.model in ready)
            for key in _names(specialist):
                hosts.setdefault(key, []).append(host)
    order = ("auto", "domain", "profile", "model")
    listed: dict[str, Model] = {}
    for kind, name in sorted(hosts, key=lambda key: (order.index(key[0]), key[1])):
        info = ModelInfo(kind=kind, hosts=hosts[kind, name])
        listed.setdefault(name, Model(id=name, created=created, owned_by="meshslm", meshslm=info))
    return ModelList(data=list(listed.values()))


def _names(specialist: Specialist) -> Iterable[tuple[str, str]]:
    """Kinds and names under which a specialist can be asked for."""
    yield ("auto", AUTO)
    for card in specialist.domains:
        yield ("domain", f"domain:{card.domain}")
    yield ("profile", specialist.profile)
    yield ("model", specialist.model)


def _host(peer: PeerView, specialist: Specialist, *, ready: bool) -> ModelHost:
    return ModelHost(
        node=peer.node,
        node_name=peer.name,
        profile=specialist.profile,
        model=specialist.model,
        ready=ready,
        context=specialist.context,
        quantisation=specialist.quantisation,
        slots=specialist.slots,
        operations=list(specialist.operations),
    )
