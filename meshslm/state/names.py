"""Names of shared documents, and what the class of a document means.

A name is a class, or a class and a subject: `registry`, `rollout`, `memory/project-x`,
`ledger/2026-11-22`, `journal/17`. Every document consists of parts, one for each author, which
nobody else can change; so a ledger of a peer and a day is that peer's part of that day's ledger.

Rules:
- Whoever may write to a document writes to its own part; who may is a matter of its class.
- A name is plain: lower-case class, printable subject without blanks at its ends, bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from meshslm import state_limits
from meshslm.errors import FaultCode, PeerFault, RequestFault

EVERYTHING = "*"


class DocumentClass(StrEnum):
    """What a document is for."""

    REGISTRY = "registry"
    """What members are and have, as far as it changes rarely. No subject."""
    MEMORY = "memory"
    """A namespace that programs read and write; its subject is the namespace's name."""
    ROLLOUT = "rollout"
    """Plans of rollouts. No subject."""
    LEDGER = "ledger"
    """What was used, by day; its subject is the day, in UTC."""
    JOURNAL = "journal"
    """What happened to tasks; its subject is a segment."""


_ALONE = frozenset((DocumentClass.REGISTRY, DocumentClass.ROLLOUT))
"""Classes of one document each."""


def named(cls: DocumentClass, subject: str = "") -> str:
    """The name of a document. `RequestFault` where the subject cannot be part of one."""
    name = f"{cls}/{subject}" if subject or cls not in _ALONE else str(cls)
    why = complaint(name)
    if why:
        raise RequestFault(FaultCode.BAD_REQUEST, why, param="namespace")
    return name


def class_of(name: str) -> DocumentClass:
    """The class of a sound name."""
    return DocumentClass(name.partition("/")[0])


def subject_of(name: str) -> str:
    """The namespace, day or segment in a name; empty where its class has but one document."""
    return name.partition("/")[2]


def complaint(name: str) -> str:
    """Why `name` is no name of a document; empty where it is one."""
    if len(name.encode(errors="replace")) > state_limits.DOCUMENT_NAME_BYTES:
        return f"a document's name has more than {state_limits.DOCUMENT_NAME_BYTES} bytes"
    head, slash, subject = name.partition("/")
    if head not in DocumentClass.__members__.values():
        return f"documents have the classes {', '.join(DocumentClass)}, not {head[:32]!r}"
    if (head in _ALONE) == bool(slash):
        return f"a {head} document has {'no' if slash else 'a'} subject behind a slash"
    if slash and (not subject or subject != subject.strip() or not subject.isprintable()):
        return "the subject of a document's name must be printable, without blanks at its ends"
    if EVERYTHING in subject:
        return f"a document's name has no {EVERYTHING!r}"
    return ""


def check_name(name: str) -> None:
    """Raise `PeerFault` where a peer's name is none."""
    why = complaint(name)
    if why:
        raise PeerFault(why)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern, a name or a beginning that ends in `*`, covers a name."""
    if pattern.endswith(EVERYTHING):
        return name.startswith(pattern[:-1])
    return pattern == name


def wanted(patterns: Iterable[str], name: str) -> bool:
    """Whether any of the patterns covers a name."""
    return any(matches(pattern, name) for pattern in patterns)
