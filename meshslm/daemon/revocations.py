"""Carries revocations over what coordinators decide, beside the way of notices from node to node.

A notice reaches everybody who is linked to somebody who has it. A node that was cut off from all
of these for long, and others that came meanwhile, learn it here: whoever keeps the log of decisions
has each notice recorded there, and every node looks there now and then.

Rules:
- What is recorded is the notice itself, and it counts only as far as the mesh's key has signed it:
  who may have things decided may not put anybody out by that.
- Nothing waits for it: a notice holds from the moment it is known, with or without a majority.
- In a mesh without a group nothing comes of it but a question now and then.
"""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final, Protocol

import trio

from meshslm.core.admission_events import NoticeFound
from meshslm.core.consensus.decided import DECIDED
from meshslm.core.consensus.events import DecisionMade
from meshslm.core.consensus.view import ConsensusView
from meshslm.core.events import Event
from meshslm.errors import PeerFault
from meshslm.wire.admission import Notice, Notices, Signed
from meshslm.wire.codec import decode, encode
from meshslm.wire.consensus import Command

FIRST_S: Final = 10.0
LOOK_S: Final = 300.0
"""Notices come by themselves within seconds; this is for who missed them."""

REVOKING: Final = ("certificate", "node", "token")
"""What notices of revocation are about; the mesh's next key is handed on in their own way only."""

_log = logging.getLogger("meshslm.mesh")


class Deciding(Protocol):
    """Who asks coordinators."""

    async def decide(
        self, command: Command | None, kind: str = "", subject: str = ""
    ) -> DecisionMade:
        """Have something decided or, without a command, hear what is."""
        ...

    def consensus(self) -> ConsensusView:
        """The group of coordinators, seen from here."""
        ...


class Revocations:
    """Compares notices with what is decided."""

    def __init__(
        self,
        notices: Callable[[], list[Signed]],
        service: Deciding,
        handle: Callable[[Event], None],
    ) -> None:
        self._notices = notices
        self._service = service
        self._handle = handle

    async def run(self) -> None:
        """Look, for ever."""
        await trio.sleep(FIRST_S)
        while True:
            await self.look()
            await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Take up what is decided; have decided what is not."""
        made = await self._service.decide(None, "revoked")
        if made.code != DECIDED:
            return
        for decision in made.decisions:
            signed = notice_in(decision.value)
            if signed is not None:
                self._handle(NoticeFound(signed, kept=False))
        if not self._service.consensus().group:
            return  # those with a log do it
        known = {decision.subject for decision in made.decisions}
        for signed in self._notices():
            subject = subject_of(signed)
            if subject and subject not in known:
                told = await self._service.decide(Command("revoke", subject, value=written(signed)))
                if told.code != DECIDED:
                    _log.info("the revocation of %s is not recorded: %s", subject, told.detail)
                    return


def subject_of(signed: Signed) -> str:
    """Under what a revocation is recorded; empty where it is none."""
    try:
        notice = decode(signed.payload)
    except PeerFault:
        return ""
    if not isinstance(notice, Notice) or notice.about not in REVOKING:
        return ""
    return f"{notice.about}/{notice.subject}"


def written(signed: Signed) -> str:
    """A notice as text."""
    return b64encode(encode(Notices(b"", (signed,)))).decode()


def notice_in(text: str) -> Signed | None:
    """The notice in a decision; None where there is none, as an operator may give any reason."""
    try:
        message = decode(b64decode(text, validate=True))
    except (PeerFault, ValueError):
        return None
    if not isinstance(message, Notices) or len(message.notices) != 1:
        return None
    (signed,) = message.notices
    return signed if subject_of(signed) else None
