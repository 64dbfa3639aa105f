"""What a certificate says, whether it holds, and what its holder may do.

A certificate is signed by the mesh's own key, or by a member whose certificate, signed by that
key, has the right `admit`: a chain of two at most, so that checking costs two signatures and
nobody can hand on the right to let others in.

Rules:
- Pure: the check of a signature is handed in, and so is the time.
- Whoever signs in the mesh's name can give no more than it has itself.
- A credential that does not hold raises `NotAdmitted`, with a code that may be told to a stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from meshslm.errors import PeerFault
from meshslm.ids import NodeId
from meshslm.wire.admission import (
    SIGNED_PREFIX,
    Certificate,
    Credential,
    Notice,
    Signed,
)
from meshslm.wire.codec import decode
from meshslm.wire.messages import Specialist

ANY = "*"
"""Every domain, or every namespace."""

ROOT = "root"
"""What a notice is about by which the mesh's key hands over to the next."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""Whether a signature (third) over data (second) is by a public key (first). Never raises."""

S = TypeVar("S", Certificate, Notice)


class Act(StrEnum):
    """What a member may be allowed to do."""

    SUBMIT = "submit"
    """Have tasks answered by other members."""
    SERVE = "serve"
    """Answer others' tasks, in the domains it is certified for."""
    COORDINATE = "coordinate"
    """Keep the registry for others."""
    WRITE = "write"
    """Change shared documents, in the namespaces it is certified for."""
    ROLLOUT = "rollout"
    """Begin, steer and undo rollouts."""
    ADMIT = "admit"
    """Let others in, with no more than it has itself."""


class Code(StrEnum):
    """Why somebody is not let in. Travels on the wire as text."""

    NO_CERTIFICATE = "no_certificate"
    OTHER_MESH = "other_mesh"
    FORGED = "forged"
    NOT_YOURS = "not_yours"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WIDENED = "widened"
    REVOKED = "revoked"
    INVITATION_INVALID = "invitation_invalid"
    INVITATION_EXPIRED = "invitation_expired"
    INVITATION_USED = "invitation_used"
    NOT_ADMITTING = "not_admitting"
    BUSY = "busy"


class NotAdmitted(PeerFault):
    """Somebody is no member, or no longer."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Credentials:
    """What makes this node a member of a private mesh."""

    mesh: bytes
    """The mesh's first public key."""
    credential: Credential
    verify: Verify
    admits: bool = False
    """It can check tokens and sign: `IssueCredential` will be answered."""


def may(certificate: Certificate, act: Act, subject: str = "") -> bool:
    """Whether the holder may do it; `subject` is a domain to serve or a namespace to write to."""
    if act not in certificate.rights:
        return False
    match act:
        case Act.SERVE:
            return covers(certificate.domains, subject)
        case Act.WRITE:
            return covers(certificate.namespaces, subject)
        case _:
            return True


def covers(names: Iterable[str], name: str) -> bool:
    """Whether `names` has `name`, or any name."""
    return any(known in (ANY, name) for known in names)


def served(certificate: Certificate, specialist: Specialist) -> Specialist | None:
    """What of a specialist the certificate covers; None: nothing."""
    if Act.SERVE not in certificate.rights:
        return None
    if covers(certificate.domains, ANY):
        return specialist
    cards = tuple(card for card in specialist.domains if covers(certificate.domains, card.domain))
    return replace(specialist, domains=cards) if cards else None


def within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Whether everything that `inner` names is in `outer`."""
    given = tuple(outer)
    return ANY in given or all(name in given for name in inner)


def opened(signed: Signed, kind: type[S], keys: Iterable[bytes], verify: Verify) -> S:
    """The statement in `signed`, which one of `keys` has signed. Raises `NotAdmitted`."""
    data = SIGNED_PREFIX + signed.payload
    if not any(verify(key, data, signed.signature) for key in keys):
        raise NotAdmitted(Code.FORGED, f"the {kind.__name__.lower()} is not signed by this mesh")
    return stated(signed, kind)


def stated(signed: Signed, kind: type[S]) -> S:
    """The statement in `signed`, whoever has signed it. Raises `NotAdmitted`."""
    try:
        statement = decode(signed.payload)
    except PeerFault as fault:
        raise NotAdmitted(Code.FORGED, f"a statement cannot be read: {fault}") from None
    if not isinstance(statement, kind):
        raise NotAdmitted(Code.FORGED, f"not a {kind.__name__.lower()}")
    return statement


def certified(
    credential: Credential | None,
    node: NodeId,
    mesh: bytes,
    keys: tuple[bytes, ...],
    verify: Verify,
    unix_s: float,
) -> Certificate:
    """The certificate in `credential`, if it is `node`'s, of this mesh, genuine and valid now.

    `keys` are the mesh's own keys. Raises `NotAdmitted`.
    """
    if credential is None:
        raise NotAdmitted(Code.NO_CERTIFICATE, "this mesh is private; ask its operator for a token")
    claimed = stated(credential.certificate, Certificate)
    if claimed.mesh != mesh:
        raise NotAdmitted(Code.OTHER_MESH, "the certificate is of another mesh")
    keys = _succeeded(keys, credential.succession, mesh, verify)
    if credential.issuer is None:
        certificate = opened(credential.certificate, Certificate, keys, verify)
    else:
        issuer = opened(credential.issuer, Certificate, keys, verify)
        certificate = opened(credential.certificate, Certificate, (issuer.key,), verify)
        _check_issuer(issuer, certificate, mesh, unix_s)
    if certificate.node != node:
        raise NotAdmitted(Code.NOT_YOURS, "the certificate is another node's")
    _check_time(certificate, unix_s)
    return certificate


def _succeeded(
    keys: tuple[bytes, ...], succession: tuple[Signed, ...], mesh: bytes, verify: Verify
) -> tuple[bytes, ...]:
    """`keys`, the newest first, and those to which the newest has handed over."""
    for signed in succession:
        if not verify(keys[0], SIGNED_PREFIX + signed.payload, signed.signature):
            continue  # of a key before: known, or not of this mesh
        notice = stated(signed, Notice)
        if notice.about == ROOT and notice.mesh == mesh:
            keys = (key_in(notice), *keys)
    return keys


def key_in(notice: Notice) -> bytes:
    """The next key of the mesh. Raises `NotAdmitted` where it is none."""
    try:
        return bytes.fromhex(notice.subject)
    except ValueError:
        raise NotAdmitted(Code.FORGED, "the next key is not a key") from None


def _check_issuer(
    issuer: Certificate, certificate: Certificate, mesh: bytes, unix_s: float
) -> None:
    if issuer.mesh != mesh:
        raise NotAdmitted(Code.OTHER_MESH, "who signed the certificate is of another mesh")
    _check_time(issuer, unix_s)
    if not (
        may(issuer, Act.ADMIT)
        and Act.ADMIT not in certificate.rights
        and within(certificate.rights, issuer.rights)
        and within(certificate.domains, issuer.domains)
        and within(certificate.namespaces, issuer.namespaces)
    ):
        raise NotAdmitted(Code.WIDENED, "the certificate gives more than its signer has")


def _check_time(certificate: Certificate, unix_s: float) -> None:
    if unix_s < certificate.not_before:
        raise NotAdmitted(Code.NOT_YET_VALID, "the certificate begins later: is a clock wrong?")
    if unix_s >= certificate.not_after:
        raise NotAdmitted(Code.EXPIRED, "the certificate has run out")
