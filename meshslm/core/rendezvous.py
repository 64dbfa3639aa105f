"""Who coordinates what: highest random weight, which everybody computes alike.

Source: Thaler and Ravishankar 1998. Each member has a weight for each key, and those with the
greatest are its coordinators. When one goes, the next in order takes its place and nobody else
moves.

Rules:
- The same members give the same coordinators, whatever the order in which they became known.
- A change of one member costs a hash for each key that is looked at, not a pass over all members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from heapq import nlargest

from meshslm import mesh_limits
from meshslm.ids import NodeId

KEYS_KEPT = 256
WEIGHTS_KEPT = 65_536
"""A thousand members for each of 64 keys: they are weighed again whenever a coordinator goes."""


@lru_cache(maxsize=WEIGHTS_KEPT)
def weight(key: str, node: NodeId) -> int:
    """That of a member for a key: 64 bits that anybody can compute and nobody choose."""
    return int.from_bytes(blake2b(f"{key}\0{node}".encode(), digest_size=8).digest(), "big")


def shares(count: int) -> int:
    """In how many parts so many nodes of a topic are dealt: a power of two, so that few move."""
    parts = 1
    while count > mesh_limits.SHARE * parts:
        parts *= 2
    return parts


def key_of(topic: str, share: int, parts: int) -> str:
    """Of one of the parts of a topic."""
    return f"{topic}\0{parts}\0{share}"


class Rendezvous:
    """The coordinators of the keys that this node looks at."""

    def __init__(self, eligible: Callable[[], Iterable[NodeId]]) -> None:
        self._eligible = eligible
        self._keys: dict[str, list[tuple[int, NodeId]]] = {}

    def of(self, key: str) -> tuple[NodeId, ...]:
        """The coordinators of a key, the first of them first."""
        found = self._keys.get(key)
        if found is None:
            if len(self._keys) >= KEYS_KEPT:
                del self._keys[next(iter(self._keys))]
            weighed = ((weight(key, node), node) for node in self._eligible())
            found = self._keys[key] = nlargest(mesh_limits.COORDINATORS, weighed)
        return tuple(node for _, node in found)

    def adopt(self, other: Rendezvous) -> None:
        """Know what another has found for the same members."""
        self._keys = {key: list(found) for key, found in other._keys.items()}

    def came(self, node: NodeId) -> None:
        """A member that may coordinate is there."""
        for key, found in self._keys.items():
            entry = (weight(key, node), node)
            if len(found) == mesh_limits.COORDINATORS and entry <= found[-1]:
                continue
            if entry not in found:
                found.append(entry)
                found.sort(reverse=True)
                del found[mesh_limits.COORDINATORS :]

    def gone(self, node: NodeId) -> None:
        """A member is not there, or may not coordinate any more."""
        for key in [k for k, found in self._keys.items() if any(n == node for _, n in found)]:
            del self._keys[key]
