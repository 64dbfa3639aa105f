"""Where the members of a private mesh meet in a place that belongs to strangers.

A distributed hash table keeps, under a key that anybody may choose, who has asked to be found
there. Members choose a key that only they can compute, another one each day, and seal the addresses
that they leave there.

What both are made of is the mesh's first public key. It is no secret among those who ever had to do
with the mesh, but strangers do not come by it. So a stranger who sees the key cannot tell whose it
is, and a server that lies can keep addresses back, and can invent none.

Rules:
- Days are counted in UTC, from the Unix epoch.
- The seal is for the day, the node and the address together: it is worth nothing elsewhere.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

from meshslm.ids import NodeId

DAY_S: Final = 86_400
_SHA256: Final = b"\x12\x20"
"""Before 32 bytes in a multihash."""


def day_of(unix_s: float) -> int:
    """The day's number."""
    return int(unix_s // DAY_S)


def meeting_point(mesh: bytes, day: int) -> bytes:
    """The key under which members find each other on a day, a multihash."""
    return _SHA256 + sha256(_keyed(mesh, f"place {day}")).digest()


def seal(mesh: bytes, day: int, node: NodeId, address: str) -> bytes:
    """Shows members that a member has left this address there, a multihash."""
    return _SHA256 + _keyed(mesh, f"address {day} {node} {address}")


def sealed_by_member(mesh: bytes, day: int, node: NodeId, address: str, given: bytes) -> bool:
    """Whether a seal is right."""
    return compare_digest(seal(mesh, day, node, address), given)


def _keyed(mesh: bytes, text: str) -> bytes:
    return digest(mesh, f"meshslm meeting point 1 {text}".encode(), "sha256")
