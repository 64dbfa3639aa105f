"""Shared documents in HTTP shapes: how large they are, and whether replicas agree."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

PATH = "/mesh/state"
VERIFY = "/mesh/state/verify"
FORGET = "/mesh/state/forget"


class DocumentInfo(msgspec.Struct, kw_only=True):
    """One document, as the asked node holds it."""

    document: str
    keys: int
    """Entries, deleted ones included."""
    live_bytes: int
    full_bytes: int
    """With what was written over since each author's last rebuild."""
    authors: int
    parts: int
    quarantined: bool = False
    """A comparison found it to differ from another replica, and it is being mended."""


class CheckInfo(msgspec.Struct, kw_only=True):
    """A comparison of all documents with one member."""

    node: str
    state: str
    """`equal`, `behind` where one side lacks something, `diverged`, or `waiting` for an answer."""
    documents: int
    behind: list[str] = []
    diverged: list[str] = []


class StateReply(msgspec.Struct, kw_only=True):
    """Answer of `GET /mesh/state` and `POST /mesh/state/verify`."""

    ready: bool
    trouble: str = ""
    """Why nothing can be stored at present; empty where it can."""
    documents: list[DocumentInfo] = []
    taken: int = 0
    """Deltas of others that were taken since the start, and refused."""
    refused: int = 0
    compared: int = 0
    """Comparisons with others since the start, and how they ended."""
    agreed: int = 0
    diverged: int = 0
    repaired: int = 0
    rebuilt: int = 0
    checks: list[CheckInfo] = []
    """With each member, of the last verification."""
    unasked: int = 0
    """Members that are there and were not asked by it: there is no link to them, or they have no
    documents. Of a mesh in which not every two are linked, another node verifies others."""
    known: int = 0
    """Deltas of others that were here when they came: sent twice on the way, or replayed."""
    waiting: int = 0
    """Writes of local programs that are not durable yet."""


class ForgetRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /mesh/state/forget`."""

    document: Annotated[str, Meta(min_length=1, max_length=128)]
    author: Annotated[str, Meta(min_length=1, max_length=128)]
    """Id of a node that is gone for ever."""
    force: bool = False
    """Although it is there now."""


class ForgottenInfo(msgspec.Struct, kw_only=True):
    """An author whose parts are given up, up to a generation."""

    author: str
    generation: int


class ForgetReply(msgspec.Struct, kw_only=True):
    """What a document has given up so far, and as of which generation."""

    document: str
    generation: int
    forgotten: list[ForgottenInfo]
