"""Ed25519 signatures over statements, and the making of certificates and notices.

Rules:
- Every signature is over `SIGNED_PREFIX` and the statement, so that a node's key, which also proves
  its identity in the handshake, never signs bytes that could mean something else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meshslm.adapters.keyring import public_key
from meshslm.ids import NodeId
from meshslm.wire.admission import SERIAL_BYTES, SIGNED_PREFIX, Certificate, Notice, Signed
from meshslm.wire.codec import encode


class SigningKey:
    """A private key of a mesh, or of a member that lets others in."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> SigningKey:
        """A new one."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, statement: Certificate | Notice) -> Signed:
        """The statement with a signature."""
        return self.seal(encode(statement))

    def seal(self, payload: bytes) -> Signed:
        """An encoded statement with a signature."""
        return Signed(payload, self._key.sign(SIGNED_PREFIX + payload))


def verify(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` is by the public key `key`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def node_signer(secret: bytes) -> Callable[[bytes], bytes]:
    """Signs as the node whose raw private key this is."""
    key = Ed25519PrivateKey.from_private_bytes(secret)

    def sign_as_node(data: bytes) -> bytes:
        return key.sign(data)

    return sign_as_node


def signed_by(node: NodeId, data: bytes, signature: bytes) -> bool:
    """Whether a signature over data is by a node, whose id is its public key. Never raises."""
    try:
        return verify(public_key(node), data, signature)
    except ValueError:
        return False


def new_serial() -> bytes:
    """A serial that nobody can guess."""
    return secrets.token_bytes(SERIAL_BYTES)
