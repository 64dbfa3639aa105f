"""Which servers of a distributed hash table are closest to a key: Kademlia's lookup, step by step.

Sources: Maymounkov and Mazieres 2002; libp2p's specification of its DHT; for the separate paths
Baumgart and Mies 2007 (S/Kademlia).

Servers are strangers, and some may lie. Each server that the lookup begins with begins a path: who
is told of on a path belongs to it, and paths take turns. So servers that only lead to each other,
closer and closer to the key, use up their own path's turns and nobody else's.

Rules:
- Nobody who has answered is asked again, and no address of a server is dialled twice.
- It ends after `DHT_DIALS` dials, whatever is answered.
- Time, chance and the network are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import nsmallest
from itertools import islice, zip_longest

from meshslm import mesh_limits


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody that a server tells of: another server, or who has put down a record."""

    id: bytes
    """Peer id in its binary form."""
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One server is to be asked at one address."""

    id: bytes
    address: str


@dataclass(slots=True)
class _Server:
    id: bytes
    distance: int
    paths: int = 0
    """One bit for each path that leads to it."""
    untried: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    open: bool = False
    """It is being asked."""
    answered: bool = False
    told: list[_Server] = field(default_factory=list)
    records: list[Contact] = field(default_factory=list)

    @property
    def hopeful(self) -> bool:
        """It has answered, or may still do so."""
        return self.answered or self.open or bool(self.untried)


def distance(one: bytes, other: bytes) -> int:
    """Between two keys, or a key and a peer id, as libp2p has it."""
    hashes = [int.from_bytes(sha256(key).digest(), "big") for key in (one, other)]
    return hashes[0] ^ hashes[1]


class Lookup:
    """One search. Ask `next` until it gives nothing, tell how each asking ended, until `over`."""

    def __init__(self, key: bytes, own: bytes, servers: Iterable[Contact]) -> None:
        self._key = key
        self._own = own
        self._known: dict[bytes, _Server] = {}
        self._turns: list[int] = []
        """Of each path: dials."""
        self._dials = 0
        self._open = 0
        for server in islice(servers, mesh_limits.DHT_SERVERS):
            if self._learn(server, 1 << len(self._turns)) is not None:
                self._turns.append(0)

    def next(self) -> Ask | None:
        """Whom to ask now; None where nobody is left, or enough are being asked."""
        if self._open >= mesh_limits.DHT_PARALLEL or self._dials >= mesh_limits.DHT_DIALS:
            return None
        for path in sorted(range(len(self._turns)), key=self._turns.__getitem__):
            server = self._candidate(path)
            if server is not None:
                self._turns[path] += 1
                self._dials += 1
                self._open += 1
                server.open = True
                server.tried.append(server.untried.pop(0))
                return Ask(server.id, server.tried[-1])
        return None

    @property
    def over(self) -> bool:
        """Nobody is being asked, and nobody is left to ask."""
        return not self._open and (
            self._dials >= mesh_limits.DHT_DIALS
            or all(self._candidate(path) is None for path in range(len(self._turns)))
        )

    def answered(self, ask: Ask, closer: Iterable[Contact], records: Iterable[Contact]) -> None:
        """A server knows these servers close to the key, and has these records of it."""
        server = self._ended(ask)
        server.answered = True
        server.records = list(islice(records, mesh_limits.DHT_CLOSEST))
        for contact in islice(closer, mesh_limits.DHT_CLOSEST):
            told = self._learn(contact, server.paths)
            if told is not None:
                server.told.append(told)

    def failed(self, ask: Ask) -> None:
        """A server did not answer at an address, or not as it should."""
        self._ended(ask)

    def closest(self) -> list[Ask]:
        """The servers that are to keep a record, at the addresses at which they answered.

        These are the closest to the key, and on each path its own closest few, as liars may have
        come up with closer ones than there are.
        """
        share = -(-mesh_limits.DHT_CLOSEST // max(1, len(self._turns)))
        found = self._answered_on(~0)[: mesh_limits.DHT_CLOSEST]
        for path in range(len(self._turns)):
            found += self._answered_on(1 << path)[:share]
        return [Ask(server.id, server.tried[-1]) for server in {s.id: s for s in found}.values()]

    def records(self) -> Iterator[Contact]:
        """What was found: of each path in turn, and there of each server, the closest first."""
        paths = (self._records_on(1 << path) for path in range(len(self._turns)))
        return _in_turn(*paths)

    @property
    def answers(self) -> int:
        """Servers that have answered."""
        return sum(server.answered for server in self._known.values())

    def _records_on(self, path: int) -> Iterator[Contact]:
        return _in_turn(*(iter(server.records) for server in self._answered_on(path)))

    def _answered_on(self, paths: int) -> list[_Server]:
        servers = (s for s in self._known.values() if s.answered and s.paths & paths)
        return sorted(servers, key=_distance)

    def _candidate(self, path: int) -> _Server | None:
        """The closest of a path that is to be asked, if it is among those that would do."""
        hopeful = (s for s in self._known.values() if s.paths >> path & 1 and s.hopeful)
        nearest = nsmallest(mesh_limits.DHT_CLOSEST, hopeful, key=_distance)
        return next((s for s in nearest if not (s.answered or s.open)), None)

    def _ended(self, ask: Ask) -> _Server:
        server = self._known[ask.id]
        assert server.open, "it was given out by `next`, and ends once"
        server.open = False
        self._open -= 1
        return server

    def _learn(self, contact: Contact, paths: int) -> _Server | None:
        if contact.id == self._own:
            return None
        server = self._known.get(contact.id)
        if server is None:
            server = _Server(contact.id, distance(self._key, contact.id))
            self._known[contact.id] = server
        known = [*server.tried, *server.untried]
        news = (a for a in dict.fromkeys(contact.addresses) if a not in known)
        server.untried += islice(news, max(0, mesh_limits.DHT_ADDRESSES - len(known)))
        self._lead(server, paths)
        return server

    @staticmethod
    def _lead(server: _Server, paths: int) -> None:
        """Paths lead to a server, and on to all of whom it has told."""
        reached = [server]
        while reached:
            server = reached.pop()
            if paths & ~server.paths:
                server.paths |= paths
                reached += server.told

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        servers = list(self._known.values())
        assert self._open == sum(server.open for server in servers) <= mesh_limits.DHT_PARALLEL
        assert self._dials == sum(len(s.tried) for s in servers) <= mesh_limits.DHT_DIALS
        assert self._dials == sum(self._turns)
        assert all(server.paths for server in servers), "somebody told of everybody"


def _distance(server: _Server) -> int:
    return server.distance


def _in_turn(*sources: Iterator[Contact]) -> Iterator[Contact]:
    """One of each source, then a second one of each, until all are empty."""
    for turn in zip_longest(*sources):
        yield from (contact for contact in turn if contact is not None)
