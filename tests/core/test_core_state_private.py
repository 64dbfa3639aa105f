"""In a private mesh certificates say who may write where, also of those who have left."""

from __future__ import annotations

from dataclasses import replace

from meshslm.core.admission_events import NoticeFound
from meshslm.core.certificates import Act, Credentials
from meshslm.core.events import BytesReceived, Tell
from meshslm.core.state_holdings import delta_in
from meshslm.errors import FaultCode
from meshslm.ids import NodeId
from meshslm.sim.signatures import sign
from meshslm.state.entry import Entry, pack
from meshslm.state.part import Part, PartKey
from meshslm.wire.admission import SIGNED_PREFIX
from meshslm.wire.codec import encode
from meshslm.wire.state import AuthorShown, AuthorWanted, Delta, SignedDelta, StateDeltas
from tests.core.private_mesh import ROOT, credential, notice, verify
from tests.core.state_mesh import DOC, StateMesh


def member(name: str, *namespaces: str) -> Credentials:
    """A member that may write to these namespaces."""
    return Credentials(ROOT, credential(name, namespaces=namespaces), verify)


def private(*, b_writes: str = "notes") -> StateMesh:
    mesh = StateMesh()
    mesh.join("a", credentials=member("a", "notes"))
    mesh.join("b", "a", credentials=member("b", b_writes))
    mesh.pass_time(2_000)
    return mesh


def test_members_share_documents() -> None:
    mesh = private()
    mesh.put("a", "k", b"v")
    mesh.pass_time(100)
    assert mesh.value("b", "k") == b"v"


def test_a_node_without_the_right_is_told_so_when_it_writes() -> None:
    mesh = private(b_writes="others")
    assert mesh.put("b", "k", b"v").code is FaultCode.FORBIDDEN
    assert mesh.put("b", "k", b"v", "rollout").code is None
    assert mesh.value("a", "k") is None


def written_by_b() -> SignedDelta:
    """The first that b writes, whether it may or not."""
    part = Part(PartKey(DOC, NodeId("b"), 1 << 16))
    payload = encode(
        Delta(b"", NodeId("b"), DOC, 1 << 16, 0, 1, (part.write({"k": pack(Entry(b"v", 1))}),))
    )
    return SignedDelta(payload, sign(NodeId("b"), SIGNED_PREFIX + payload))


def test_what_is_written_without_the_right_is_refused_and_held_against_its_author() -> None:
    mesh = private(b_writes="others")
    signed = written_by_b()
    mesh.give("a", BytesReceived(NodeId("b"), encode(StateDeltas((signed,)))))
    assert mesh.value("a", "k") is None
    (ban,) = mesh.boxes[NodeId("a")].core.status(mesh.now).banned
    assert "may not write" in ban.reason
    assert delta_in(signed.payload).author == "b"


def test_nothing_new_is_taken_of_who_was_revoked_while_it_was_away() -> None:
    mesh = private()
    mesh.join("c", "a", credentials=member("c", "notes"))
    mesh.kill("b")
    mesh.give("a", NoticeFound(notice("node", "b")))
    mesh.give("a", BytesReceived(NodeId("c"), encode(StateDeltas((written_by_b(),)))))
    assert mesh.value("a", "k") is None


def test_what_was_written_by_who_has_left_is_believed_by_who_never_met_it() -> None:
    mesh = private()
    mesh.put("a", "k", b"v")
    mesh.pass_time(100)
    mesh.kill("a")
    mesh.join("c", "b", credentials=member("c", "notes"))
    mesh.pass_time(5_000)
    assert mesh.value("c", "k") == b"v"
    assert any(isinstance(m, AuthorWanted) for m in mesh.seen[NodeId("c"), NodeId("b")])


def test_a_credential_that_does_not_hold_is_not_taken() -> None:
    mesh = private()
    mesh.put("a", "k", b"v")
    mesh.pass_time(100)
    mesh.kill("a")
    forged = replace(credential("a"), certificate=credential("x").certificate)
    mesh.filter = lambda _from, _to, m: (
        [replace(m, credential=forged)] if isinstance(m, AuthorShown) else None
    )
    mesh.join("c", "b", credentials=member("c", "notes"))
    mesh.pass_time(5_000)
    assert mesh.value("c", "k") is None
    assert any(t.topic == "state.author-refused" for t in mesh.effects("c", Tell))


def test_a_credential_that_nobody_asked_for_changes_nothing() -> None:
    mesh = private()
    shown = AuthorShown(NodeId("z"), credential("z"))
    mesh.give("a", BytesReceived(NodeId("b"), encode(shown)))
    mesh.give("a", BytesReceived(NodeId("b"), encode(AuthorWanted(NodeId("z")))))
    assert not [m for m in mesh.seen[NodeId("a"), NodeId("b")] if isinstance(m, AuthorShown)]


def test_rollouts_need_their_own_right() -> None:
    mesh = StateMesh()
    own = credential("a", rights=(Act.WRITE,))
    mesh.join("a", credentials=Credentials(ROOT, own, verify))
    mesh.pass_time(100)
    assert mesh.put("a", "k", b"v", "rollout").code is FaultCode.FORBIDDEN
    assert mesh.put("a", "k", b"v").code is None
