"""Kademlia's lookup: it ends, asks nobody twice, and finds the closest in spite of liars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm import mesh_limits
from meshslm.core.kademlia import Ask, Contact, Lookup, distance

KEY = b"\x12\x20" + bytes(32)
OWN = b"this node"

Answering = Callable[[Ask], tuple[list[Contact], list[Contact]] | None]
"""What a server answers: servers and records; None where it does not."""


def contact(number: int, *, kind: str = "honest") -> Contact:
    name = f"{kind} {number}"
    return Contact(name.encode(), (f"at {name}",))


def run(lookup: Lookup, answering: Answering, chance: Random) -> list[Ask]:
    """Ask until it is over, answers coming in any order; everybody who was asked."""
    asked: list[Ask] = []
    under_way: list[Ask] = []
    answered: set[bytes] = set()
    while not lookup.over:
        lookup.check()
        while (ask := lookup.next()) is not None:
            assert ask not in asked, "no address is dialled twice"
            assert ask.id not in answered, "nobody who has answered is asked again"
            asked.append(ask)
            under_way.append(ask)
        assert 0 < len(under_way) <= mesh_limits.DHT_PARALLEL
        ask = under_way.pop(chance.randrange(len(under_way)))
        found = answering(ask)
        if found is None:
            lookup.failed(ask)
        else:
            answered.add(ask.id)
            lookup.answered(ask, *found)
    assert lookup.next() is None
    assert len(asked) <= mesh_limits.DHT_DIALS
    assert lookup.answers == len(answered)
    lookup.check()
    return asked


class Network:
    """Honest servers, each of which knows some of the others as Kademlia has it."""

    def __init__(self, size: int, chance: Random, down: float = 0.0) -> None:
        self.servers = [contact(number) for number in range(size)]
        self.up = {s.id for s in self.servers if chance.random() >= down}
        self.knows = {s.id: self.table(s, chance) for s in self.servers}

    def table(self, server: Contact, chance: Random) -> list[Contact]:
        """Up to k of every distance's power of two."""
        buckets: dict[int, list[Contact]] = {}
        for other in chance.sample(self.servers, len(self.servers)):
            if other.id != server.id:
                bucket = buckets.setdefault(distance(server.id, other.id).bit_length(), [])
                if len(bucket) < mesh_limits.DHT_CLOSEST:
                    bucket.append(other)
        return [other for bucket in buckets.values() for other in bucket]

    def answers(self, ask: Ask) -> tuple[list[Contact], list[Contact]] | None:
        if ask.id not in self.up:
            return None
        near = sorted(self.knows[ask.id], key=lambda c: distance(KEY, c.id))
        return near[: mesh_limits.DHT_CLOSEST], [contact(1, kind=f"record of {ask.id.decode()}")]

    @property
    def closest(self) -> list[bytes]:
        living = [s.id for s in self.servers if s.id in self.up]
        return sorted(living, key=lambda i: distance(KEY, i))[: mesh_limits.DHT_CLOSEST]


class Liars:
    """They lead to each other, ever closer to the key, and have more records than anybody."""

    def __init__(self) -> None:
        self.numbers = count()
        self.nearest = 2**256
        self.entry = contact(0, kind="liar")

    def answers(self, ask: Ask) -> tuple[list[Contact], list[Contact]]:
        return list(islice(self.invented(), 100)), [contact(n, kind="lie") for n in range(100)]

    def invented(self) -> Iterator[Contact]:
        while True:
            yield contact(next(self.numbers), kind="liar")


@given(st.integers(2, 60), st.integers(1, 4), st.floats(0, 0.4), st.integers())
@settings(max_examples=40)
def test_the_closest_are_found(size: int, seeds: int, down: float, seed: int) -> None:
    chance = Random(seed)
    network = Network(size, chance, down)
    known = [s for s in network.servers if s.id in network.up][:seeds]
    lookup = Lookup(KEY, OWN, known)
    run(lookup, network.answers, chance)
    if known and not down:
        assert [ask.id for ask in lookup.closest()][: len(network.closest)] == network.closest
    assert {ask.id for ask in lookup.closest()} <= network.up


@given(st.integers(2, 60), st.integers(1, 3), st.integers())
@settings(max_examples=12)
def test_liars_use_up_their_own_turns_alone(size: int, liars: int, seed: int) -> None:
    chance = Random(seed)
    network = Network(size, chance)
    lying = Liars()
    entries = [contact(n, kind="liar") for n in range(1000, 1000 + liars)]
    lookup = Lookup(KEY, OWN, [*entries, network.servers[0]])

    def answering(ask: Ask) -> tuple[list[Contact], list[Contact]] | None:
        return lying.answers(ask) if ask.id.startswith(b"liar") else network.answers(ask)

    run(lookup, answering, chance)
    chosen = {ask.id for ask in lookup.closest()}
    share = mesh_limits.DHT_CLOSEST // (liars + 1)
    asked_of_honest = mesh_limits.DHT_DIALS // (liars + 1)
    if size <= asked_of_honest:
        assert set(network.closest[:share]) <= chosen
    handed_on = list(islice(lookup.records(), mesh_limits.DHT_FOUND))
    assert any(record.id.startswith(b"record of honest") for record in handed_on)


@given(st.integers())
@settings(max_examples=20)
def test_whatever_is_answered_it_ends(seed: int) -> None:
    chance = Random(seed)

    def anything(_: Ask) -> tuple[list[Contact], list[Contact]] | None:
        if chance.random() < 0.3:
            return None
        told = [
            Contact(
                chance.choice((OWN, b"", chance.randbytes(2), b"same")),
                tuple(f"at {chance.randrange(20)}" for _ in range(chance.randrange(9))),
            )
            for _ in range(chance.randrange(60))
        ]
        return told, told

    servers = [contact(number) for number in range(chance.randrange(40))]
    asked = run(Lookup(KEY, OWN, servers), anything, chance)
    assert all(ask.id != OWN for ask in asked)


def test_no_server_is_no_search() -> None:
    lookup = Lookup(KEY, OWN, [])
    assert lookup.over
    assert lookup.next() is None
    assert (lookup.closest(), list(lookup.records())) == ([], [])


def test_a_server_is_tried_at_each_of_its_addresses_once() -> None:
    server = Contact(b"s", ("one", "two", "two", "three", "four", "five"))
    lookup = Lookup(KEY, OWN, [server])
    asked = run(lookup, lambda _: None, Random(1))
    assert [ask.address for ask in asked] == ["one", "two", "three", "four"]


def test_a_path_that_comes_later_leads_on_to_what_was_told_before() -> None:
    """A liar that is first to lead to an honest server does not keep it from the honest path."""
    honest, far, liar, seed = (contact(n) for n in range(4))
    told = {liar.id: [honest], honest.id: [far], seed.id: [honest], far.id: []}
    lookup = Lookup(KEY, OWN, [liar, seed])
    order: list[bytes] = []
    while not lookup.over:
        asks = []
        while (ask := lookup.next()) is not None:
            asks.append(ask)
        for ask in sorted(asks, key=lambda a: a.id != liar.id):
            order.append(ask.id)
            lookup.answered(ask, told[ask.id], [])
    assert sorted(order) == sorted(told)
    assert {ask.id for ask in lookup.closest()} == set(told)
