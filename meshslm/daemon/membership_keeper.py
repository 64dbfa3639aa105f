"""A private mesh at run time: signs, writes down, and sees what the operator changes on disk.

Rules:
- Checking a token and writing the ledger happen in a thread, one after the other; a queue of
  `limits.JOINS` waits, and more are refused.
- The operator's commands change files; this is what carries them to a running node.
- A disk that fails costs a log line and the joining node its certificate, never the node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import trio

from meshslm import limits
from meshslm.core.admission_events import (
    ClockRead,
    CredentialIssued,
    CredentialReplaced,
    IssueCredential,
    KeepCredential,
    KeepNotice,
    NoticeFound,
)
from meshslm.core.certificates import Code, NotAdmitted
from meshslm.core.events import Event
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.wire.admission import Credential, JoinRequest, Signed

log = logging.getLogger("meshslm.mesh")

LOOK_S: Final = 1.0
"""Between two looks at the folder: a revocation leaves within a second, and a look costs 20 us."""


class Desk(Protocol):
    """Who checks tokens and signs certificates."""

    def redeem(self, peer: NodeId, request: JoinRequest) -> Credential:
        """A first certificate. Raises `NotAdmitted`, or `OurFault`."""
        ...

    def renew(self, peer: NodeId, credential: Credential) -> Credential:
        """A certificate for another life. Raises `NotAdmitted`, or `OurFault`."""
        ...


class Folder(Protocol):
    """Where certificate and notices are kept. Every method raises `OurFault`."""

    def credential(self) -> Credential | None:
        """This node's own."""
        ...

    def keep_member(self, credential: Credential, addresses: tuple[str, ...] | None = None) -> None:
        """Write this node's own."""
        ...

    def notices(self, known: set[str] | None = None) -> list[Signed]:
        """Notices in files that `known` does not name; it learns them."""
        ...

    def keep_notice(self, notice: Signed) -> None:
        """Write a notice."""
        ...


class MembershipKeeper:
    """Performs the effects of admission and posts its events."""

    def __init__(
        self,
        folder: Folder,
        desk: Desk,
        handle: Callable[[Event], None],
        unix_s: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._desk = desk
        self._handle = handle
        self._unix_s = unix_s
        self._known: set[str] = set()
        self._credential: Credential | None = None
        self._warned = ""
        """What was wrong when the folder was used last: told once, as it is looked at for ever."""
        self._send, self._receive = trio.open_memory_channel[IssueCredential](limits.JOINS)

    def begin(self) -> None:
        """Tell the core the time and what is kept, before anybody connects."""
        self._handle(ClockRead(self._unix_s()))
        self._credential = self._folder.credential()
        for notice in self._folder.notices(self._known):
            self._handle(NoticeFound(notice))

    def notices(self) -> list[Signed]:
        """What is kept; nothing where the disk fails."""
        found: list[Signed] = []
        self._try(lambda: found.extend(self._folder.notices()))
        return found

    def issue(self, effect: IssueCredential) -> None:
        """Answer later."""
        try:
            self._send.send_nowait(effect)
        except trio.WouldBlock:
            refusal = CredentialIssued(effect.peer, None, Code.BUSY, "try again in a minute")
            self._handle(refusal)

    def keep_credential(self, effect: KeepCredential) -> None:
        """Write this node's new certificate."""
        self._credential = effect.credential
        self._try(lambda: self._folder.keep_member(effect.credential))

    def keep_notice(self, effect: KeepNotice) -> None:
        """Write a notice that came over the mesh."""
        self._try(lambda: self._folder.keep_notice(effect.notice))

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            async for effect in self._receive:
                self._handle(await trio.to_thread.run_sync(self._answer, effect))

    def _answer(self, effect: IssueCredential) -> CredentialIssued:
        """Check and sign; runs in a thread."""
        try:
            if effect.request is not None:
                credential = self._desk.redeem(effect.peer, effect.request)
            else:
                assert effect.renewing is not None, "one of both is given"
                credential = self._desk.renew(effect.peer, effect.renewing)
        except NotAdmitted as refusal:
            return CredentialIssued(effect.peer, None, refusal.code, str(refusal))
        except OurFault as fault:
            log.warning("cannot let %s in: %s", effect.peer, fault)
            return CredentialIssued(effect.peer, None, Code.BUSY, "the node has a fault of its own")
        return CredentialIssued(effect.peer, credential)

    async def _look(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            self._handle(ClockRead(self._unix_s()))
            self._try(self._look_once)

    def _look_once(self) -> None:
        for notice in self._folder.notices(self._known):
            self._handle(NoticeFound(notice))
        credential = self._folder.credential()
        if credential is not None and credential != self._credential:
            self._credential = credential
            self._handle(CredentialReplaced(credential))

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except OurFault as fault:
            if str(fault) != self._warned:
                log.warning("%s", fault)
            self._warned = str(fault)
        else:
            self._warned = ""
