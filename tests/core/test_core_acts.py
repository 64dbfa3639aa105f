"""What coordinators propose for whom, and who may be one: whole cores with certificates."""

from __future__ import annotations

import pytest

from meshslm.core.certificates import Act
from meshslm.core.consensus.events import LogRecovered
from meshslm.core.events import BytesReceived
from meshslm.ids import NodeId
from meshslm.wire.codec import encode
from meshslm.wire.consensus import Answered, Append, Asked, Ballot, Command, Proposal
from tests.core.private_mesh import PrivateMesh, credential

B = NodeId("b")
MEMBER = (Act.SUBMIT, Act.SERVE, Act.COORDINATE, Act.WRITE)


def met(*rights: Act) -> PrivateMesh:
    """A coordinator, and a member with these rights alone."""
    mesh = PrivateMesh()
    mesh.enter("a")
    mesh.give("a", LogRecovered(5))
    mesh.enter("b", bootstrap=("a",), shown=credential("b", rights=rights))
    assert mesh.peer_state("a", "b") == "alive"
    return mesh


@pytest.mark.parametrize(
    ("rights", "act", "allowed"),
    [
        (MEMBER, "rollout.begin", False),
        (MEMBER, "rollout.end", False),
        (MEMBER, "quota.set", False),
        (MEMBER, "generation", False),
        ((Act.ROLLOUT,), "rollout.begin", True),
        ((Act.ROLLOUT,), "generation", True),
        ((Act.SERVE,), "quota.grant", False),
        ((Act.SUBMIT,), "quota.grant", True),
        ((Act.SUBMIT,), "revoke", False),
        ((Act.COORDINATE,), "revoke", True),
    ],
)
def test_a_coordinator_proposes_for_nobody_what_that_one_may_not_do(
    rights: tuple[Act, ...], act: str, allowed: bool
) -> None:
    mesh = met(*rights)
    asked = Asked("1", Proposal("1", 0, Command(act, "subject")))
    mesh.give("a", BytesReceived(B, encode(asked)))
    (answer,) = [m for m in mesh.seen["a", "b"] if isinstance(m, Answered)]
    assert (answer.code == "forbidden") is not allowed


@pytest.mark.parametrize("word", [Append("g", 1, 0, 0), Ballot("g", 9, 5, 5)])
def test_who_may_not_coordinate_is_dropped_where_it_speaks_as_one(word: Append | Ballot) -> None:
    mesh = met(Act.SUBMIT, Act.SERVE, Act.WRITE, Act.ROLLOUT)
    mesh.give("a", BytesReceived(B, encode(word)))
    assert mesh.peer_state("a", "b") != "alive"
    assert any("may not coordinate" in fault for fault in mesh.said("a", "peer.fault"))
    mesh = met(*MEMBER)
    mesh.give("a", BytesReceived(B, encode(word)))
    assert mesh.peer_state("a", "b") == "alive"
