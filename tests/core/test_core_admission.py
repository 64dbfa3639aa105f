"""Who is let in, what members may do, renewal and revocation: whole cores, a scripted signer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshslm import limits
from meshslm.core.admission_events import CredentialReplaced, IssueCredential, NoticeFound
from meshslm.core.events import (
    BytesReceived,
    Dial,
    Disconnect,
    FailTask,
    PeerConnected,
    PeerDisconnected,
    RouteChosen,
    Send,
    StartRun,
    TaskArrived,
)
from meshslm.ids import NodeId, TaskId, after
from meshslm.wire.admission import (
    Admittance,
    Credential,
    JoinRequest,
    JoinToken,
    Notices,
    Signed,
)
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import (
    ChatMessage,
    Goodbye,
    Hello,
    Message,
    Peers,
    Presence,
    TaskRefused,
    TaskRequest,
    TaskSubmit,
)
from tests.core.mesh import specialist
from tests.core.private_mesh import (
    LIFE,
    NOW,
    ROOT,
    PrivateMesh,
    certificate,
    credential,
    notice,
    signed_with,
)

OTHER = b"another mesh's key".ljust(32)
ADMITTER = b"an admitter's key".ljust(32)
STRANGER = NodeId("s")


@pytest.fixture
def mesh() -> PrivateMesh:
    return PrivateMesh()


def two(mesh: PrivateMesh) -> None:
    mesh.enter("a", specialist("coder", "code"))
    mesh.enter("b", bootstrap=("a",))


def hello(shown: Credential | None = None) -> Hello:
    return Hello(1, 1, "home", 1, "stranger", credential=shown)


def ask(selector: str = "auto") -> TaskRequest:
    return TaskRequest(selector, (ChatMessage("user", "hello"),))


# --- the hello ----------------------------------------------------------------------------------
def test_members_meet(mesh: PrivateMesh) -> None:
    two(mesh)
    assert mesh.peer_state("a", "b") == "alive"
    assert mesh.peer_state("b", "a") == "alive"


def test_who_dials_speaks_first(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    done = mesh.give("a", PeerConnected(STRANGER, ""))
    assert not [effect for effect in done if isinstance(effect, Send)]
    mesh.pass_time(limits.HELLO_MS - 1)
    assert not mesh.seen["a", "s"], "a stranger who says nothing hears nothing"


def test_a_hello_that_never_comes_ends_the_link(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    mesh.links.add(frozenset(("a", "s")))
    mesh.give("a", PeerConnected(STRANGER, ""))
    mesh.pass_time(limits.HELLO_MS + limits.HELLO_RESEND_MS)
    assert [e.peer for e in mesh.effects("a", Disconnect)] == [STRANGER]
    assert mesh.peer_state("a", "s") == "unknown", "and it is forgotten"


def forged() -> Credential:
    return Credential(Signed(encode(certificate("s")), bytes(64)))


def other_mesh() -> Credential:
    return Credential(signed_with(OTHER, certificate("s", mesh=OTHER)))


def from_admitter(node: str = "s", **fields: object) -> Credential:
    """A certificate by a member that may submit and admit, and nothing else."""
    issuer = certificate(
        "i", rights=("submit", "admit"), domains=("code",), namespaces=(), key=ADMITTER
    )
    wanted: dict[str, object] = {"rights": ("submit",), "domains": ("code",), "namespaces": ()}
    signed = signed_with(ADMITTER, certificate(node, **{**wanted, **fields}))
    return Credential(signed, signed_with(ROOT, issuer))


def by_who_may_not_admit() -> Credential:
    issuer = signed_with(ROOT, certificate("i", rights=("submit",), key=ADMITTER))
    return Credential(signed_with(ADMITTER, certificate("s", rights=("submit",))), issuer)


def by_a_chain_of_three() -> Credential:
    """The issuer's own certificate is by an admitter, not by the mesh's key."""
    issuer = certificate("j", rights=("submit", "admit"), key=OTHER)
    signed = signed_with(OTHER, certificate("s", rights=("submit",)))
    return Credential(signed, signed_with(ADMITTER, issuer))


REFUSED: list[tuple[Callable[[], Credential | None], str]] = [
    (lambda: None, "no_certificate"),
    (forged, "forged"),
    (other_mesh, "other_mesh"),
    (lambda: Credential(signed_with(ROOT, certificate("b"))), "not_yours"),
    (lambda: credential("s", not_after=NOW), "expired"),
    (lambda: credential("s", not_before=NOW + 60), "not_yet_valid"),
    (lambda: Credential(Signed(b"\x93", bytes(64))), "forged"),
    (lambda: Credential(Signed(encode(hello()), bytes(64))), "forged"),
    (lambda: Credential(notice("node", "s")), "forged"),
    (lambda: from_admitter(rights=("submit", "serve")), "widened"),
    (lambda: from_admitter(rights=("submit", "admit")), "widened"),
    (lambda: from_admitter(domains=("*",)), "widened"),
    (lambda: from_admitter(namespaces=("notes",)), "widened"),
    (by_who_may_not_admit, "widened"),
    (by_a_chain_of_three, "forged"),
]


@pytest.mark.parametrize(("shown", "code"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_whoever_is_no_member_gets_one_refusal_and_nothing_else(
    mesh: PrivateMesh, shown: Callable[[], Credential | None], code: str
) -> None:
    two(mesh)
    mesh.give("a", PeerConnected(STRANGER, ""))
    mesh.links.add(frozenset(("a", "s")))
    done = mesh.give("a", BytesReceived(STRANGER, encode(hello(shown()))))
    (answer,) = [decode(e.message) for e in done if isinstance(e, Send) and e.peer == "s"]
    assert isinstance(answer, Goodbye)
    assert answer.code == code
    assert [e.peer for e in mesh.effects("a", Disconnect)] == [STRANGER]
    assert mesh.peer_state("a", "s") == "unknown", "and it is forgotten"
    assert "b" not in answer.reason.split(), "a stranger does not hear of members"


def test_a_certificate_by_an_admitter_is_good(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    mesh.enter("s", bootstrap=("a",), shown=from_admitter())
    assert mesh.peer_state("a", "s") == "alive"


@pytest.mark.parametrize(
    "probe", [Peers(), Notices(b"12345678"), TaskSubmit(TaskId("t"), 0, "coder", ask(), 1000)]
)
def test_nothing_is_answered_before_the_hello(mesh: PrivateMesh, probe: Message) -> None:
    two(mesh)
    mesh.give("a", PeerConnected(STRANGER, ""))
    done = mesh.give("a", BytesReceived(STRANGER, encode(probe)))
    assert not [e for e in done if isinstance(e, Send)]
    assert not mesh.effects("a", StartRun)


def test_what_a_stranger_may_say_is_bounded(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    mesh.give("a", PeerConnected(STRANGER, ""))
    mesh.links.add(frozenset(("a", "s")))
    for _ in range(limits.QUARANTINE_MESSAGES):
        mesh.give("a", BytesReceived(STRANGER, encode(Peers())))
    assert frozenset(("a", "s")) in mesh.links
    mesh.give("a", BytesReceived(STRANGER, encode(Peers())))
    assert frozenset(("a", "s")) not in mesh.links


def test_strangers_leave_nothing_behind(mesh: PrivateMesh) -> None:
    two(mesh)
    core = mesh.boxes[NodeId("a")].core
    for number in range(300):
        stranger = NodeId(f"s{number}")
        mesh.give("a", PeerConnected(stranger, ""))
        said = (hello(), JoinRequest(1, 1, b"x", "s"), Goodbye("bye", leaving=True))[number % 3]
        mesh.give("a", BytesReceived(stranger, encode(said)))
        mesh.give("a", BytesReceived(stranger, b"rubbish"))
        mesh.give("a", PeerDisconnected(stranger, "gone"))
    assert [peer.node for peer in core.peers(mesh.now)] == ["a", "b"]
    assert not core._admission._strangers


@pytest.mark.parametrize("link", ["the same", "a new one"])
def test_a_member_that_restarts_before_it_is_missed_stays_one(mesh: PrivateMesh, link: str) -> None:
    two(mesh)
    node = NodeId("b")
    if link == "a new one":
        mesh.give("a", PeerDisconnected(node, "cable"))
        mesh.give("a", PeerConnected(node, ""))
    again = Hello(1, 1, "home", 2, "b", credential=credential("b"))
    mesh.give("a", BytesReceived(node, encode(again)))
    for number in range(2 * limits.QUARANTINE_MESSAGES):
        mesh.give("a", BytesReceived(node, encode(Presence(2, number))))
    assert mesh.said("a", "peer.gone") == ["it restarted"]
    assert mesh.said("a", "peer.fault") == []
    assert mesh.peer_state("a", "b") == "alive"
    mesh.boxes[NodeId("a")].core.check()


def test_a_large_first_message_is_not_even_read(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    mesh.give("a", PeerConnected(STRANGER, ""))
    mesh.give("a", BytesReceived(STRANGER, bytes(limits.QUARANTINE_BYTES + 1)))
    assert mesh.peer_state("a", "s") == "unreachable"
    assert any("before its hello" in fault for fault in mesh.said("a", "peer.fault"))


@pytest.mark.parametrize("part", [certificate("s"), JoinToken(ROOT, ROOT, b"x")])
def test_parts_of_others_are_no_messages(mesh: PrivateMesh, part: Message) -> None:
    two(mesh)
    mesh.give("a", BytesReceived(NodeId("b"), encode(part)))
    assert mesh.peer_state("a", "b") != "alive"


def test_an_open_mesh_lets_everybody_in(mesh: PrivateMesh) -> None:
    mesh.add("a")
    mesh.add("b", bootstrap=("a",))
    assert mesh.peer_state("a", "b") == "alive"


def test_open_and_private_meshes_do_not_mix(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    mesh.add("b", bootstrap=("a",))
    assert mesh.peer_state("a", "b") != "alive"


# --- what members may do ------------------------------------------------------------------------
def test_who_may_not_submit_is_refused_where_the_task_would_run(mesh: PrivateMesh) -> None:
    mesh.enter("a", specialist("coder", "code"))
    mesh.enter("b", bootstrap=("a",), shown=credential("b", rights=("serve",)))
    mesh.give(
        "a", BytesReceived(NodeId("b"), encode(TaskSubmit(TaskId("t"), 0, "coder", ask(), 9)))
    )
    (refusal,) = [m for m in mesh.seen["a", "b"] if isinstance(m, TaskRefused)]
    assert refusal.code == "forbidden"
    assert not mesh.effects("a", StartRun)


def test_who_may_not_submit_does_not_ask_others(mesh: PrivateMesh) -> None:
    mesh.enter("a", specialist("coder", "code"))
    mesh.enter("b", bootstrap=("a",), shown=credential("b", rights=("serve",)))
    done = mesh.give("b", TaskArrived(TaskId("t"), ask()))
    assert [e for e in done if isinstance(e, FailTask)]
    assert not [m for m in mesh.seen["b", "a"] if isinstance(m, TaskSubmit)]


def test_domains_outside_the_certificate_are_not_seen(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    shown = credential("b", rights=("serve",), domains=("code",))
    both = specialist("both", "code", "law")
    mesh.enter("b", both, specialist("lawyer", "law"), bootstrap=("a",), shown=shown)
    (view,) = [v for v in mesh.boxes[NodeId("a")].core.peers(mesh.now) if v.node == "b"]
    assert [(s.profile, [c.domain for c in s.domains]) for s in view.specialists] == [
        ("both", ["code"])
    ]
    done = mesh.give("a", TaskArrived(TaskId("t"), ask("lawyer")))
    assert not [e for e in done if isinstance(e, RouteChosen)]


def test_who_may_not_serve_is_not_asked(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    shown = credential("b", rights=("submit",))
    mesh.enter("b", specialist("coder", "code"), bootstrap=("a",), shown=shown)
    done = mesh.give("a", TaskArrived(TaskId("t"), ask()))
    assert not [e for e in done if isinstance(e, RouteChosen)]


# --- joining ------------------------------------------------------------------------------------
def test_a_token_is_looked_at_once_a_link_and_only_where_one_may_admit(mesh: PrivateMesh) -> None:
    mesh.enter("a", admits=True)
    mesh.enter("b", bootstrap=("a",))
    request = JoinRequest(1, 1, b"token")
    for name in "ab":
        mesh.give(name, PeerConnected(STRANGER, ""))
    mesh.give("a", BytesReceived(STRANGER, encode(request)))
    mesh.give("a", BytesReceived(STRANGER, encode(request)))
    (issue,) = mesh.effects("a", IssueCredential)
    assert issue.request == request
    answers = [m for m in mesh.seen["a", "s"] if isinstance(m, Admittance)]
    assert len(answers) == 1
    assert answers[0].credential is not None
    mesh.give("b", BytesReceived(STRANGER, encode(request)))
    (refusal,) = [m for m in mesh.seen["b", "s"] if isinstance(m, Admittance)]
    assert refusal.code == "not_admitting"


# --- renewal ------------------------------------------------------------------------------------
def keep_time(mesh: PrivateMesh, seconds: int) -> None:
    for _ in range(seconds // 30):
        mesh.pass_time(30_000)
        for name in list(mesh.boxes):
            mesh.give(name, mesh.clock())


def test_certificates_are_renewed_before_they_run_out(mesh: PrivateMesh) -> None:
    mesh.enter("a", admits=True)
    mesh.enter("b", bootstrap=("a",))
    keep_time(mesh, LIFE // 2)
    assert not mesh.renewed("a")
    assert not mesh.renewed("b")
    keep_time(mesh, LIFE)
    assert mesh.renewed("a")
    assert mesh.renewed("b")
    assert mesh.peer_state("a", "b") == "alive"
    assert mesh.peer_state("b", "a") == "alive"


def test_who_is_not_renewed_is_dropped_when_it_runs_out(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    mesh.enter("b", bootstrap=("a",), shown=credential("b", not_after=NOW + 120))
    keep_time(mesh, 90)
    assert mesh.peer_state("a", "b") == "alive"
    keep_time(mesh, 60)
    assert mesh.peer_state("a", "b") == "unreachable"
    farewells = [m.code for m in mesh.seen["a", "b"] if isinstance(m, Goodbye)]
    assert set(farewells) == {"expired"}


def test_a_renewed_certificate_with_more_domains_counts_at_once(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    shown = credential("b", domains=("code",))
    mesh.enter("b", specialist("lawyer", "law"), bootstrap=("a",), shown=shown)
    more = credential("b", domains=("code", "law"), not_after=NOW + 2 * LIFE)
    mesh.give("b", CredentialReplaced(more))
    mesh.pass_time(2 * limits.PRESENCE_MS)
    done = mesh.give("a", TaskArrived(TaskId("t"), ask("lawyer")))
    assert [e for e in done if isinstance(e, RouteChosen)]


# --- revocation ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "about",
    [("node", "c"), ("certificate", certificate("c").serial.hex())],
    ids=lambda a: str(a[0]),
)
def test_a_revocation_reaches_all_and_drops_the_peer(
    mesh: PrivateMesh, about: tuple[str, str]
) -> None:
    mesh.enter("a")
    mesh.enter("b", bootstrap=("a",))
    mesh.enter("c", bootstrap=("a", "b"))
    assert mesh.peer_state("b", "c") == "alive"
    word = notice(*about)
    mesh.give("a", NoticeFound(word))
    for name in "ab":
        assert mesh.peer_state(name, "c") == "unreachable"
    assert mesh.kept("b") == [word]
    assert mesh.said("c", "mesh.expelled")
    dialled = [e.address for name in "ab" for e in mesh.effects(name, Dial)]
    mesh.pass_time(60_000)
    for name in "ab":
        assert mesh.peer_state(name, "c") == "unreachable", "it does not come back"
    assert dialled == [e.address for name in "ab" for e in mesh.effects(name, Dial)]
    assert mesh.peer_state("a", "b") == "alive"


@pytest.mark.parametrize(
    "about", [("node", "i"), ("certificate", certificate("i").serial.hex())], ids=lambda a: a[0]
)
def test_whom_a_revoked_member_let_in_goes_with_it(
    mesh: PrivateMesh, about: tuple[str, str]
) -> None:
    mesh.enter("a")
    mesh.enter("s", bootstrap=("a",), shown=from_admitter())
    mesh.enter("b", bootstrap=("a",))
    assert mesh.peer_state("a", "s") == "alive"
    mesh.give("a", NoticeFound(notice(*about)))
    assert mesh.peer_state("a", "s") == "unreachable"
    assert mesh.said("s", "mesh.expelled")
    mesh.enter("t", bootstrap=("b",), shown=from_admitter("t"))
    assert mesh.peer_state("b", "t") != "alive", "its key signs for nobody any more"
    mesh.enter("s2", bootstrap=("a",), shown=credential("s2"))
    assert mesh.peer_state("a", "s2") == "alive"


def test_who_was_away_learns_what_was_revoked(mesh: PrivateMesh) -> None:
    mesh.enter("a")
    for number in range(limits.NOTICES_PER_MESSAGE + 6):
        mesh.give("a", NoticeFound(notice("token", f"{number:032x}")))
    mesh.enter("b", bootstrap=("a",))
    assert len(mesh.kept("b")) == limits.NOTICES_PER_MESSAGE + 6


def test_a_notice_that_got_lost_is_told_again(mesh: PrivateMesh) -> None:
    two(mesh)
    board = mesh.boxes[NodeId("a")].core._admission.board
    assert board is not None
    lost = notice("node", "c")
    board.add(lost)  # known here, and never handed on
    mesh.pass_time(4 * limits.ADMISSION_SWEEP_MS)
    assert mesh.kept("b") == [lost]


def test_who_asks_with_false_digests_is_told_all_notices_now_and_then(mesh: PrivateMesh) -> None:
    two(mesh)
    known = limits.NOTICES_PER_MESSAGE + 6
    for number in range(known):
        mesh.give("a", NoticeFound(notice("token", f"{number:032x}")))
    mesh.now = after(mesh.now, limits.NOTICES_AGAIN_MS)
    question = encode(Notices(b"12345678"))
    for round_ in range(3):
        sent = len(mesh.seen["a", "b"])
        for _ in range(300):
            mesh.give("a", BytesReceived(NodeId("b"), question))
        told = sum(len(m.notices) for m in mesh.seen["a", "b"][sent:] if isinstance(m, Notices))
        assert told == known, f"in round {round_} of three"
        mesh.now = after(mesh.now, limits.NOTICES_AGAIN_MS)


def test_both_sides_of_a_partition_come_to_know_the_same(mesh: PrivateMesh) -> None:
    two(mesh)
    mesh.break_link("a", "b")
    mesh.cut.add(frozenset("ab"))
    mesh.give("a", NoticeFound(notice("node", "x")))
    mesh.give("b", NoticeFound(notice("node", "y")))
    mesh.cut.clear()
    mesh.pass_time(60_000)
    assert [len(mesh.kept(name)) for name in "ab"] == [1, 1]
    sent = sum(isinstance(m, Notices) and bool(m.notices) for m in mesh.seen["a", "b"])
    mesh.pass_time(120_000)
    again = sum(isinstance(m, Notices) and bool(m.notices) for m in mesh.seen["a", "b"])
    assert again == sent, "who knows the same says so in a digest"


@pytest.mark.parametrize(
    "false", [notice("node", "a", key=OTHER), notice("nonsense", "a"), notice("root", "no key")]
)
def test_a_false_notice_ends_the_link_of_who_tells_it(mesh: PrivateMesh, false: Signed) -> None:
    two(mesh)
    mesh.give("a", BytesReceived(NodeId("b"), encode(Notices(b"", (false,)))))
    assert mesh.peer_state("a", "b") != "alive"
    assert not mesh.kept("a")


# --- a new key ----------------------------------------------------------------------------------
NEXT = b"the mesh's next key".ljust(32)


def test_the_mesh_goes_over_to_a_new_key(mesh: PrivateMesh) -> None:
    two(mesh)
    handover = notice("root", NEXT.hex(), until=NOW + 600)
    mesh.give("a", NoticeFound(handover))
    assert mesh.kept("b") == [handover]
    assert mesh.peer_state("a", "b") == "alive", "the old key is good for a while"
    fresh = Credential(signed_with(NEXT, certificate("c")), None, (handover,))
    mesh.enter("c", bootstrap=("a",), shown=fresh)
    assert mesh.peer_state("a", "c") == "alive"
    assert mesh.peer_state("c", "a") == "alive", "an old certificate, seen by a newcomer"
    mesh.give("a", NoticeFound(notice("node", "c", key=NEXT)))
    assert mesh.peer_state("b", "c") != "alive"


def test_certificates_are_renewed_while_the_old_key_is_good(mesh: PrivateMesh) -> None:
    mesh.enter("a", admits=True)
    for name in "bc":
        mesh.enter(name, bootstrap=("a",))
    handover = notice("root", NEXT.hex(), until=NOW + 600)
    mesh.key, mesh.succession = NEXT, (handover,)
    mesh.give("a", NoticeFound(handover))
    mesh.pass_time(20_000)
    assert not any(mesh.renewed(name) for name in "bc"), "not all of a mesh at once"
    keep_time(mesh, 480)
    assert [len(mesh.renewed(name)) for name in "abc"] == [1, 1, 1]
    keep_time(mesh, 210)
    assert {mesh.peer_state("a", name) for name in "bc"} == {"alive"}


def test_who_was_not_renewed_by_then_goes_with_the_old_key(mesh: PrivateMesh) -> None:
    two(mesh)
    mesh.give("a", NoticeFound(notice("root", NEXT.hex(), until=NOW + 60)))
    keep_time(mesh, 30)
    assert mesh.peer_state("a", "b") == "alive"
    keep_time(mesh, 60)
    assert mesh.peer_state("a", "b") == "unreachable"
    told = [*mesh.seen["a", "b"], *mesh.seen["b", "a"]]
    assert "expired" in [m.code for m in told if isinstance(m, Goodbye)], "one drops the other"


def test_who_missed_the_change_of_key_still_reads_new_certificates(mesh: PrivateMesh) -> None:
    handover = notice("root", NEXT.hex(), until=NOW + 600)
    mesh.enter("a")
    fresh = Credential(signed_with(NEXT, certificate("b")), None, (handover,))
    mesh.enter("b", bootstrap=("a",), shown=fresh)
    assert mesh.peer_state("a", "b") == "alive"


def test_the_old_key_cannot_hand_over_twice_or_sign_after_its_time(mesh: PrivateMesh) -> None:
    two(mesh)
    mesh.give("a", NoticeFound(notice("root", NEXT.hex(), until=NOW - 1)))
    mesh.give("a", NoticeFound(notice("root", OTHER.hex())))
    assert mesh.said("a", "mesh.notice-refused")
    mesh.enter("c", bootstrap=("a",))
    assert mesh.peer_state("a", "c") != "alive"
