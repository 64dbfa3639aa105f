"""The registry: what members are and have, as far as it changes rarely, also of those away. Pure.

Each node has one entry in the document `registry`, under its own id: JSON of `Facts`. It is
written when it has changed, and every six hours, so that others can see when a member that is
away was there last.

Rules:
- An entry under a node's id counts only where that node itself has written it.
- Two entries of a node are `REGISTRY_MS` apart; one has at most `REGISTRY_BYTES`.
- Entries older than `REGISTRY_MEMBER_MS` are not shown, nor what does not read as one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from meshslm import mesh_limits, state_limits
from meshslm.core.state_events import Change
from meshslm.core.views import PeerView
from meshslm.errors import UNREADABLE
from meshslm.ids import NodeId
from meshslm.state.entry import Entry
from meshslm.state.names import DocumentClass
from meshslm.wire.messages import Specialist

REGISTRY = str(DocumentClass.REGISTRY)
_ADDRESSES = 16


class Hosted(msgspec.Struct, omit_defaults=True, frozen=True):
    """A profile that a member has."""

    profile: str
    model: str
    quantisation: str = ""
    context: int = 0
    domains: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


class Facts(msgspec.Struct, omit_defaults=True, frozen=True):
    """What is said of one member, by itself."""

    name: str
    version: str = ""
    addresses: tuple[str, ...] = ()
    cores: int = 0
    memory_mib: int = 0
    accelerator: str = ""
    hosts: tuple[Hosted, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A member as the registry knows it."""

    node: NodeId
    facts: Facts
    written_ms: int
    """Milliseconds since 1970: it was there then."""


class Readable(Protocol):
    """What is read here of `core.documents`."""

    def themselves(self, document: str) -> Iterator[tuple[NodeId, Entry]]:
        """Every author's own newest entry under its own id."""
        ...


_facts = msgspec.json.Decoder(Facts)
_encode = msgspec.json.Encoder().encode


# --- writing ------------------------------------------------------------------------------------
def facts_of(own: PeerView) -> Facts:
    """What a node says of itself: nothing that changes with its load."""
    hardware = own.hardware
    facts = Facts(
        own.name,
        own.agent,
        own.addresses[:_ADDRESSES],
        hardware.cores,
        hardware.memory_mib,
        hardware.accelerator,
        tuple(map(_hosted, own.specialists[: mesh_limits.SERVICES])),
    )
    while len(_encode(facts)) > state_limits.REGISTRY_BYTES and facts.hosts:
        facts = msgspec.structs.replace(facts, hosts=facts.hosts[: len(facts.hosts) // 2])
    return facts


def _hosted(specialist: Specialist) -> Hosted:
    return Hosted(
        specialist.profile,
        specialist.model,
        specialist.quantisation,
        specialist.context,
        tuple(card.domain for card in specialist.domains),
        specialist.operations,
    )


def due(documents: Readable, node: NodeId, facts: Facts, now_ms: int) -> Change | None:
    """The change by which a node says what it is; None where nothing is to be said now."""
    value = _encode(facts)
    written = dict(documents.themselves(REGISTRY)).get(node)
    if written is not None:
        age = now_ms - written.written_ms
        if 0 <= age < state_limits.REGISTRY_MS:
            return None
        fresh = 0 <= age < state_limits.REGISTRY_RENEW_MS
        if fresh and not written.deleted and written.value == value:
            return None
    return Change(node, value)


# --- reading ------------------------------------------------------------------------------------
def members(documents: Readable, now_ms: int) -> Iterator[Known]:
    """Members that were there of late, in the order of their ids."""
    for node, entry in documents.themselves(REGISTRY):
        facts = _read(entry)
        if facts is not None and now_ms - entry.written_ms < state_limits.REGISTRY_MEMBER_MS:
            yield Known(node, facts, min(entry.written_ms, now_ms))


def _read(entry: Entry) -> Facts | None:
    if entry.deleted or len(entry.value) > state_limits.REGISTRY_BYTES:
        return None
    try:
        return _facts.decode(entry.value)
    except UNREADABLE:
        return None
