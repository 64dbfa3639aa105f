"""Who is let in: certificates of those who connect, this node's own, and what the mesh revokes.

Events: a hello, a join request, a renewal and notices arrive; a certificate was issued; the wall
clock was read; the sweep.
Effects: `IssueCredential`, `Send`, `Disconnect`, `Tell`, a timer, and those of `own_certificate`.

Rules:
- Every node checks every certificate for itself, at every hello and again when a notice comes.
- Who dialled us hears nothing but a refusal until its certificate was found good, and only so
  much of it is listened to.
- Without credentials the mesh is open: everybody is a member and may do everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.admission_events import (
    ClockRead,
    CredentialIssued,
    CredentialReplaced,
    IssueCredential,
    NoticeFound,
)
from meshslm.core.certificates import (
    ROOT,
    Act,
    Code,
    NotAdmitted,
    certified,
    may,
    served,
)
from meshslm.core.config import CoreConfig
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Disconnect, Lane
from meshslm.core.notice_gossip import NoticeGossip
from meshslm.core.notices import NoticeBoard
from meshslm.core.outbox import Outbox
from meshslm.core.own_certificate import OwnCertificate
from meshslm.errors import FaultCode, PeerFault
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.admission import (
    Admittance,
    Certificate,
    Credential,
    JoinRequest,
    JoinToken,
    Notice,
    Notices,
    Renewal,
)
from meshslm.wire.messages import Capability, Goodbye, TaskRefused, TaskSubmit

SWEEP = "admission"

_NOT_HERE = Admittance(None, Code.NOT_ADMITTING, "this node lets nobody in")


@dataclass(frozen=True, slots=True)
class Member:
    """A peer that was let in."""

    credential: Credential
    certificate: Certificate


@dataclass(slots=True)
class Quarantine:
    """What was heard of a node that is no member yet."""

    bytes: int = 0
    messages: int = 0
    joining: bool = False


class Admission:
    """The door of one node."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        out: Outbox,
        chance: Chance,
        *,
        drop: Callable[[Peer, str, Instant], None],
        greet: Callable[[Instant], None],
    ) -> None:
        credentials = config.credentials
        self._node = config.node
        self._mesh = credentials
        self._directory = directory
        self._out = out
        self._drop = drop
        self._members: dict[NodeId, Member] = {}
        self._revoked: set[NodeId] = set()
        self._strangers: dict[NodeId, Quarantine] = {}
        self._unix_s = 0.0
        self._read_at = Instant(0)
        self._own: OwnCertificate | None = None
        self._keys: tuple[bytes, ...] = ()
        """The mesh's keys by which those who are here were found good."""
        self.board: NoticeBoard | None = None
        """What the mesh's key has told; None in an open mesh."""
        self._notices: NoticeGossip | None = None
        if credentials is not None:
            self.board = NoticeBoard(credentials.mesh, credentials.verify)
            self._own = OwnCertificate(config.node, credentials, self.board, out, chance, greet)
            self._notices = NoticeGossip(self.board, directory, out, chance, self._apply)

    @property
    def private(self) -> bool:
        """Whether only those with a certificate are let in."""
        return self._mesh is not None

    def event_handlers(self) -> dict[type, Callable[[Any, Instant], None]]:
        """For the node's table: each takes exactly the class that it is listed under."""
        return {
            ClockRead: self.on_clock,
            CredentialIssued: self.on_issued,
            CredentialReplaced: self.on_replaced,
            NoticeFound: self.on_notice_found,
        }

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """For messages of members; what only ever is part of others is a fault by itself."""
        return {
            JoinRequest: self.on_join,
            Renewal: lambda peer, _message, _now: self.on_renewal(peer),
            Admittance: lambda _peer, message, now: self.on_admittance(message, now),
            Notices: self.on_notices,
            **dict.fromkeys((Certificate, Notice, JoinToken), _refuse),
        }

    # --- time -----------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to look for what runs out."""
        if self._own is not None:
            self._own.plan(self._unix_s)
            self._out.start_timer(SWEEP, "", limits.ADMISSION_SWEEP_MS)

    def on_clock(self, event: ClockRead, now: Instant) -> None:
        """The wall clock was read."""
        self._unix_s, self._read_at = event.unix_s, now

    def sweep(self, now: Instant) -> None:
        """Drop those whose certificates ran out, renew our own, compare notices with somebody."""
        self._out.start_timer(SWEEP, "", limits.ADMISSION_SWEEP_MS)
        wall = self._wall(now)
        self._look_at_keys(wall, now)
        for node, member in list(self._members.items()):
            if wall >= member.certificate.not_after:
                self._expel(node, Code.EXPIRED, "the certificate has run out", now)
        alive = self._directory.alive()
        if self._own is not None and self._own.is_due(wall):
            self._own.renew([peer for peer in alive if self.may(peer.node, Act.ADMIT)])
        if self._notices is not None:
            self._notices.compare(alive)

    def _look_at_keys(self, wall: float, now: Instant) -> None:
        """Where a key of the mesh has come or gone: who is here by one that is no longer good?"""
        if self._mesh is None or self.board is None:
            return
        before, self._keys = self._keys, self.board.keys(wall)
        if set(before) <= set(self._keys):
            return
        for node, member in list(self._members.items()):
            try:
                certified(
                    member.credential, node, self._mesh.mesh, self._keys, self._mesh.verify, wall
                )
            except NotAdmitted:
                why = "the mesh's key that signed the certificate is no longer good"
                self._expel(node, Code.EXPIRED, why, now)

    def _wall(self, now: Instant) -> float:
        return self._unix_s + ms_between(self._read_at, now) / 1000

    # --- who may do what ------------------------------------------------------------------------
    def may(self, node: NodeId, act: Act, subject: str = "") -> bool:
        """Whether a member may do it; in an open mesh everybody may do everything."""
        if self._mesh is None:
            return True
        if node == self._node:
            certificate = self._own.certificate if self._own is not None else None
        else:
            certificate = self._certificate(node)
        return certificate is not None and may(certificate, act, subject)

    def credential_of(self, node: NodeId) -> Credential | None:
        """The credential of a member that is here, to be shown to others."""
        member = self._members.get(node)
        return self.credential if node == self._node else member.credential if member else None

    def _certificate(self, node: NodeId) -> Certificate | None:
        member = self._members.get(node)
        return member.certificate if member is not None else None

    def certified_part(self, node: NodeId, capability: Capability) -> Capability:
        """What of an announced capability is within the announcer's certificate."""
        certificate = self._certificate(node)
        if self._mesh is None or certificate is None:
            return capability
        parts = [served(certificate, specialist) for specialist in capability.specialists]
        kept = tuple(part for part in parts if part is not None)
        roles = capability.roles
        if not may(certificate, Act.COORDINATE):
            roles = tuple(role for role in roles if role != "coordinator")
        if kept != capability.specialists:
            self._out.tell("peer.outside-certificate", "it announces more", peer=node)
        return replace(capability, specialists=kept, roles=roles)

    # --- those who connect ----------------------------------------------------------------------
    def hear(self, peer: Peer, size: int) -> None:
        """Count a message of who dialled us and is no member yet; `PeerFault` for too much."""
        if self._mesh is None or not peer.incoming or peer.node in self._members:
            return
        heard = self._strangers.setdefault(peer.node, Quarantine())
        heard.messages += 1
        heard.bytes += size
        if heard.bytes > limits.QUARANTINE_BYTES or heard.messages > limits.QUARANTINE_MESSAGES:
            raise PeerFault(f"{heard.messages} messages, {heard.bytes} bytes, before its hello")

    def greeted(self, node: NodeId, credential: Credential | None, now: Instant) -> None:
        """A hello came: raise `NotAdmitted` where its sender is no member."""
        mesh, board = self._mesh, self.board
        if mesh is None or board is None:
            return
        wall = self._wall(now)
        certificate = certified(credential, node, mesh.mesh, board.keys(wall), mesh.verify, wall)
        assert credential is not None, "none has no certificate"
        try:
            board.check(certificate, credential.issuer)
        except NotAdmitted:
            self._remember_revoked(node)
            raise
        self._strangers.pop(node, None)
        self._revoked.discard(node)
        before = self._certificate(node)
        self._members[node] = Member(credential, certificate)
        if before is not None and before.domains != certificate.domains:
            peer = self._directory.peers.get(node)
            if peer is not None:
                peer.capability = None  # asked for anew, to be seen through the new certificate

    def vouched(self, node: NodeId, credential: Credential | None, now: Instant) -> bool:
        """Whether a node that is not linked is a member of this private mesh."""
        mesh, board, wall = self._mesh, self.board, self._wall(now)
        if mesh is None or board is None or credential is None:
            return False
        try:
            keys = board.keys(wall)
            certificate = certified(credential, node, mesh.mesh, keys, mesh.verify, wall)
            board.check(certificate, credential.issuer)
        except NotAdmitted:
            return False
        return True

    def is_revoked(self, node: NodeId) -> bool:
        """Whether a node was put out, as far as is remembered: it is not to be dialled again."""
        named = self.board is not None and self.board.revoked("node", node)
        return named or node in self._revoked

    def _remember_revoked(self, node: NodeId) -> None:
        if len(self._revoked) >= limits.PEERS:
            self._revoked.clear()
        self._revoked.add(node)

    def met(self, node: NodeId) -> None:
        """A member is alive: compare what is revoked."""
        peer = self._directory.get_alive(node)
        if self._notices is not None and peer is not None:
            self._notices.compare([peer])

    def forget(self, node: NodeId) -> None:
        """The link to a node is gone."""
        self._strangers.pop(node, None)
        self._members.pop(node, None)

    def on_join(self, peer: Peer, request: JoinRequest, _now: Instant) -> None:
        """A node without a certificate shows a token, once in the life of its link."""
        heard = self._strangers.setdefault(peer.node, Quarantine())
        if heard.joining:
            return
        heard.joining = True
        if self._mesh is None or not self._mesh.admits:
            self._answer(peer.node, _NOT_HERE)
            return
        self._out.put(IssueCredential(peer.node, request, None))

    # --- certificates given out -----------------------------------------------------------------
    def on_issued(self, event: CredentialIssued, now: Instant) -> None:
        """A token was redeemed or a certificate renewed here, or not."""
        self._out.tell(
            "mesh.admitted" if event.credential is not None else "mesh.not-admitted",
            event.detail,
            peer=event.peer,
        )
        answer = Admittance(event.credential, event.code, event.detail[:200])
        if event.peer == self._node:
            self.on_admittance(answer, now)
        else:
            self._answer(event.peer, answer)

    def _answer(self, node: NodeId, answer: Admittance) -> None:
        self._out.send(node, Lane.CONTROL, answer)
        if self._directory.get_alive(node) is None:
            self._out.put(Disconnect(node, "its join request is answered"))

    def on_renewal(self, peer: Peer) -> None:
        """A member wants its certificate for another life."""
        member = self._members.get(peer.node)
        if self._mesh is None or not self._mesh.admits or member is None:
            self._answer(peer.node, _NOT_HERE)
            return
        self._out.put(IssueCredential(peer.node, None, member.credential))

    # --- our own certificate --------------------------------------------------------------------
    @property
    def credential(self) -> Credential | None:
        """What this node shows; None in an open mesh."""
        return self._own.credential if self._own is not None else None

    def on_admittance(self, answer: Admittance, now: Instant) -> None:
        """Whoever was asked to renew our certificate answers."""
        if self._own is not None:
            self._own.answered(answer, self._wall(now), now)

    def on_replaced(self, event: CredentialReplaced, now: Instant) -> None:
        """The operator signed a new certificate for this node."""
        if self._own is not None:
            self._own.replaced(event.credential, self._wall(now), now)

    # --- what is revoked ------------------------------------------------------------------------
    def on_notice_found(self, event: NoticeFound, now: Instant) -> None:
        """A notice that this node keeps, or that its operator wrote now."""
        if self._notices is not None:
            self._notices.found(event.notice, now, kept=event.kept)

    def on_notices(self, peer: Peer, message: Notices, now: Instant) -> None:
        """A member tells what it knows. Raises `NotAdmitted` for what no key of the mesh said."""
        if self._notices is not None and self._directory.get_alive(peer.node) is not None:
            self._notices.heard(peer, message, now)

    def _apply(self, notice: Notice, now: Instant) -> None:
        board = self.board
        assert board is not None, "notices are of private meshes"
        for node, member in list(self._members.items()):
            try:
                board.check(member.certificate, member.credential.issuer)
            except NotAdmitted as refusal:
                self._expel(node, refusal.code, str(refusal), now)
        if self._own is not None and notice.about == ROOT:
            self._own.plan(self._wall(now))
        elif self._own is not None:
            try:
                board.check(self._own.certificate, self._own.credential.issuer)
            except NotAdmitted:
                self._out.tell("mesh.expelled", "this node's certificate was revoked")

    def _expel(self, node: NodeId, code: Code, why: str, now: Instant) -> None:
        peer = self._directory.peers.get(node)
        self._members.pop(node, None)
        if code is Code.REVOKED:
            self._remember_revoked(node)
        if peer is not None and peer.connected:
            self._out.send(node, Lane.CONTROL, Goodbye(why, code=code))
            self._drop(peer, f"{code}: {why}", now)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        if self._mesh is not None:
            for peer in self._directory.alive():
                assert peer.node in self._members, f"{peer.node} is alive without a certificate"


def forbidden(task: TaskSubmit) -> TaskRefused:
    """The answer to a task of who may not submit any."""
    detail = "the certificate of the node where the task entered does not let it submit tasks"
    return TaskRefused(task.task, task.attempt, FaultCode.FORBIDDEN, detail)


def _refuse(_peer: Peer, message: object, _now: Instant) -> None:
    raise PeerFault(f"a {type(message).__name__} is no message by itself")
