"""What the slots hold: the tree's invariants, and who is given up first."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.prefix_cache import DIGEST_BYTES, TILE, PrefixCache, tile_names

SLOTS = 4

prompts = st.lists(st.integers(0, 2), max_size=5).map(
    lambda tiles: tile_names("", [token for tile in tiles for token in [tile] * TILE])
)
changes = st.lists(
    st.one_of(
        st.tuples(st.integers(0, SLOTS - 1), prompts),
        st.tuples(st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1)),
    ),
    max_size=20,
)


def common(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    """Tiles at the beginning that both have."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


@given(changes, prompts)
def test_the_longest_beginning_is_found(changes: list[Any], wanted: tuple[bytes, ...]) -> None:
    cache = PrefixCache(SLOTS)
    for slot, what in changes:
        if isinstance(what, tuple):
            cache.hold(slot, what)
        elif what != slot:
            cache.move(slot, what)
        cache.check()
    best = max(common(cache.held(slot), wanted) for slot in range(SLOTS))
    slot, count = cache.match(wanted)
    assert count == best
    assert (slot == -1) if not best else common(cache.held(slot), wanted) == best


def test_names_tell_groups_places_and_tokens_apart() -> None:
    tokens = list(range(200))
    names = tile_names("", tokens)
    assert len(names) == 3
    assert tile_names("", tokens[:128]) == names[:2]
    assert not set(names) & set(tile_names("a", tokens))
    assert not set(names) & set(tile_names("", [1, *tokens]))
    assert tile_names("", tokens[: TILE - 1]) == ()


def test_copies_go_first_then_what_was_not_used_for_long() -> None:
    cache = PrefixCache(3)
    one, two = tile_names("", [1] * 128), tile_names("", [2] * 64)
    cache.hold(0, one)
    cache.hold(1, two)
    cache.hold(2, one[:1])
    assert cache.oldest(range(3)) == 2
    assert cache.oldest([0, 1]) == 0
    cache.touch(0)
    assert cache.oldest([0, 1]) == 1
    assert cache.recent() == [0, 1]


def test_the_digest_is_bounded_and_the_last_used_come_first() -> None:
    cache = PrefixCache(3)
    names = [tile_names("", [slot] * 64) for slot in range(3)]
    for slot in range(3):
        cache.hold(slot, names[slot])
    assert cache.digest(9) == names[2][0][:DIGEST_BYTES] + names[1][0][:DIGEST_BYTES]
    assert len(cache.digest(1000)) == 3 * DIGEST_BYTES
