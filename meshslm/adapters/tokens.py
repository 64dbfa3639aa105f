"""Join tokens: Biscuits that say what a new member gets, and their text.

The authority block holds facts: `mesh`, `token` (its serial), `issuer`, `uses`, `life_s`, and one
`right`, `domain` or `namespace` each, with a check on the time. Narrowing adds blocks that only
hold checks, which needs no key: `time`, `peer`, `right_wanted`, `domain_wanted` and
`namespace_wanted` are what checks may ask for. So whether a token gives something is asked once for
each right, domain and namespace.

Rules:
- Facts count from the authority block alone: a block that adds a `right` adds nothing.
- Whoever wrote the token may be a stranger: its size, facts and time are bounded.
- A token that does not hold raises `NotAdmitted`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from biscuit_auth import (
    Algorithm,
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBlockError,
    BiscuitBuilder,
    BiscuitSerializationError,
    BiscuitValidationError,
    BlockBuilder,
    DataLogError,
    Fact,
    PrivateKey,
    PublicKey,
    Rule,
    UnverifiedBiscuit,
)

from meshslm import limits
from meshslm.adapters.signing import SigningKey
from meshslm.core.certificates import ANY, Code, NotAdmitted
from meshslm.errors import OurFault, PeerFault
from meshslm.ids import NodeId
from meshslm.wire.admission import JoinToken
from meshslm.wire.codec import decode, encode

PREFIX: Final = "meshslm-token-1."
"""So that people, and programs that look for leaked secrets, know one when they see it."""

TEXT_BYTES: Final = 2 * limits.TOKEN_BYTES + 8 * limits.KIB
"""Longest text of a token, with its addresses."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token gives."""

    token: bytes
    """Its serial."""
    rights: tuple[str, ...]
    domains: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    uses: int = 1
    """How many nodes may join with it; 0: any number."""
    life_s: int = limits.CERTIFICATE_S
    """Life of the certificates that come of it."""
    issuer: NodeId | None = None
    """Who redeems it where uses are counted: only one ledger can count."""


def make_token(
    grant: Grant, mesh: bytes, key: SigningKey, expires_unix_s: float, addresses: tuple[str, ...]
) -> str:
    """The text of a new token, signed by `key`."""
    builder = BiscuitBuilder(
        "mesh({mesh}); token({token}); issuer({issuer}); uses({uses}); life_s({life_s});"
        "check if time($now), $now < {expires};",
        {
            "mesh": mesh.hex(),
            "token": grant.token.hex(),
            "issuer": grant.issuer or "",
            "uses": grant.uses,
            "life_s": grant.life_s,
            "expires": _moment(expires_unix_s),
        },
    )
    for name, values in (
        ("right", grant.rights),
        ("domain", grant.domains),
        ("namespace", grant.namespaces),
    ):
        for value in values:
            builder.add_fact(Fact(f"{name}({{value}})", {"value": value}))
    biscuit = builder.build(PrivateKey.from_bytes(key.secret, Algorithm.Ed25519))
    return to_text(JoinToken(mesh, key.public, bytes(biscuit.to_bytes()), addresses))


def narrowed(
    token: JoinToken,
    *,
    expires_unix_s: float | None = None,
    peer: NodeId | None = None,
    rights: tuple[str, ...] = (),
    domains: tuple[str, ...] = (),
    namespaces: tuple[str, ...] = (),
) -> JoinToken:
    """A token that gives less, made without any key. Raises `OurFault` where it is damaged."""
    checks: list[str] = []
    values: dict[str, Any] = {}
    if expires_unix_s is not None:
        checks.append("check if time($now), $now < {expires}")
        values["expires"] = _moment(expires_unix_s)
    if peer is not None:
        checks.append("check if peer({peer})")
        values["peer"] = peer
    for kind, left in (("right", rights), ("domain", domains), ("namespace", namespaces)):
        if left:
            checks.append(f"reject if {kind}_wanted($name), !{{{kind}s}}.contains($name)")
            values[f"{kind}s"] = set(left)
    if not checks:
        return token
    try:
        biscuit = UnverifiedBiscuit.from_base64(base64.urlsafe_b64encode(token.biscuit).decode())
        block = BlockBuilder(";".join(checks) + ";", values)
        text = biscuit.append(block).verify(_public(token.signer)).to_bytes()
    except (BiscuitValidationError, BiscuitBlockError, BiscuitSerializationError) as error:
        raise OurFault(f"the token is damaged: {error}") from error
    return replace(
        token,
        biscuit=bytes(text),
        rights=_left(token.rights, rights),
        domains=_left(token.domains, domains),
        namespaces=_left(token.namespaces, namespaces),
    )


def opened(
    biscuit: bytes,
    keys: tuple[bytes, ...],
    *,
    mesh: bytes,
    peer: NodeId,
    unix_s: float,
    rights: tuple[str, ...] = (),
    domains: tuple[str, ...] = (),
    namespaces: tuple[str, ...] = (),
) -> Grant:
    """What a token that one of `keys` has signed gives to `peer` now.

    `rights`, `domains` and `namespaces` are what the peer wishes for; empty: all there are. Raises
    `NotAdmitted`.
    """
    if len(biscuit) > limits.TOKEN_BYTES:
        raise NotAdmitted(Code.INVITATION_INVALID, "the token is too long")
    token = _verified(biscuit, keys)
    held = _Held(token, peer, unix_s)
    held.check()
    if held.one("mesh", str) != mesh.hex():
        raise NotAdmitted(Code.OTHER_MESH, "the token is of another mesh")
    whole = Grant(
        bytes.fromhex(held.one("token", str)),
        held.strings("right"),
        held.strings("domain"),
        held.strings("namespace"),
        held.one("uses", int),
        held.one("life_s", int),
        NodeId(held.one("issuer", str)),
    )
    wanted = rights or whole.rights
    fields = domains or whole.domains
    spaces = namespaces or whole.namespaces
    if not set(wanted) <= set(whole.rights):
        raise NotAdmitted(Code.WIDENED, "the token does not give these rights")
    if ANY not in whole.domains and not set(fields) <= set(whole.domains):
        raise NotAdmitted(Code.WIDENED, "the token does not give these domains")
    if ANY not in whole.namespaces and not set(spaces) <= set(whole.namespaces):
        raise NotAdmitted(Code.WIDENED, "the token does not give these namespaces")
    return replace(
        whole,
        rights=tuple(right for right in wanted if held.gives("right_wanted", right)),
        domains=tuple(domain for domain in fields if held.gives("domain_wanted", domain)),
        namespaces=tuple(space for space in spaces if held.gives("namespace_wanted", space)),
    )


def to_text(token: JoinToken) -> str:
    """One line of printable characters."""
    return PREFIX + base64.urlsafe_b64encode(encode(token)).decode().rstrip("=")


def from_text(text: str) -> JoinToken:
    """The token in `text`. Raises `OurFault`; the text itself is in no message, being a secret."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise OurFault(f"that is not a join token: it does not begin with {PREFIX!r}")
    if len(text) > TEXT_BYTES:
        raise OurFault("that is not a join token: it is too long")
    body = text.removeprefix(PREFIX)
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = decode(data)
    except (binascii.Error, ValueError, PeerFault) as error:
        raise OurFault("the join token is damaged: was it copied whole?") from error
    if not isinstance(token, JoinToken):
        raise OurFault("that is not a join token")
    return token


class _Held:
    """A verified token and what its checks may ask for."""

    def __init__(self, token: Biscuit, peer: NodeId, unix_s: float) -> None:
        self._token = token
        self._peer = peer
        self._now = unix_s
        self._facts = self._authorizer({})

    def check(self) -> None:
        """Raise `NotAdmitted` where one of the token's checks fails."""
        try:
            self._facts.authorize()
        except AuthorizationError as error:
            code = (
                Code.INVITATION_EXPIRED if "time($now)" in str(error) else Code.INVITATION_INVALID
            )
            says = "has run out" if code is Code.INVITATION_EXPIRED else "does not hold here"
            raise NotAdmitted(code, f"the token {says}") from None

    def gives(self, question: str, value: str) -> bool:
        """Whether the token's checks let `value` through."""
        try:
            self._authorizer({question: value}).authorize()
        except AuthorizationError:
            return False
        return True

    def strings(self, name: str) -> tuple[str, ...]:
        """Values of the authority block's facts of one name, in order."""
        try:
            facts = self._facts.query(Rule(f"value($value) <- {name}($value)"))
        except (AuthorizationError, DataLogError):
            raise NotAdmitted(Code.INVITATION_INVALID, "the token cannot be read") from None
        return tuple(sorted(str(fact.terms[0]) for fact in facts))

    def one(self, name: str, kind: type[Any]) -> Any:
        """The value of a fact that must be there once."""
        values = self.strings(name)
        try:
            (value,) = values
            return kind(value)
        except ValueError:
            raise NotAdmitted(Code.INVITATION_INVALID, f"the token has no sound {name!r}") from None

    def _authorizer(self, facts: dict[str, str]) -> Any:
        builder = AuthorizerBuilder(
            "time({now}); peer({peer}); allow if true;",
            {"now": _moment(self._now), "peer": self._peer},
        )
        for name, value in facts.items():
            builder.add_fact(Fact(f"{name}({{value}})", {"value": value}))
        bounds = builder.limits()
        bounds.max_facts = limits.TOKEN_FACTS
        bounds.max_time = timedelta(milliseconds=limits.TOKEN_CHECK_MS)
        builder.set_limits(bounds)
        try:
            return builder.build(self._token)
        except (AuthorizationError, BiscuitValidationError, DataLogError):
            raise NotAdmitted(Code.INVITATION_INVALID, "the token cannot be read") from None


def _verified(biscuit: bytes, keys: tuple[bytes, ...]) -> Biscuit:
    for key in keys:
        try:
            return Biscuit.from_bytes(biscuit, _public(key))
        except (BiscuitValidationError, BiscuitSerializationError):
            continue
    raise NotAdmitted(Code.INVITATION_INVALID, "the token is damaged, or this mesh did not sign it")


def _public(key: bytes) -> PublicKey:
    return PublicKey.from_bytes(key, Algorithm.Ed25519)


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(int(unix_s), tz=UTC)


def _left(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, ...]:
    if not before or not now:
        return before or now
    return tuple(name for name in before if name in now)


def serial_of(token: JoinToken) -> str:
    """The serial of a token, by which it can be revoked; `OurFault` where it is damaged."""
    try:
        biscuit = Biscuit.from_bytes(token.biscuit, _public(token.signer))
        held = _Held(biscuit, NodeId(""), 0.0)
        return str(held.one("token", str))
    except (BiscuitValidationError, NotAdmitted) as error:
        raise OurFault(f"the token is damaged: {error}") from error
