"""Consensus as a part of a node: who is a coordinator there, and who may have what decided."""

from __future__ import annotations

from meshslm.chance import Chance
from meshslm.core.admission import Admission
from meshslm.core.certificates import Act
from meshslm.core.config import CoreConfig
from meshslm.core.consensus.coordination import Coordination
from meshslm.core.consensus.timing import Timing
from meshslm.core.directory import Directory
from meshslm.core.outbox import Outbox
from meshslm.ids import NodeId
from meshslm.mesh_limits import LEASE_MS
from meshslm.wire.consensus import Command

ROLE = "coordinator"
"""What a member announces that would keep a log for others."""

_ACTS = {"quota.grant": Act.SUBMIT, "quota.release": Act.SUBMIT}
"""The right that a command needs; any other needs the one to steer rollouts: a generation too, as
it takes away what others wrote."""


def coordination_of(
    config: CoreConfig, directory: Directory, admission: Admission, out: Outbox, chance: Chance
) -> Coordination:
    """The door to consensus of a node."""

    def may(node: NodeId) -> bool:
        return admission.may(node, Act.COORDINATE)

    def members() -> list[NodeId]:
        return [
            peer.node
            for peer in directory.alive()
            if peer.capability is not None and ROLE in peer.capability.roles and may(peer.node)
        ]

    def barred(node: NodeId) -> bool:
        there = directory.get_alive(node) is not None
        return admission.is_revoked(node) or (there and not may(node))

    def may_propose(node: NodeId, command: Command) -> bool:
        if command.act == "revoke" and admission.may(node, Act.COORDINATE):
            return True  # it records what the mesh's key has said: nothing follows but from that
        return admission.may(node, _ACTS.get(command.act, Act.ROLLOUT), command.subject)

    return Coordination(
        config.node,
        out,
        chance,
        members=members,
        may=may,
        may_propose=may_propose,
        barred=barred,
        voters=config.voters,
        timing=Timing(lease_ms=LEASE_MS if config.lease_reads else 0),
    )
