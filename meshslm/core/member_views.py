"""What may be seen of the members of a large mesh."""

from __future__ import annotations

from dataclasses import replace

from meshslm.core.directory import Directory
from meshslm.core.members import Members
from meshslm.core.views import PeerView
from meshslm.ids import Instant, NodeId, ms_between


def views(
    own: NodeId,
    directory: Directory,
    members: Members,
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
        view = fact.view
        if linked is not None:
            view = replace(
                view,
                agent=linked.agent,
                address=linked.address,
                rtt_ms=linked.rtt_ms,
                heard_ms=ms_between(linked.heard, now),
            )
        found.append(view)
    found.extend(p.view(now) for p in peers.values() if p.node not in members)
    return tuple(found)
