"""What makes a mesh private, on the wire: certificates, notices, tokens and the asking for them.

A statement (`Certificate`, `Notice`) is signed as the bytes of its message behind `SIGNED_PREFIX`,
and travels as these bytes with their signature, so that nobody has to encode it again to check it.

Rules:
- The same as for every other message: numbered fields, each with a bound.
- Times are seconds since 1970 in UTC: the only points in time that travel, because a certificate
  has to outlive every boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits
from meshslm.ids import NodeId
from meshslm.wire.schema import Tag

SIGNED_PREFIX = b"meshslm statement 1\0"
"""Before the bytes that are signed, so that no signature of another protocol can stand for one."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SERIAL_BYTES = 16
SECONDS = 2**53

_Name = limits.NAME_BYTES


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement and the signature over it."""

    payload: Annotated[bytes, Tag(1, most=limits.STATEMENT_BYTES)]
    signature: Annotated[bytes, Tag(2, most=SIGNATURE_BYTES)]


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate, and that of whoever signed it where that was not the mesh's own key."""

    certificate: Annotated[Signed, Tag(1)]
    issuer: Annotated[Signed | None, Tag(2)] = None
    succession: Annotated[tuple[Signed, ...], Tag(3, items=limits.SUCCESSIONS)] = ()
    """Notices by which the mesh's first key handed over to the next, and so on to the present one;
    without them a node that was away while that happened could not read the certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Who belongs to a mesh, until when, and what it may do. Only ever inside a `Signed`."""

    KIND: ClassVar[int] = 48
    mesh: Annotated[bytes, Tag(1, most=KEY_BYTES)]
    """The mesh's first public key, Ed25519: its identity for ever."""
    mesh_name: Annotated[str, Tag(2, most=_Name)]
    serial: Annotated[bytes, Tag(3, most=SERIAL_BYTES)]
    node: Annotated[NodeId, Tag(4, most=_Name)]
    not_before: Annotated[int, Tag(5, most=SECONDS)]
    not_after: Annotated[int, Tag(6, most=SECONDS)]
    rights: Annotated[tuple[str, ...], Tag(7, most=32, items=16)] = ()
    """Of `submit`, `serve`, `coordinate`, `write`, `rollout` and `admit`."""
    domains: Annotated[tuple[str, ...], Tag(8, most=_Name, items=limits.CERTIFIED_NAMES)] = ()
    """Domains that it may serve; `*`: any."""
    namespaces: Annotated[tuple[str, ...], Tag(9, most=_Name, items=limits.CERTIFIED_NAMES)] = ()
    """Namespaces that it may write to; `*`: any."""
    key: Annotated[bytes, Tag(10, most=KEY_BYTES)] = b""
    """Of a member with `admit`: the public key with which it signs certificates."""
    token: Annotated[bytes, Tag(11, most=SERIAL_BYTES)] = b""
    """Serial of the token that it was given for."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the mesh's key tells every member. Only ever inside a `Signed`."""

    KIND: ClassVar[int] = 49
    mesh: Annotated[bytes, Tag(1, most=KEY_BYTES)]
    about: Annotated[str, Tag(2, most=16)]
    """`certificate`, `node` or `token`: what is revoked; `root`: the next key of the mesh."""
    subject: Annotated[str, Tag(3, most=_Name)]
    """A serial in hex, a peer id, or a public key in hex."""
    at: Annotated[int, Tag(4, most=SECONDS)]
    until: Annotated[int, Tag(5, most=SECONDS)] = 0
    """Of a `root`: when what the earlier key has signed is no longer good."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """An invitation, as its text holds it. It never travels by itself."""

    KIND: ClassVar[int] = 50
    mesh: Annotated[bytes, Tag(1, most=KEY_BYTES)]
    signer: Annotated[bytes, Tag(2, most=KEY_BYTES)]
    """Public key that signed the Biscuit."""
    biscuit: Annotated[bytes, Tag(3, most=limits.TOKEN_BYTES)]
    addresses: Annotated[tuple[str, ...], Tag(4, most=256, items=limits.ADDRESSES_PER_PEER)] = ()
    """Where it is redeemed, each ending in /p2p/ID."""
    rights: Annotated[tuple[str, ...], Tag(5, most=32, items=16)] = ()
    """What is left of it after narrowing; empty: all. Only a wish: the Biscuit decides."""
    domains: Annotated[tuple[str, ...], Tag(6, most=_Name, items=limits.CERTIFIED_NAMES)] = ()
    namespaces: Annotated[tuple[str, ...], Tag(7, most=_Name, items=limits.CERTIFIED_NAMES)] = ()


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """First message of a node that has a token and no certificate yet, instead of a `Hello`."""

    KIND: ClassVar[int] = 51
    version_low: Annotated[int, Tag(1, most=255)]
    version_high: Annotated[int, Tag(2, most=255)]
    token: Annotated[bytes, Tag(3, most=limits.TOKEN_BYTES)]
    name: Annotated[str, Tag(4, most=_Name)] = ""
    rights: Annotated[tuple[str, ...], Tag(5, most=32, items=16)] = ()
    """What it wishes for; empty: all that the token gives."""
    domains: Annotated[tuple[str, ...], Tag(6, most=_Name, items=limits.CERTIFIED_NAMES)] = ()
    namespaces: Annotated[tuple[str, ...], Tag(7, most=_Name, items=limits.CERTIFIED_NAMES)] = ()


@dataclass(frozen=True, slots=True)
class Admittance:
    """Answers `JoinRequest` and `Renewal`: a certificate, or why there is none."""

    KIND: ClassVar[int] = 52
    credential: Annotated[Credential | None, Tag(1)] = None
    code: Annotated[str, Tag(2, most=32)] = ""
    detail: Annotated[str, Tag(3, most=1024)] = ""
    addresses: Annotated[tuple[str, ...], Tag(4, most=256, items=limits.ADDRESSES_PER_PEER)] = ()
    """Where the new member finds the one that let it in."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """A member asks for its certificate again, before that runs out."""

    KIND: ClassVar[int] = 53


@dataclass(frozen=True, slots=True)
class Notices:
    """Notices that the receiver may lack."""

    KIND: ClassVar[int] = 54
    digest: Annotated[bytes, Tag(1, most=limits.NOTICES_DIGEST_BYTES)]
    """Of all that the sender knows; whoever has another digest sends what it has."""
    notices: Annotated[tuple[Signed, ...], Tag(2, items=limits.NOTICES_PER_MESSAGE)] = ()


AdmissionMessage = Certificate | Notice | JoinToken | JoinRequest | Admittance | Renewal | Notices
