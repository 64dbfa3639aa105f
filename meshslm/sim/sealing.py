"""Signatures of simulated nodes: a hash with the node's name, which nobody there forges by chance.

Why not Ed25519: a thousand nodes check a thousand records each, and all that a core knows of a
signature is whether it is good. Production's own signatures are tested with production's keys.
"""

from __future__ import annotations

from hashlib import blake2b

from meshslm.core.growth_events import SealStatement, StatementSealed
from meshslm.ids import NodeId
from meshslm.wire.admission import SIGNATURE_BYTES, SIGNED_PREFIX, Signed


def signature(node: NodeId, data: bytes) -> bytes:
    """Of a simulated node over some bytes."""
    return blake2b(data, key=node.encode()[:64], digest_size=SIGNATURE_BYTES).digest()


def signed_by(node: NodeId, data: bytes, given: bytes) -> bool:
    """Whether a signature is the node's."""
    return signature(node, data) == given


def sealed(node: NodeId, effect: SealStatement) -> StatementSealed:
    """What comes of a node's wish to sign."""

    def sign(payload: bytes) -> Signed:
        return Signed(payload, signature(node, SIGNED_PREFIX + payload))

    farewell = sign(effect.farewell) if effect.farewell else None
    return StatementSealed(sign(effect.payload), farewell)
