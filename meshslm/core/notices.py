"""What the mesh's key has told every member: who is revoked, and which key comes next.

Rules:
- A notice is kept for ever, counts once, and holds from the moment it is known.
- Two boards that were told the same, in whatever order, have the same digest. (A change of key
  that is not known yet makes notices of the next key unreadable; they are sent again later.)
"""

from __future__ import annotations

from hashlib import blake2b

from meshslm import limits
from meshslm.core.certificates import ROOT, Code, NotAdmitted, Verify, key_in, opened, stated
from meshslm.ids import NodeId
from meshslm.wire.admission import SIGNED_PREFIX, Certificate, Credential, Notice, Signed

KINDS = ("certificate", "node", "token", ROOT)


class NoticeBoard:
    """All notices of one mesh that are known here."""

    def __init__(self, mesh: bytes, verify: Verify) -> None:
        self._mesh = mesh
        self._verify = verify
        self._notices: dict[tuple[str, str], Signed] = {}
        self._sum = 0
        self._keys: dict[bytes, int] = {mesh: 0}
        """Key of the mesh -> when what it signed is no longer good; 0: for ever."""

    @property
    def digest(self) -> bytes:
        """Of all notices, whatever their order."""
        return self._sum.to_bytes(limits.NOTICES_DIGEST_BYTES, "big")

    def all(self) -> tuple[Signed, ...]:
        """Every notice, in the order in which they came."""
        return tuple(self._notices.values())

    def succession(self) -> tuple[Signed, ...]:
        """Notices by which the mesh's keys handed over, in order."""
        return tuple(signed for (about, _), signed in self._notices.items() if about == ROOT)

    def keys(self, unix_s: float) -> tuple[bytes, ...]:
        """Keys that sign for the mesh now, the newest first."""
        good = [key for key, until in self._keys.items() if until == 0 or unix_s < until]
        return tuple(reversed(good))

    def good_until(self, signed: Signed) -> int:
        """When the key of the mesh that signed it is no longer good; 0: never, or not its key."""
        data = SIGNED_PREFIX + signed.payload
        ends = {key: until for key, until in self._keys.items() if until}
        return next((u for k, u in ends.items() if self._verify(k, data, signed.signature)), 0)

    def add(self, signed: Signed) -> Notice | None:
        """Take up a notice; None where it was known. Raises `NotAdmitted`."""
        notice = opened(signed, Notice, self._keys, self._verify)
        if notice.mesh != self._mesh:
            raise NotAdmitted(Code.OTHER_MESH, "the notice is of another mesh")
        if notice.about not in KINDS:
            raise NotAdmitted(Code.FORGED, f"no notice is about {notice.about!r}")
        entry = (notice.about, notice.subject)
        if entry in self._notices:
            return None
        if len(self._notices) >= limits.NOTICES:
            raise NotAdmitted(Code.BUSY, f"more than {limits.NOTICES} notices")
        if notice.about == ROOT:
            self._succeed(signed, notice)
        self._notices[entry] = signed
        mark = blake2b("\0".join(entry).encode(), digest_size=limits.NOTICES_DIGEST_BYTES).digest()
        self._sum ^= int.from_bytes(mark, "big")
        return notice

    def check(self, certificate: Certificate, issuer: Signed | None = None) -> None:
        """Raise `NotAdmitted` where the certificate, its node or its token is revoked.

        `issuer` is the certificate of the member that signed it, if one did: whoever has the key of
        a member that was put out could go on signing in its name.
        """
        if issuer is not None:
            self.check(stated(issuer, Certificate))
        if (
            self.revoked("node", certificate.node)
            or self.revoked("certificate", certificate.serial.hex())
            or (certificate.token and self.revoked("token", certificate.token.hex()))
        ):
            raise NotAdmitted(Code.REVOKED, "it was revoked")

    def bars(self, credential: Credential | None) -> bool:
        """Whether a credential that was found good before is revoked since, or is none."""
        if credential is None:
            return True
        try:
            self.check(stated(credential.certificate, Certificate), credential.issuer)
        except NotAdmitted:
            return True
        return False

    def revoked(self, about: str, subject: NodeId | str) -> bool:
        """Whether there is such a notice."""
        return (about, str(subject)) in self._notices

    def _succeed(self, signed: Signed, notice: Notice) -> None:
        """The key that signed the notice hands over to the one that it names."""
        newest = next(reversed(self._keys))
        opened(signed, Notice, (newest,), self._verify)  # an earlier key has no say any more
        key = key_in(notice)
        if key in self._keys or len(self._keys) > limits.SUCCESSIONS:
            raise NotAdmitted(Code.FORGED, "a key hands over to an earlier one, or too many did")
        self._keys[newest] = notice.until
        self._keys[key] = 0
