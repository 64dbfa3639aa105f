"""A node's identity: its Ed25519 key on disk, and the lock that keeps it in one process.

The node id is the libp2p peer id of the public key. It is derived here without libp2p, so that
programs which only want to know who a node is need not load it.

Rules:
- A key is made once, readable by its owner alone, and never overwritten.
- A key that others could read is refused: whoever read it can be this node.
- One process at a time runs on a data folder.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshslm.errors import OurFault
from meshslm.ids import NodeId

KEY_FILE = "node.key"
LOCK_FILE = "node.lock"
KEY_BYTES = 4096
"""A PKCS#8 Ed25519 key in PEM is 119 bytes; more than this is not a key."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PUBLIC_KEY_PREFIX = bytes((0x08, 0x01, 0x12, 0x20))
"""Protobuf of a libp2p public key: type Ed25519, then 32 bytes of data."""
_IDENTITY_MULTIHASH = bytes((0x00, 0x24))
"""Keys of up to 42 bytes are not hashed in a peer id: hash function "identity", 36 bytes."""
_PEER_ID_CHARACTERS = 64
"""Such an id has 52."""


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The secret that makes a node this node. `secret` and `public` are 32 raw bytes each."""

    secret: bytes = field(repr=False)
    public: bytes
    node_id: NodeId

    @classmethod
    def generate(cls) -> NodeKey:
        """A new identity, kept nowhere."""
        return cls.from_secret(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_secret(cls, secret: bytes) -> NodeKey:
        """The identity of a raw 32-byte private key."""
        public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        return cls(secret, public, peer_id(public))


def peer_id(public: bytes) -> NodeId:
    """The libp2p peer id, in base58, of a raw Ed25519 public key.

    Source: the libp2p peer ids specification.
    """
    return NodeId(_base58(_IDENTITY_MULTIHASH + _PUBLIC_KEY_PREFIX + public))


def public_key(node: NodeId) -> bytes:
    """The raw Ed25519 public key in a peer id. `ValueError` where it is none."""
    number = 0
    for character in node[:_PEER_ID_CHARACTERS]:
        number = number * 58 + _BASE58.index(character)
    public = (number % 256**32).to_bytes(32, "big")
    if peer_id(public) != node:
        raise ValueError(f"{node} is not the peer id of an Ed25519 key")
    return public


def load_or_create(directory: Path) -> NodeKey:
    """The node's key in `directory`, made on the first call.

    Raises `OurFault` where the file is readable by others, damaged, of another key type, or cannot
    be read or written.
    """
    path = directory / KEY_FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        return _load(path)
    except OSError as error:
        raise OurFault(f"cannot use the node key {path}: {error.strerror}") from error


def _create(path: Path) -> None:
    """Write a new key beside `path`, make it durable, then give it its name unless one is there."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, never replaces what another process just made
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(path: Path) -> NodeKey:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise OurFault(
                f"the node key {path} can be read by others (mode "
                f"{stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}"
            )
        pem = file.read(KEY_BYTES + 1)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise OurFault(
            f"the node key {path} is damaged ({error}); restore it from a backup, or move it away "
            "to start as a new node"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise OurFault(f"the node key {path} is not an Ed25519 key but {type(key).__name__}")
    return NodeKey.from_secret(key.private_bytes_raw())


def _base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    leading_zeros = len(data) - len(data.lstrip(b"\0"))
    return _BASE58[0] * leading_zeros + "".join(reversed(digits))


class DirectoryLock:
    """Holds a data folder for this process until released, or until the process ends.

    A context manager. Raises `OurFault` where another process holds the folder.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `OurFault` naming the process that has it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OurFault(
                f"cannot make the data folder {self._path.parent}: {error.strerror}"
            ) from error
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OurFault(f"cannot lock {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise OurFault(
                f"{self._path.parent} is already in use by process {holder}; stop it, or give this "
                "node a folder of its own with --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
