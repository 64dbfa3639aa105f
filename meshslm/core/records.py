"""What members of a large mesh say of themselves and of each other, signed: pure values.

Rules:
- A statement is checked before anything is made of it, and handed on exactly as it came.
- A record is the newer by (boot, counter). Of two with the same, which only a member that lies can
  make, the greater signature wins: whoever has seen both holds the same.
- The same bytes are read and checked once, wherever they come from: they mean the same.
- Of what a member says that it hosts, only that counts which the certificate beside it covers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeVar

from meshslm import mesh_limits
from meshslm.core.certificates import NotAdmitted, served, stated
from meshslm.core.views import PeerView
from meshslm.core.ways import leads_somewhere
from meshslm.errors import PeerFault
from meshslm.ids import NodeId
from meshslm.wire.admission import SIGNED_PREFIX, Certificate, Signed
from meshslm.wire.codec import decode
from meshslm.wire.growth import Accusation, Record, Service
from meshslm.wire.messages import Capability, DomainCard, Specialist

VerifyNode = Callable[[NodeId, bytes, bytes], bool]
"""Whether a signature (third) over data (second) is by the key of a node (first). Never raises."""

COORDINATOR = "coordinator"
GENERATE = "generate"
LOW: Final = 2**32 - 1

_Told = TypeVar("_Told", Specialist, Service)


class Forged(PeerFault):
    """A statement is not by whom it says: whoever handed it on has not checked it, or made it."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A record, checked, with what follows from it alone."""

    record: Record
    signed: Signed
    mark: int
    """64 bits: the upper half is the member's, the lower that of this very record."""
    topics: tuple[str, ...]
    names: tuple[str, ...]
    source: str
    """The machine that it names first."""
    version: tuple[int, int, bytes]
    """What makes one record newer than another."""
    capability: Capability
    """What it says that its member can do."""
    view: PeerView
    """What may be seen of a member that nothing but this record tells of."""


@dataclass(frozen=True, slots=True)
class Charge:
    """An accusation, checked."""

    accusation: Accusation
    signed: Signed
    mark: int
    """32 bits."""


@lru_cache(maxsize=16_384)
def mark_of(node: NodeId) -> int:
    """The upper half of every mark of a member, in place."""
    return int.from_bytes(blake2b(node.encode(), digest_size=4).digest(), "big") << 32


def bucket_of(mark: int) -> int:
    """The part of the table where a member stands: any even share of them."""
    return (mark >> 32) % mesh_limits.BUCKETS


@lru_cache(maxsize=16_384)
def checked(signed: Signed, verify: VerifyNode) -> Fact | Charge:
    """The statement, if its author has signed it. Raises `Forged`."""
    try:
        statement = decode(signed.payload)
    except PeerFault as fault:
        raise Forged(f"a statement cannot be read: {fault}") from None
    if isinstance(statement, Record):
        author = statement.node
    elif isinstance(statement, Accusation):
        author = statement.by
    else:
        raise Forged(f"{type(statement).__name__} is no statement of a member")
    if not verify(author, SIGNED_PREFIX + signed.payload, signed.signature):
        raise Forged(f"{type(statement).__name__} of {author}: it has not signed this")
    low = int.from_bytes(blake2b(signed.signature, digest_size=4).digest(), "big")
    if isinstance(statement, Accusation):
        # Of both: the same for all whom one accuses would leave no trace in a sum over them.
        both = f"{author}{statement.node}".encode()
        low = int.from_bytes(blake2b(both, digest_size=4).digest(), "big")
        return Charge(statement, signed, low)
    statement = _covered(statement)
    return Fact(
        statement,
        signed,
        mark_of(author) | low,
        topics_of(statement.services),
        names_of(statement.services),
        source_of(statement.addresses[0]) if statement.addresses else "",
        (statement.boot, statement.counter, signed.signature),
        capability_of(statement),
        _view_of(statement),
    )


def _covered(record: Record) -> Record:
    """The record, with those services alone that the certificate in it covers, if it shows one.

    Whether that certificate holds is asked when the record is heard: it depends on the time.
    """
    if record.credential is None or not record.services:
        return record
    try:
        certificate = stated(record.credential.certificate, Certificate)
    except NotAdmitted:
        return replace(record, services=())
    parts = [served(certificate, specialist) for specialist in specialists_of(record.services)]
    return replace(record, services=services_of(tuple(p for p in parts if p is not None)))


def _view_of(record: Record) -> PeerView:
    addresses, said = addresses_of(record), capability_of(record)
    return PeerView(
        record.node,
        record.name,
        "alive",
        "",
        addresses[0] if addresses else "",
        None,
        None,
        said.specialists,
        said.hardware,
        (),
        addresses,
    )


def source_of(address: str) -> str:
    """The machine in a multiaddress; of IPv6 the network of 64 bits, which one owner has whole."""
    parts = address.split("/", 3)
    if len(parts) < 3:
        return address
    if parts[1] != "ip6":
        return f"/{parts[1]}/{parts[2]}"
    groups = parts[2].split("::")[0].split(":")
    return "/ip6/" + ":".join(groups[:4])


def topics_of(services: tuple[Service, ...]) -> tuple[str, ...]:
    """Under what coordinators list who hosts these: domains, and whatever else one may ask for."""
    topics: dict[str, None] = {}
    for service in services:
        topics.update(dict.fromkeys(service.domains))
        if not service.domains:
            topics[f"model:{service.model}"] = None
        topics.update({f"operation:{o}": None for o in service.operations if o != GENERATE})
    return tuple(topics)


def names_of(services: tuple[Service, ...]) -> tuple[str, ...]:
    """Profiles and models by which these can be asked for."""
    return tuple(dict.fromkeys(n for s in services for n in (s.profile, s.model)))


def addresses_of(record: Record) -> tuple[str, ...]:
    """Multiaddresses at which the member listens, as far as they can be dialled."""
    return tuple(f"{a}/p2p/{record.node}" for a in record.addresses if leads_somewhere(a))


def services_of(specialists: tuple[Specialist, ...]) -> tuple[Service, ...]:
    """The outline of specialists, as many as a record has room for."""
    return tuple(
        _turned(s, Service, tuple(card.domain for card in s.domains))
        for s in specialists[: mesh_limits.SERVICES]
    )


@lru_cache(maxsize=4_096)
def specialists_of(services: tuple[Service, ...]) -> tuple[Specialist, ...]:
    """Specialists whose domains have names alone."""
    return tuple(_turned(s, Specialist, tuple(map(DomainCard, s.domains))) for s in services)


def _turned(told: Specialist | Service, into: type[_Told], domains: tuple[Any, ...]) -> _Told:
    """The same of the other kind, which has domains of its own; nothing else differs."""
    return into(
        told.profile,
        told.model,
        told.digest,
        told.quantisation,
        told.context,
        told.slots,
        domains,
        told.price,
        told.batch_invariant,
        told.operations,
        told.adapters,
        private=told.private,
    )


def outlined(specialists: tuple[Specialist, ...]) -> tuple[Specialist, ...]:
    """What a record says of specialists."""
    return specialists_of(services_of(specialists))


def capability_of(record: Record) -> Capability:
    """What a record says that its member can do."""
    return Capability(
        record.boot, record.counter, specialists_of(record.services), roles=record.roles
    )
