"""What a node keeps of its mesh: certificate, notices, and maybe its key and a ledger of members.

    DATA/mesh/root.key       the mesh's key; only where the mesh was made, or moved to
    DATA/mesh/member         this node's certificate, and where it was let in
    DATA/mesh/notices/HEX    one notice a file, by its digest: a running node looks for new ones
    DATA/mesh/ledger.jsonl   certificates given out here, one a line

Rules:
- Everything is readable by its owner alone, and a key that others could read is refused.
- A file is whole or not there: written beside its name, made durable, renamed.
- A line of the ledger is durable before the certificate that it tells of leaves the node.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from meshslm import limits
from meshslm.adapters.signing import SigningKey
from meshslm.core.certificates import NotAdmitted, stated
from meshslm.errors import UNREADABLE, OurFault, PeerFault
from meshslm.wire.admission import Admittance, Certificate, Credential, Notices, Signed
from meshslm.wire.codec import decode, encode

FOLDER: Final = "mesh"
_MOST_BYTES: Final = 4 * limits.STATEMENT_BYTES


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the ledger: a certificate that was given out."""

    serial: str
    node: str
    name: str
    token: str
    """Serial of the token that it was given for; empty for this node's own."""
    at: int
    not_after: int
    rights: tuple[str, ...]
    domains: tuple[str, ...]
    renewal: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """This node's membership."""

    credential: Credential
    certificate: Certificate
    addresses: tuple[str, ...]
    """Where it was let in."""


class MeshFolder:
    """The files below one data folder. Every method raises `OurFault` where the disk fails."""

    def __init__(self, data: Path) -> None:
        self.path = data / FOLDER
        self._root = self.path / "root.key"
        self._earlier = self.path / "root.key.earlier"
        self._member = self.path / "member"
        self._notices = self.path / "notices"
        self._ledger = self.path / "ledger.jsonl"
        self._known: tuple[tuple[int, int, int], Member] | None = None
        """What the file of the membership said, and which file that was: it is looked at often."""

    # --- the mesh's key -------------------------------------------------------------------------
    def root(self) -> SigningKey | None:
        """The mesh's key, where this node has it."""
        secret = self._read(self._root, private=True)
        if secret is None:
            return None
        try:
            return SigningKey(bytes.fromhex(secret.decode("ascii").strip()))
        except ValueError:
            raise OurFault(f"the mesh key {self._root} is damaged; restore a backup") from None

    def keep_root(self, key: SigningKey, *, earlier: SigningKey | None = None) -> None:
        """Write the mesh's key, in the place of an `earlier` one, which is kept beside it."""
        if earlier is not None:
            self._write(self._earlier, f"{earlier.secret.hex()}\n".encode("ascii"))
        self._write(self._root, f"{key.secret.hex()}\n".encode("ascii"))

    # --- membership -----------------------------------------------------------------------------
    def member(self) -> Member | None:
        """This node's membership, if it has one."""
        written = self._written(self._member)
        if self._known is not None and self._known[0] == written:
            return self._known[1]
        data = self._read(self._member)
        if data is None or written is None:
            return None
        try:
            kept = decode(data)
            if isinstance(kept, Admittance) and kept.credential is not None:
                certificate = stated(kept.credential.certificate, Certificate)
                member = Member(kept.credential, certificate, kept.addresses)
                self._known = written, member
                return member
        except (PeerFault, NotAdmitted):
            pass
        raise OurFault(
            f"the certificate {self._member} is damaged; restore a backup, or leave the mesh "
            "('meshslm mesh leave') and join again"
        )

    def credential(self) -> Credential | None:
        """This node's credential, if it has one."""
        member = self.member()
        return member.credential if member is not None else None

    def keep_member(self, credential: Credential, addresses: tuple[str, ...] | None = None) -> None:
        """Write this node's certificate; without `addresses` those that were kept stay."""
        if addresses is None:
            known = self.member()
            addresses = known.addresses if known is not None else ()
        self._write(self._member, encode(Admittance(credential, addresses=addresses)))

    def forget(self) -> None:
        """Leave the mesh: remove everything of it, the key too."""
        try:
            for path in (
                self._root,
                self._earlier,
                self._member,
                self._ledger,
                *self._notice_files(),
            ):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _fault("remove", self.path, error) from error

    # --- notices --------------------------------------------------------------------------------
    def notices(self, known: set[str] | None = None) -> list[Signed]:
        """Kept notices, oldest first, without those whose files `known` names; it learns them."""
        found: list[Signed] = []
        for path in self._notice_files():
            if known is not None:
                if path.name in known:
                    continue
                known.add(path.name)
            data = self._read(path)
            try:
                message = decode(data or b"")
            except PeerFault:
                continue  # half a notice is none: the mesh tells it again
            if isinstance(message, Notices):
                found.extend(message.notices)
        return found

    def keep_notice(self, notice: Signed) -> None:
        """Write a notice down."""
        name = blake2b(notice.payload, digest_size=16).hexdigest()
        self._write(self._notices / name, encode(Notices(b"", (notice,))))

    def _notice_files(self) -> list[Path]:
        try:
            with os.scandir(self._notices) as entries:
                found = [
                    (entry.stat().st_mtime_ns, entry.name)
                    for entry in entries
                    if not entry.name.endswith(".new")
                ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _fault("read", self._notices, error) from error
        return [self._notices / name for _, name in sorted(found)[: limits.NOTICES]]

    # --- the ledger -----------------------------------------------------------------------------
    def ledger(self) -> list[Entry]:
        """Everything given out here, oldest first. A last line cut short is left out."""
        try:
            lines = self._ledger.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _fault("read", self._ledger, error) from error
        entries = []
        for number, line in enumerate(lines[:-1], 1):
            try:
                entries.append(_LINES.decode(line))
            except UNREADABLE as error:
                raise OurFault(f"{self._ledger}, line {number} is damaged: {error}") from error
        return entries

    def record(self, entry: Entry) -> None:
        """Add a line, durably."""
        line = msgspec.json.encode(entry) + b"\n"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._ledger, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                file.truncate(_whole_lines(file.read()))  # a crash may have cut the last one short
                file.seek(0, os.SEEK_END)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _fault("write", self._ledger, error) from error

    # --- files ----------------------------------------------------------------------------------
    def _written(self, path: Path) -> tuple[int, int, int] | None:
        """Which file it is, and when it was last written; None where there is none."""
        try:
            told = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault("read", path, error) from error
        return told.st_ino, told.st_mtime_ns, told.st_size

    def _read(self, path: Path, *, private: bool = False) -> bytes | None:
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if private and mode & 0o077:
                    raise OurFault(
                        f"{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}"
                    )
                return file.read(_MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault("read", path, error) from error

    def _write(self, path: Path, data: bytes) -> None:
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise _fault("write", path, error) from error


_LINES: Final = msgspec.json.Decoder(Entry)


def _whole_lines(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _fault(what: str, path: Path, error: OSError) -> OurFault:
    return OurFault(f"cannot {what} {path}: {error.strerror}")
