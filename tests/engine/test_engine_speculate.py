"""Guesses come from what was said before, and stop where they do not pay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.speculate import (
    FIRST,
    GRAMS,
    GUESSES,
    PAUSE,
    PAUSE_MOST,
    TRIALS,
    Lookup,
    Payoff,
)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60), st.integers(1, 10))
def test_a_guess_followed_the_same_tokens_before(tokens: list[int], cut: int, most: int) -> None:
    lookup = Lookup(tokens[:cut])
    lookup.extend(tokens[cut:])
    guess = lookup.guess(most)
    assert len(guess) <= min(most, GUESSES)
    seen = any(
        tokens[place - size : place] == tokens[-size:]
        for size in GRAMS
        for place in range(size, len(tokens))
    )
    assert bool(guess) == seen
    if guess:
        assert any(
            tokens[place - min(GRAMS) : place] == tokens[-min(GRAMS) :]
            and tokens[place : place + len(guess)] == guess
            for place in range(min(GRAMS), len(tokens))
        )


def test_the_latest_occurrence_counts() -> None:
    assert Lookup([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).guess(2) == [5, 1]


def test_guesses_that_are_right_go_on() -> None:
    payoff = Payoff()
    payoff.plain(0.010)
    for _ in range(100):
        assert payoff.worthwhile
        payoff.guesses(0.020, 4, 3)
    assert (payoff.guessed, payoff.accepted) == (400, 300)


def test_guesses_that_cost_more_than_they_give_pause_and_are_tried_again() -> None:
    payoff = Payoff()
    payoff.plain(0.010)
    for pause in (PAUSE, 2 * PAUSE, 4 * PAUSE, PAUSE_MOST, PAUSE_MOST):
        for _ in range(TRIALS):
            assert payoff.worthwhile
            payoff.guesses(0.030, 2, 1)
        for _ in range(pause):
            assert not payoff.worthwhile
            payoff.plain(0.010)
    assert payoff.worthwhile


def test_more_is_guessed_while_all_is_right() -> None:
    payoff = Payoff()
    seen = []
    for accepted in (2, 4, 6, 7, 0, 0):
        payoff.guesses(0.010, payoff.most, accepted)
        seen.append(payoff.most)
    assert seen == [4, 6, GUESSES, GUESSES, FIRST, FIRST]


def test_nothing_is_judged_before_a_plain_step_is_known() -> None:
    payoff = Payoff()
    for _ in range(2 * TRIALS):
        payoff.guesses(1.0, 7, 0)
    assert payoff.worthwhile
