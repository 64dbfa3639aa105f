"""What may be seen of the members of a large mesh."""

from __future__ import annotations

from dataclasses import replace

from meshslm.core.coordinators import Coordinators
from meshslm.core.directory import Directory
from meshslm.core.members import Members
from meshslm.core.views import PeerView
from meshslm.ids import Instant, NodeId, ms_between


def views(
    own: NodeId,
    directory: Directory,
    members: Members,
    coordinators: Coordinators,
    now: Instant,
) -> tuple[PeerView, ...]:
    """Every member but this node, linked or not; and peers that are no members yet."""
    peers = directory.peers
    found = []
    for fact in members.all():
        node = fact.record.node
        if node == own:
            continue
        linked = directory.get_alive(node)
        if linked is not None and linked.capability is not None:
            found.append(linked.view(now))
            continue
        view = coordinators.stand_in(fact).view(now)
        if linked is not None:
            heard = ms_between(linked.heard, now)
            view = replace(view, agent=linked.agent, address=linked.address, heard_ms=heard)
        found.append(view)
    found.extend(p.view(now) for p in peers.values() if p.node not in members)
    return tuple(found)
