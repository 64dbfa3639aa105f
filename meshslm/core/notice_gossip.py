"""How notices of the mesh's key reach every member.

A new notice is passed on at once to everybody alive; members that meet, and random pairs for ever,
compare digests, which heals what a loss or an absence left out.

Rules:
- Nobody has to be believed: a notice is signed by the mesh's key, whoever tells it.
- A comparison takes three messages at most, whatever the other side makes of them.
- Nobody is told all notices more often than once in `NOTICES_AGAIN_MS`, whatever it asks: there is
  nothing in a digest by which a false one is known.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.admission_events import KeepNotice
from meshslm.core.certificates import NotAdmitted
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Lane
from meshslm.core.notices import NoticeBoard
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.admission import Notice, Notices, Signed


class NoticeGossip:
    """Keeps one board like everybody else's."""

    def __init__(
        self,
        board: NoticeBoard,
        directory: Directory,
        out: Outbox,
        chance: Chance,
        news: Callable[[Notice, Instant], None],
    ) -> None:
        self._board = board
        self._directory = directory
        self._out = out
        self._chance = chance
        self._news = news
        self._told_all: dict[NodeId, Instant] = {}
        """Who was told all notices lately, and when."""

    def compare(self, peers: list[Peer]) -> None:
        """Ask one of `peers` whether it knows the same."""
        if peers:
            asked = self._chance.pick(peers)
            self._out.send(asked.node, Lane.CONTROL, Notices(self._board.digest))

    def found(self, notice: Signed, now: Instant, *, kept: bool = True) -> None:
        """A notice that this node keeps, or that its operator wrote now, or coordinators have."""
        try:
            if self._heed(notice, None, now) and not kept:
                self._out.put(KeepNotice(notice))
        except NotAdmitted as refusal:
            self._out.tell("mesh.notice-refused", str(refusal))

    def heard(self, peer: Peer, message: Notices, now: Instant) -> None:
        """A member tells what it knows; raises `NotAdmitted` for what no key of the mesh said.

        One without notices is a question: who knows others answers with all, and is answered with
        all where that still leaves a difference. More than that is never said.
        """
        for signed in message.notices:
            if self._heed(signed, peer, now):
                self._out.put(KeepNotice(signed))
        if message.digest in (b"", self._board.digest) or not self._may_tell_all(peer.node, now):
            return
        known = self._board.all()
        starts = range(0, max(1, len(known)), limits.NOTICES_PER_MESSAGE)
        for start in starts:
            final = start == starts[-1] and not message.notices
            part = known[start : start + limits.NOTICES_PER_MESSAGE]
            digest = self._board.digest if final else b""
            self._out.send(peer.node, Lane.CONTROL, Notices(digest, part))

    def _may_tell_all(self, node: NodeId, now: Instant) -> bool:
        self._told_all = {
            told: since
            for told, since in self._told_all.items()
            if ms_between(since, now) < limits.NOTICES_AGAIN_MS
        }
        if node in self._told_all:
            return False
        self._told_all[node] = now
        return True

    def _heed(self, signed: Signed, teller: Peer | None, now: Instant) -> bool:
        """Act on a notice and pass it on; false where it was known."""
        notice = self._board.add(signed)
        if notice is None:
            return False
        for peer in self._directory.alive():
            if peer is not teller:
                self._out.send(peer.node, Lane.CONTROL, Notices(b"", (signed,)))
        self._out.tell("mesh.notice", f"{notice.about} {notice.subject}")
        self._news(notice, now)
        return True
