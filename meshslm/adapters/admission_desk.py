"""Where certificates are made: for the first node of a mesh, for tokens, and for renewals.

A node can let others in where it has the mesh's key, or where its own certificate, signed with that
key, has the right `admit`; it then signs with its own key.

Rules:
- A token whose uses are counted is redeemed where it was made, because only one ledger can count.
- The use is durable before the certificate leaves. The same node may ask again with the same token,
  since the answer may have been lost, and gets the same certificate again, for as long from now on:
  so it has one serial to be revoked by.
- Asking again and again writes nothing: the ledger's lines differ by more than moments. Nor does
  asking for something else each time, once there are `LEDGER_PARTS` lines: it is refused.
- Nobody gets more than the token gives, than the signer has, or for longer than the signer has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from threading import Lock

import msgspec

from meshslm import limits
from meshslm.adapters.keyring import NodeKey, load_or_create, public_key
from meshslm.adapters.mesh_folder import Entry, Member, MeshFolder
from meshslm.adapters.signing import SigningKey, new_serial, verify
from meshslm.adapters.tokens import Grant, from_text, make_token, opened
from meshslm.core.certificates import ANY, Act, Code, NotAdmitted, certified, stated, within
from meshslm.core.notices import NoticeBoard
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.wire.admission import Certificate, Credential, JoinRequest, Notice, Signed
from meshslm.wire.versions import PROTOCOL_HIGH, PROTOCOL_LOW

ENROL_S = 60
"""Life of a token that is used in the next moment."""

LEDGER_PARTS = 100
"""Lines about one certificate in its life: more would let a member fill the disk by asking."""

EVERYTHING = Grant(b"", tuple(Act), (ANY,), (ANY,))


def create_mesh(folder: MeshFolder, node: NodeKey, name: str, unix_s: float) -> Certificate:
    """Make a mesh's key, and the certificate of its first node. Raises `OurFault`."""
    if folder.root() is not None or folder.member() is not None:
        fault = OurFault(f"this node is in a mesh already ({folder.path})")
        fault.add_note("'meshslm mesh status' shows it, 'meshslm mesh leave' leaves it")
        raise fault
    root = SigningKey.generate()
    certificate = _certificate(root.public, name, node.node_id, EVERYTHING, unix_s)
    certificate = replace(certificate, key=node.public)
    folder.keep_root(root)
    folder.record(_entry(certificate, name="", unix_s=unix_s))
    folder.keep_member(Credential(root.sign(certificate)), ())
    return certificate


class AdmissionDesk:
    """Signs in the name of a mesh. Calls may come from any thread, one at a time is done."""

    def __init__(self, folder: MeshFolder, node: NodeKey, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._node = node
        self._clock = clock
        self._lock = Lock()

    def redeem(self, peer: NodeId, request: JoinRequest) -> Credential:
        """A first certificate, for a token. Raises `NotAdmitted`; `OurFault` where a disk fails."""
        with self._lock:
            now = self._clock()
            signer = _Signer.of(self._folder, self._node, now)
            grant = opened(
                request.token,
                signer.token_keys(now),
                mesh=signer.mesh,
                peer=peer,
                unix_s=now,
                rights=request.rights,
                domains=request.domains,
                namespaces=request.namespaces,
            )
            if not grant.rights:
                raise NotAdmitted(Code.INVITATION_INVALID, "the token gives nothing")
            before = self._used(grant, peer, signer.board)
            return self._issue(signer, peer, grant, request.name, now, before=before)

    def renew(self, peer: NodeId, credential: Credential) -> Credential:
        """The same certificate, for another life. Raises `NotAdmitted`, or `OurFault`.

        That of the node which has the mesh's key is renewed after its end too: nobody else can.
        """
        with self._lock:
            now = self._clock()
            signer = _Signer.of(self._folder, self._node, now)
            if signer.is_root and peer == self._node.node_id:
                old = stated(credential.certificate, Certificate)
            else:
                keys = signer.board.keys(now)
                old = certified(credential, peer, signer.mesh, keys, verify, now)
            signer.board.check(old, credential.issuer)
            if Act.ADMIT in old.rights and not signer.is_root:
                raise NotAdmitted(Code.NOT_ADMITTING, "only the mesh's key renews who may admit")
            life = old.not_after - old.not_before - limits.CLOCK_SKEW_S
            grant = Grant(old.token, old.rights, old.domains, old.namespaces, life_s=max(life, 1))
            return self._issue(signer, peer, grant, "", now, renewed=old)

    def invite(self, grant: Grant, expires_unix_s: float, addresses: tuple[str, ...]) -> str:
        """The text of a token for what `grant` says; serial and issuer are filled in.

        Raises `NotAdmitted` where this node lets nobody in, or not with so much.
        """
        now = self._clock()
        signer = _Signer.of(self._folder, self._node, now)
        signer.check_fits(grant.rights, grant.domains, grant.namespaces)
        grant = replace(grant, token=new_serial(), issuer=self._node.node_id)
        return make_token(grant, signer.mesh, signer.key, expires_unix_s, addresses)

    def _used(self, grant: Grant, peer: NodeId, board: NoticeBoard) -> Entry | None:
        """What the peer was given for this token before. Raises `NotAdmitted`."""
        if board.revoked("token", grant.token.hex()) or board.revoked("node", peer):
            raise NotAdmitted(Code.REVOKED, "the token, or this node, was revoked")
        if grant.uses and grant.issuer != self._node.node_id:
            raise NotAdmitted(Code.NOT_ADMITTING, "this token is redeemed where it was made")
        given = [e for e in self._folder.ledger() if e.token == grant.token.hex()]
        own = [entry for entry in given if entry.node == peer]
        if any(board.revoked("certificate", entry.serial) for entry in own):
            raise NotAdmitted(Code.REVOKED, "what this token gave was revoked")
        users = {entry.node for entry in given}
        if grant.uses and peer not in users and len(users) >= grant.uses:
            raise NotAdmitted(Code.INVITATION_USED, "the token has been used up")
        return own[-1] if own else None

    def _issue(
        self,
        signer: _Signer,
        peer: NodeId,
        grant: Grant,
        name: str,
        now: float,
        renewed: Certificate | None = None,
        before: Entry | None = None,
    ) -> Credential:
        certificate = _certificate(signer.mesh, signer.mesh_name, peer, grant, now)
        if renewed is not None:
            certificate = replace(certificate, serial=renewed.serial, key=renewed.key)
        elif before is not None:
            certificate = replace(certificate, serial=bytes.fromhex(before.serial))
        credential = signer.sign(certificate)
        entry = _entry(certificate, name=name, unix_s=now)
        entry = msgspec.structs.replace(entry, renewal=renewed is not None)
        self._note(entry, grant.life_s)
        return credential

    def _note(self, entry: Entry, life_s: int) -> None:
        """Write it down where the ledger does not say as much already, give or take a moment."""
        known = [e for e in self._folder.ledger() if e.serial == entry.serial]
        if known:
            last, moment = known[-1], max(1, life_s // LEDGER_PARTS)
            same = (last.rights, last.domains) == (entry.rights, entry.domains)
            if same and last.not_after <= entry.not_after < last.not_after + moment:
                return
        if sum(e.at > entry.at - life_s for e in known) >= LEDGER_PARTS:
            why = "it was asked for with too many wishes lately; ask as the last time, or later"
            raise NotAdmitted(Code.BUSY, why)
        self._folder.record(entry)


def enrol(desk: AdmissionDesk, guest: Path, name: str) -> None:
    """Let in a node whose data folder is on this machine; as a token would, but for the network.

    Raises `OurFault`, and `NotAdmitted` where `desk` lets nobody in.
    """
    rights = (Act.SUBMIT, Act.SERVE, Act.COORDINATE, Act.WRITE)
    token = desk.invite(Grant(b"", rights, (ANY,), (ANY,)), time.time() + ENROL_S, ())
    request = JoinRequest(PROTOCOL_LOW, PROTOCOL_HIGH, from_text(token).biscuit, name)
    MeshFolder(guest).keep_member(desk.redeem(load_or_create(guest).node_id, request), ())


class _Signer:
    """Who signs here now: the mesh's key, or a member that may."""

    def __init__(
        self, own: Certificate, credential: Credential, key: SigningKey, board: NoticeBoard
    ) -> None:
        self.mesh = own.mesh
        self.mesh_name = own.mesh_name
        self.board = board
        self._own = own
        self._credential = credential
        self.key = key
        self.is_root = False

    @classmethod
    def of(cls, folder: MeshFolder, node: NodeKey, now: float) -> _Signer:
        """Raises `NotAdmitted` where this node cannot let anybody in."""
        member = folder.member()
        if member is None:
            raise NotAdmitted(Code.NOT_ADMITTING, "this node is in no private mesh")
        board = board_of(folder, member.certificate.mesh)
        root = folder.root()
        signer = cls(member.certificate, member.credential, root or SigningKey(node.secret), board)
        signer.is_root = root is not None
        if root is not None and root.public not in board.keys(now)[:1]:
            raise NotAdmitted(Code.NOT_ADMITTING, "the mesh has another key by now")
        may_sign = Act.ADMIT in signer._own.rights and signer._own.key == node.public
        if not signer.is_root and not may_sign:
            raise NotAdmitted(Code.NOT_ADMITTING, "this node lets nobody in")
        return signer

    def token_keys(self, now: float) -> tuple[bytes, ...]:
        """Keys whose tokens are taken here."""
        return (*self.board.keys(now)[:1], self.key.public)

    def sign(self, certificate: Certificate) -> Credential:
        """A credential. Raises `NotAdmitted` where it would give more than the signer has."""
        if self.is_root:
            if Act.ADMIT in certificate.rights and not certificate.key:
                certificate = replace(certificate, key=public_key(certificate.node))
            return Credential(self.key.sign(certificate), None, self.board.succession())
        self.check_fits(certificate.rights, certificate.domains, certificate.namespaces)
        end = min(certificate.not_after, self._own.not_after)
        signed = self.key.sign(replace(certificate, not_after=end))
        own_chain = self._credential.succession
        return Credential(signed, self._credential.certificate, own_chain)

    def check_fits(
        self, rights: Iterable[str], domains: Iterable[str], namespaces: Iterable[str]
    ) -> None:
        """Raise `NotAdmitted` where this is more than may be signed here."""
        own = self._own
        if not self.is_root and not (
            Act.ADMIT not in rights
            and within(rights, own.rights)
            and within(domains, own.domains)
            and within(namespaces, own.namespaces)
        ):
            raise NotAdmitted(Code.WIDENED, "that is more than the node that signs has itself")


def board_of(folder: MeshFolder, mesh: bytes) -> NoticeBoard:
    """The notices that are kept in a folder."""
    board = NoticeBoard(mesh, verify)
    for notice in folder.notices():
        try:
            board.add(notice)
        except NotAdmitted:
            continue  # a mesh that this node has left
    return board


def revoke(folder: MeshFolder, about: str, subject: str, unix_s: float) -> Signed:
    """Write a revocation for the node that runs on the folder to tell. Raises `OurFault`."""
    root, member = _root_and_member(folder)
    return _announce(folder, root, Notice(member.certificate.mesh, about, subject, int(unix_s)))


def rotate(folder: MeshFolder, unix_s: float, grace_s: float) -> SigningKey:
    """Hand over to a new mesh key; what the old one signed is good for `grace_s` more.

    Raises `OurFault` where this node does not have the mesh's key.
    """
    root, member = _root_and_member(folder)
    old = member.certificate
    following = SigningKey.generate()
    until = int(unix_s + grace_s)
    notice = Notice(old.mesh, "root", following.public.hex(), int(unix_s), until)
    signed = following.sign(replace(old, not_before=int(unix_s) - limits.CLOCK_SKEW_S))
    folder.keep_root(following, earlier=root)
    _announce(folder, root, notice)
    succession = board_of(folder, old.mesh).succession()
    folder.keep_member(Credential(signed, None, succession))
    return following


def _announce(folder: MeshFolder, root: SigningKey, notice: Notice) -> Signed:
    signed = root.sign(notice)
    try:
        board_of(folder, notice.mesh).add(signed)
    except NotAdmitted as refusal:
        raise OurFault(f"no member would take this notice: {refusal}") from refusal
    folder.keep_notice(signed)
    return signed


def _root_and_member(folder: MeshFolder) -> tuple[SigningKey, Member]:
    root, member = folder.root(), folder.member()
    if root is not None and member is not None:
        keys = board_of(folder, member.certificate.mesh).keys(0.0)
        if root.public != keys[0]:
            raise OurFault(f"the mesh has another key by now than {folder.path} holds")
    if root is None or member is None:
        raise OurFault(f"the mesh's key is not here ({folder.path}); run this where it is")
    return root, member


def _certificate(
    mesh: bytes, mesh_name: str, node: NodeId, grant: Grant, unix_s: float
) -> Certificate:
    return Certificate(
        mesh,
        mesh_name,
        new_serial(),
        node,
        int(unix_s) - limits.CLOCK_SKEW_S,
        int(unix_s) + grant.life_s,
        tuple(grant.rights),
        grant.domains,
        grant.namespaces,
        token=grant.token,
    )


def _entry(certificate: Certificate, *, name: str, unix_s: float) -> Entry:
    return Entry(
        serial=certificate.serial.hex(),
        node=certificate.node,
        name=name,
        token=certificate.token.hex(),
        at=int(unix_s),
        not_after=certificate.not_after,
        rights=certificate.rights,
        domains=certificate.domains,
    )
