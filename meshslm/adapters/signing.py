"""Ed25519 signatures over statements, and the making of certificates and notices.

Rules:
- Every signature is over `SIGNED_PREFIX` and the statement, so that a node's key, which also proves
  its identity in the handshake, never signs bytes that could mean something else.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

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
        payload = encode(statement)
        return Signed(payload, self._key.sign(SIGNED_PREFIX + payload))


def verify(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` is by the public key `key`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def new_serial() -> bytes:
    """A serial that nobody can guess."""
    return secrets.token_bytes(SERIAL_BYTES)
