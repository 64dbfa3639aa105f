"""Which entries of memory fit a query, and a budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.memory import Found
from meshslm.core.recall import (
    INTRODUCTION,
    Note,
    by_meaning,
    by_words,
    cosine,
    fitting,
    joined,
    tokens_of,
    told,
)
from meshslm.ids import NodeId


def note(key: str, text: str) -> Note:
    return Note(Found(key, b"", 1, 0, 0, NodeId("n")), text)


NOTES = [
    note("release", "The release is cut on Thursdays by the build team."),
    note("coffee", "The coffee machine on floor two is broken."),
    note("deploy", "Deploys go out after the release, never on a Friday."),
    note("straße", "Die Straße ist gesperrt."),
]


def test_shared_words_decide_and_rare_ones_more() -> None:
    assert by_words("Release cut", NOTES) == [0]
    assert by_words("release", NOTES) == [0, 2]
    assert by_words("STRASSE gesperrt?", NOTES) == [3]
    assert by_words("xylophone", NOTES) == []
    assert by_words("", NOTES) == []
    assert by_words("release", []) == []


def test_meanings_that_are_near_count_and_others_do_not() -> None:
    assert by_meaning([1.0, 0.0], [[0.0, 1.0], [0.9, 0.1], None, [1.0, 0.0]]) == [3, 1]
    assert cosine([0.0, 0.0], [1.0, 0.0]) == 0.0
    assert cosine([1.0], [1.0, 0.0]) == 0.0


def test_who_is_high_in_both_orders_comes_first() -> None:
    assert joined([[0, 1, 2], [1, 3]]) == [1, 0, 3, 2]
    assert joined([]) == []


@given(
    st.lists(st.text(max_size=200), max_size=12),
    st.integers(16, 400),
    st.randoms(use_true_random=False),
)
def test_a_budget_is_kept_and_the_best_comes_first(
    texts: list[str], budget: int, chance: object
) -> None:
    notes = [note(f"k{number}", text) for number, text in enumerate(texts)]
    order = list(range(len(notes)))
    chance.shuffle(order)  # type: ignore[attr-defined]  # hypothesis' own kind of Random
    chosen = fitting(notes, order, budget)
    places = [order.index(notes.index(one)) for one in chosen]
    assert places == sorted(places)
    if chosen:
        assert tokens_of(told(chosen)) <= budget + len(chosen) + 1  # each line is rounded up
    else:
        assert told(chosen) == INTRODUCTION
