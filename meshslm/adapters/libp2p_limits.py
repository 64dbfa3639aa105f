"""How much one peer, and one IP address, may take of a node before it has to wait.

Rules:
- What is sent too fast waits, and nothing is lost: the peer's window closes, its caller's handshake
  begins later. Whether a peer is at fault is decided elsewhere, by what it says.
- An address is never banned, as many may share one behind a NAT; where there is no room for all,
  the address that takes most gives way first.
- No clock: the time, in seconds, is handed in.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from dataclasses import dataclass, field

import trio

from meshslm import limits
from meshslm.ids import NodeId

NETWORK_BITS = 64
"""Of an IPv6 address: what one customer is given at least, so single addresses mean nothing."""


class Bucket:
    """Lets `burst` through at once, and `rate` a second for ever."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = 0.0

    def take(self, amount: float, now: float) -> float:
        """Take `amount`, which is then owed if it is not there; seconds to wait for that."""
        self.leave(self.level(now) - amount, now)
        return self.wait(now)

    def leave(self, level: float, now: float) -> None:
        """From now on there is so much."""
        self._level, self._at = level, now

    def wait(self, now: float) -> float:
        """Seconds until what is owed has come."""
        return max(0.0, -self.level(now) / self._rate)

    def level(self, now: float) -> float:
        """What can be taken without waiting; below 0 where some is owed."""
        return min(self._burst, self._level + max(0.0, now - self._at) * self._rate)


class Intake:
    """What one peer sends, and how long to wait before more of it is read."""

    def __init__(self) -> None:
        self._messages = Bucket(limits.PEER_MESSAGES_PER_S, limits.PEER_MESSAGES_BURST)
        self._bytes = Bucket(limits.PEER_BYTES_PER_S, limits.PEER_BYTES_BURST)

    def admits(self, messages: int, size: int, now: float) -> bool:
        """Count what came where that needs no wait; False, and nothing is counted, else."""
        left = self._messages.level(now) - messages
        room = self._bytes.level(now) - size
        if left < 0 or room < 0:
            return False
        self._messages.leave(left, now)
        self._bytes.leave(room, now)
        return True

    def take(self, messages: int, size: int, now: float) -> float:
        """Count what came; seconds to wait."""
        return max(self._messages.take(messages, now), self._bytes.take(size, now))


@dataclass(slots=True)
class Source:
    """Callers at one IP address."""

    bucket: Bucket = field(
        default_factory=lambda: Bucket(
            limits.HANDSHAKES_PER_SOURCE_S, limits.HANDSHAKES_PER_SOURCE_BURST
        )
    )
    connections: int = 0
    handshakes: deque[trio.CancelScope] = field(default_factory=deque)
    """Under way, the oldest first."""


class Callers:
    """Accepted connections, by where they come from and by who turned out to call."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._peers: dict[NodeId, int] = {}
        self._handshakes = 0

    def admit(self, source: str) -> bool:
        """Whether there is room for one more connection from a source; it is then counted."""
        found = self._sources.get(source)
        if found is None:
            if len(self._sources) >= limits.SOURCES:
                self._forget_one()
            found = self._sources[source] = Source()
        if found.connections >= limits.CONNECTIONS_PER_SOURCE:
            return False
        found.connections += 1
        return True

    def leave(self, source: str) -> None:
        """A connection from a source is over."""
        self._sources[source].connections -= 1

    def begin(
        self, source: str, scope: trio.CancelScope, now: float, patience: float
    ) -> float | None:
        """A handshake begins; seconds that it has to wait, None where that is over `patience`.

        Who is turned away takes nothing, so a source is as good as new soon after a flood.
        Where too many are under way, the oldest one of the source with most is cancelled: an
        honest one takes milliseconds.
        """
        found = self._sources[source]
        if found.bucket.wait(now) > patience:
            return None
        if self._handshakes >= limits.HANDSHAKES:
            most = max(self._sources.values(), key=lambda found: len(found.handshakes))
            most.handshakes.popleft().cancel()
            self._handshakes -= 1
        found.handshakes.append(scope)
        self._handshakes += 1
        return found.bucket.take(1, now)

    def end(self, source: str, scope: trio.CancelScope) -> None:
        """A handshake is over."""
        handshakes = self._sources[source].handshakes
        if scope in handshakes:
            handshakes.remove(scope)
            self._handshakes -= 1

    def claim(self, peer: NodeId) -> bool:
        """Whether one more connection of a peer is taken; it is then counted."""
        count = self._peers.get(peer, 0)
        if count >= limits.CONNECTIONS_PER_PEER:
            return False
        self._peers[peer] = count + 1
        return True

    def release(self, peer: NodeId) -> None:
        """A connection of a peer is over."""
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def _forget_one(self) -> None:
        """The source longest known without a connection; there is one, as connections are few."""
        for source, found in self._sources.items():
            if not found.connections:
                del self._sources[source]
                return


def source_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or a network of IPv6 addresses."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, NETWORK_BITS), strict=False))
    return str(address)
