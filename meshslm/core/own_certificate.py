"""This node's own certificate in a private mesh: what it shows, and its renewal.

Events: an answer to a renewal; the operator signed another.
Effects: `IssueCredential`, `KeepCredential`, `Send`, `Tell`.

Rules:
- It is asked for anew after two thirds of its life, at a time that is drawn, so that nodes that
  joined together do not renew together; whoever may admit is asked in turn, until one answers.
- Where the mesh has gone over to another key it is asked for while the old key is still good.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.admission_events import IssueCredential, KeepCredential
from meshslm.core.certificates import Credentials, NotAdmitted, certified, stated
from meshslm.core.directory import Peer
from meshslm.core.events import Lane
from meshslm.core.notices import NoticeBoard
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId
from meshslm.wire.admission import Admittance, Certificate, Credential, Renewal


class OwnCertificate:
    """What one member shows to others."""

    def __init__(
        self,
        node: NodeId,
        mesh: Credentials,
        board: NoticeBoard,
        out: Outbox,
        chance: Chance,
        greet: Callable[[Instant], None],
    ) -> None:
        self._node = node
        self._mesh = mesh
        self._board = board
        self._out = out
        self._chance = chance
        self._greet = greet
        self.credential = mesh.credential
        self.certificate = stated(mesh.credential.certificate, Certificate)
        self._renew_at = 0.0
        self._asked = 0

    def plan(self, unix_s: float) -> None:
        """Draw when to renew: late in its life, but well before its key is no longer good."""
        certificate = self.certificate
        begin = certificate.not_before + limits.CLOCK_SKEW_S
        life = max(0, certificate.not_after - begin)
        self._renew_at = begin + life * self._chance.between(0.6, 0.7)
        until = self._board.good_until(self.credential.issuer or self.credential.certificate)
        if until:
            left = max(0.0, until - unix_s) * self._chance.between(0.1, 0.5)
            self._renew_at = min(self._renew_at, unix_s + left)

    def is_due(self, unix_s: float) -> bool:
        """Whether it is time to renew."""
        return unix_s >= self._renew_at

    def renew(self, admitting: list[Peer]) -> None:
        """Ask the next of those who may admit; ourselves, where we are one."""
        if self._mesh.admits:
            self._out.put(IssueCredential(self._node, None, self.credential))
        elif admitting:
            self._asked += 1
            asked = admitting[self._asked % len(admitting)]
            self._out.send(asked.node, Lane.CONTROL, Renewal())

    def answered(self, answer: Admittance, unix_s: float, now: Instant) -> None:
        """Whoever was asked to renew answers. Raises `NotAdmitted` for what does not hold."""
        if answer.credential is None:
            self._out.tell("mesh.not-renewed", f"{answer.code}: {answer.detail}")
            return
        fresh = self._checked(answer.credential, unix_s)
        own = self.certificate
        if fresh.serial != own.serial or fresh.not_after <= own.not_after:
            return
        self._take(answer.credential, fresh, unix_s, now)
        self._out.put(KeepCredential(answer.credential))
        self._out.tell("mesh.renewed")

    def replaced(self, credential: Credential, unix_s: float, now: Instant) -> None:
        """The operator signed a new certificate for this node."""
        if credential == self.credential:
            return
        try:
            self._take(credential, self._checked(credential, unix_s), unix_s, now)
        except NotAdmitted as refusal:
            self._out.tell("mesh.not-renewed", str(refusal))

    def _checked(self, credential: Credential, unix_s: float) -> Certificate:
        mesh, keys = self._mesh, self._board.keys(unix_s)
        return certified(credential, self._node, mesh.mesh, keys, mesh.verify, unix_s)

    def _take(
        self, credential: Credential, certificate: Certificate, unix_s: float, now: Instant
    ) -> None:
        self.credential, self.certificate = credential, certificate
        self.plan(unix_s)
        self._greet(now)
