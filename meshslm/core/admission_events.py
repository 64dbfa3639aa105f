"""Events and effects of admission; `events` has them in its unions."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.ids import NodeId
from meshslm.wire.admission import Credential, JoinRequest, Signed


# --- events -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ClockRead:
    """What the wall clock says: certificates run out by it, and nothing else asks for it."""

    unix_s: float


@dataclass(frozen=True, slots=True)
class CredentialIssued:
    """What came of `IssueCredential`: a credential, or why there is none."""

    peer: NodeId
    credential: Credential | None
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CredentialReplaced:
    """This node's own certificate was changed from outside: its operator signed a new one."""

    credential: Credential


@dataclass(frozen=True, slots=True)
class NoticeFound:
    """A notice of the mesh's key: kept from an earlier life, or written by the operator now."""

    notice: Signed
    kept: bool = True
    """False: it was told by coordinators, and is to be kept where it holds."""


AdmissionEvent = ClockRead | CredentialIssued | CredentialReplaced | NoticeFound


# --- effects ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class IssueCredential:
    """Check a token, or a certificate that is to be renewed, and sign; ends in `CredentialIssued`.

    Exactly one of `request` and `renewing` is given.
    """

    peer: NodeId
    request: JoinRequest | None
    renewing: Credential | None


@dataclass(frozen=True, slots=True)
class KeepCredential:
    """Write this node's new certificate down, durably."""

    credential: Credential


@dataclass(frozen=True, slots=True)
class KeepNotice:
    """Write a notice down, durably."""

    notice: Signed


AdmissionEffect = IssueCredential | KeepCredential | KeepNotice
