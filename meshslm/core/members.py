"""The table of members of a large mesh: everybody's newest record, and who is said to be gone.

Two tables that were given the same statements, in whatever order and however often, hold the same;
so tables that differ are made equal by handing each what it lacks.

Rules:
- A record counts if it is newer than what is held of its member.
- An accusation is of one life. It counts until the member begins another, and `ACCUSERS` of them,
  or one for long enough, make the member lost.
- Who is lost is remembered for a while, and back as soon as it says so itself.
- Nothing here is scanned for an event, but for those who are accused or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, KeysView
from dataclasses import dataclass, field
from enum import Enum

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.records import Charge, Fact, bucket_of
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.admission import Signed

DRAWS = 64
"""Tries to draw a machine evenly: one with a hundred identities is refused 99 times in 100."""


class Outcome(Enum):
    """What a statement was worth."""

    NEWS = "news"
    KNOWN = "known"
    STALE = "stale"
    """Older than what is held."""
    REFUSED = "refused"
    """There is no room, or it speaks of or for nobody who is known."""


@dataclass(slots=True)
class Accused:
    """A member that others have lost."""

    since: Instant
    charges: dict[NodeId, Charge] = field(default_factory=dict)


@dataclass(slots=True)
class Lost:
    """A member that is gone."""

    fact: Fact
    since: Instant
    charges: tuple[Charge, ...] = ()


class Members:
    """Everybody of whom a record is known, this node included."""

    def __init__(self, came: Callable[[Fact], None], gone: Callable[[Fact], None]) -> None:
        self._came = came
        """Told of whoever is new or says something new of itself."""
        self._gone = gone
        self._facts: dict[NodeId, Fact] = {}
        self._order: list[NodeId] = []
        self._parts: list[dict[NodeId, Fact]] = [{} for _ in range(mesh_limits.BUCKETS)]
        """By bucket."""
        self._sources: dict[str, int] = {}
        self._accused: dict[NodeId, Accused] = {}
        self._lost: dict[NodeId, Lost] = {}
        self._topics: dict[str, dict[NodeId, None]] = {}
        self._names: dict[str, dict[str, int]] = {}
        """Profile or model -> topics of those who have it, and how many."""
        self._buckets = [0] * mesh_limits.BUCKETS
        self.root = 0
        self.changed_at = Instant(0)

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._facts

    @property
    def nodes(self) -> KeysView[NodeId]:
        """Of everybody who is not lost."""
        return self._facts.keys()

    def get(self, node: NodeId) -> Fact | None:
        """The record of a member that is not lost."""
        return self._facts.get(node)

    def all(self) -> Iterable[Fact]:
        """Everybody who is not lost."""
        return self._facts.values()

    @property
    def lost(self) -> dict[NodeId, Lost]:
        """Those who are gone, the first of them first."""
        return self._lost

    def is_accused(self, node: NodeId) -> bool:
        """Whether somebody has lost a member that still counts."""
        return node in self._accused

    # --- statements -----------------------------------------------------------------------------
    def take(self, fact: Fact, now: Instant) -> Outcome:
        """A member's record came."""
        record = fact.record
        lost = self._lost.get(record.node)
        held = lost.fact if lost is not None else self._facts.get(record.node)
        if held is not None and fact.version <= held.version:
            return Outcome.KNOWN if fact.version == held.version else Outcome.STALE
        if held is None and not self._room(fact):
            return Outcome.REFUSED
        same_life = held is not None and (record.boot, record.life) == (
            held.record.boot,
            held.record.life,
        )
        self.changed_at = now
        if lost is not None and same_life and lost.charges and not record.left:
            lost.fact = fact
            return Outcome.NEWS
        self._lost.pop(record.node, None)
        if self._replace(fact):
            return Outcome.NEWS
        accused = self._accused.get(record.node) if same_life else None
        self._remove(record.node)
        if record.left:
            self._lose(fact, (), now)
            return Outcome.NEWS
        self._add(fact)
        if accused is not None:
            for charge in accused.charges.values():
                self._accuse(fact, charge, accused.since)
        self._came(fact)
        return Outcome.NEWS

    def charge(self, charge: Charge, now: Instant) -> Outcome:
        """Somebody has lost a member."""
        worth = self.weigh(charge)
        if worth is Outcome.NEWS:
            node = charge.accusation.node
            fact = self._facts[node]
            self.changed_at = now
            self._accuse(fact, charge, now)
            if len(self._accused[node].charges) >= mesh_limits.ACCUSERS:
                self._condemn(fact, now)
        return worth

    def weigh(self, charge: Charge) -> Outcome:
        """What an accusation would be worth."""
        said = charge.accusation
        lost = self._lost.get(said.node)
        fact = lost.fact if lost is not None else self._facts.get(said.node)
        if fact is None or (said.by not in self._facts and said.by not in self._lost):
            return Outcome.REFUSED
        life = (fact.record.boot, fact.record.life)
        if (said.boot, said.life) != life:
            return Outcome.STALE if (said.boot, said.life) < life else Outcome.REFUSED
        if lost is not None:
            return Outcome.KNOWN
        accused = self._accused.get(said.node)
        known = accused is not None and said.by in accused.charges
        return Outcome.KNOWN if known else Outcome.NEWS

    def sweep(self, now: Instant) -> None:
        """Believe accusations that nobody refuted, and forget who is gone for long."""
        for node, accused in list(self._accused.items()):
            if ms_between(accused.since, now) >= mesh_limits.ACCUSED_MS:
                self._condemn(self._facts[node], now)
        while self._lost:
            node, oldest = next(iter(self._lost.items()))
            if ms_between(oldest.since, now) < mesh_limits.LOST_MS:
                return
            del self._lost[node]

    def drop(self, node: NodeId) -> None:
        """Forget a member: it is none any more."""
        fact = self._facts.get(node)
        self._remove(node)
        self._lost.pop(node, None)
        if fact is not None:
            self._gone(fact)

    def clear(self) -> None:
        """Forget everybody who is there; who is gone is not to come back by others' tables."""
        for node in list(self._facts):
            self.drop(node)

    def adopt(self, other: Members) -> None:
        """Become a copy of another table of which nobody is accused; whoever is in it has come."""
        assert not other._accused, "accusations are not handed over"
        self._facts, self._order = dict(other._facts), list(other._order)
        self._parts = [dict(part) for part in other._parts]
        self._sources = dict(other._sources)
        self._topics = {topic: dict(nodes) for topic, nodes in other._topics.items()}
        self._names = {name: dict(topics) for name, topics in other._names.items()}
        self._buckets, self.root = list(other._buckets), other.root
        for fact in self._facts.values():
            self._came(fact)

    def _room(self, fact: Fact) -> bool:
        if fact.source and self._sources.get(fact.source, 0) >= mesh_limits.RECORDS_PER_SOURCE:
            return False
        if len(self._facts) + len(self._lost) < mesh_limits.MEMBERS:
            return True
        if self._lost:
            del self._lost[next(iter(self._lost))]
            return True
        return False

    def _accuse(self, fact: Fact, charge: Charge, now: Instant) -> None:
        accused = self._accused.setdefault(fact.record.node, Accused(now))
        accused.charges[charge.accusation.by] = charge
        self._toggle(fact.mark & ~(2**32 - 1), charge.mark)

    def _condemn(self, fact: Fact, now: Instant) -> None:
        accused = self._accused[fact.record.node]
        self._remove(fact.record.node)
        self._lose(fact, tuple(accused.charges.values()), now)

    def _lose(self, fact: Fact, charges: tuple[Charge, ...], now: Instant) -> None:
        if len(self._lost) >= mesh_limits.LOST_KEPT:
            del self._lost[next(iter(self._lost))]
        self._lost[fact.record.node] = Lost(fact, now, charges)
        self.changed_at = now
        self._gone(fact)

    # --- the table ------------------------------------------------------------------------------
    def _replace(self, fact: Fact) -> bool:
        """Exchange a member's record, if nothing that is counted is another; it is the newest."""
        node = fact.record.node
        held = self._facts.get(node)
        if held is None or fact.record.left or node in self._accused:
            return False
        if (fact.source, fact.topics, fact.names) != (held.source, held.topics, held.names):
            return False
        self._file(fact)
        self._toggle(fact.mark, fact.mark ^ held.mark)
        self._came(fact)
        return True

    def _file(self, fact: Fact) -> None:
        node = fact.record.node
        self._facts[node] = fact
        self._parts[bucket_of(fact.mark)][node] = fact

    def _add(self, fact: Fact) -> None:
        node = fact.record.node
        self._file(fact)
        self._order.append(node)
        self._sources[fact.source] = self._sources.get(fact.source, 0) + 1
        for topic in fact.topics:
            self._topics.setdefault(topic, {})[node] = None
        self._count_names(fact, 1)
        self._toggle(fact.mark, fact.mark)

    def _remove(self, node: NodeId) -> None:
        """Take a member out, with what was said of it."""
        fact = self._facts.pop(node, None)
        if fact is None:
            return
        del self._parts[bucket_of(fact.mark)][node]
        self._order.remove(node)
        self._sources[fact.source] -= 1
        if not self._sources[fact.source]:
            del self._sources[fact.source]
        for topic in fact.topics:
            del self._topics[topic][node]
            if not self._topics[topic]:
                del self._topics[topic]
        self._count_names(fact, -1)
        accused = self._accused.pop(node, None)
        for charge in accused.charges.values() if accused is not None else ():
            self._toggle(fact.mark & ~(2**32 - 1), charge.mark)
        self._toggle(fact.mark, fact.mark)

    def _count_names(self, fact: Fact, step: int) -> None:
        for name in fact.names:
            topics = self._names.setdefault(name, {})
            for topic in fact.topics:
                topics[topic] = topics.get(topic, 0) + step
                if not topics[topic]:
                    del topics[topic]
            if not topics:
                del self._names[name]

    def _toggle(self, place: int, mark: int) -> None:
        self._buckets[bucket_of(place)] ^= mark
        self.root ^= mark

    # --- questions ------------------------------------------------------------------------------
    def providers(self, topic: str) -> dict[NodeId, None]:
        """Who hosts something of a topic."""
        return self._topics.get(topic, {})

    @property
    def topics(self) -> Iterable[str]:
        """Everything that somebody hosts something of."""
        return self._topics

    def topics_of_name(self, name: str) -> tuple[str, ...]:
        """Topics of those who have a profile or model of that name."""
        return tuple(self._names.get(name, ()))

    def sources(self) -> int:
        """How many machines the members name."""
        return len(self._sources)

    def draw(self, chance: Chance) -> Fact:
        """A member at random, so that each machine, not each identity, is as likely. Not empty."""
        fact = self._facts[chance.pick(self._order)]
        for _ in range(DRAWS):
            if chance.below(self._sources[fact.source]) == 0:
                break
            fact = self._facts[chance.pick(self._order)]
        return fact

    # --- comparing ------------------------------------------------------------------------------
    def digest(self) -> bytes:
        """The table in short."""
        return b"".join(bucket.to_bytes(8, "big") for bucket in self._buckets)

    def differing(self, digest: bytes) -> tuple[list[int], list[int]]:
        """Buckets that differ from another table's, and those of them that are empty there."""
        theirs = [int.from_bytes(digest[at : at + 8], "big") for at in range(0, len(digest), 8)]
        theirs += [0] * (mesh_limits.BUCKETS - len(theirs))
        unlike = [n for n, mine in enumerate(self._buckets) if mine != theirs[n]]
        return unlike, [n for n in unlike if not theirs[n]]

    def marked(self, buckets: Iterable[int]) -> Iterator[tuple[int, Fact]]:
        """Marks and records of all in some buckets."""
        for bucket in dict.fromkeys(buckets):
            if bucket < mesh_limits.BUCKETS:
                for node, fact in self._parts[bucket].items():
                    yield self._mark(node, fact), fact

    def _mark(self, node: NodeId, fact: Fact) -> int:
        mark = fact.mark
        accused = self._accused.get(node)
        for charge in accused.charges.values() if accused is not None else ():
            mark ^= charge.mark
        return mark

    def statements(self, node: NodeId) -> tuple[Signed, ...]:
        """All that is held of a member, for who does not know it."""
        lost = self._lost.get(node)
        if lost is not None:
            return (lost.fact.signed, *(charge.signed for charge in lost.charges))
        accused = self._accused.get(node)
        charges = accused.charges.values() if accused is not None else ()
        return (self._facts[node].signed, *(charge.signed for charge in charges))

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken; cheap however many there are."""
        assert len(self._facts) == len(self._order)
        assert len(self._facts) + len(self._lost) <= mesh_limits.MEMBERS + mesh_limits.LOST_KEPT
        assert len(self._lost) <= mesh_limits.LOST_KEPT
        for node, accused in self._accused.items():
            assert node in self._facts, f"{node} is accused, and not here"
            assert 0 < len(accused.charges) < mesh_limits.ACCUSERS, f"{node} should be lost"
