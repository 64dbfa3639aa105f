"""Draws: determined by counter, distributed as the settings say."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from meshslm.engine.sampling import Row, Sampler, best_of_each, ranked
from meshslm.wire.messages import Sampling, TokenBias

SIZE = 6000
logits = arrays(np.float32, 50, elements=st.floats(-20, 20, width=32))


def sampler(size: int = 50, seed: int = 1, choice: int = 0, **settings: object) -> Sampler:
    sampling = Sampling(**settings)  # type: ignore[arg-type]  # any field of it
    return Sampler(sampling, seed, choice, np.zeros(size, np.float32))


def normal_row(seed: int = 0, size: int = SIZE) -> Row:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def reference(
    row: Row, temperature: float, top_k: int, top_p: float, min_p: float
) -> npt.NDArray[np.float64]:
    """The distribution by the book, over everything sorted."""
    weights = np.exp((row.astype(np.float64) - row.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    if top_k:
        order = order[:top_k]
    shares = weights[order] / weights[order].sum()
    if top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(shares), top_p)) + 1]
    order = order[weights[order] >= min_p]
    result = np.zeros(len(row))
    result[order] = weights[order] / weights[order].sum()
    return result


@given(logits, st.integers(0, 2**40))
def test_temperature_zero_takes_the_first_likeliest(row: Row, place: int) -> None:
    assert sampler(temperature=0.0).draw(row, place, None, []) == int(np.argmax(row))


@given(logits, st.integers(0, 1000), st.integers(0, 5), st.floats(0.1, 3))
def test_a_draw_depends_on_seed_choice_and_place_alone(
    row: Row, place: int, choice: int, temperature: float
) -> None:
    used = sampler(choice=choice, temperature=temperature)
    for other in range(5):
        used.draw(row, other, None, [1, 2])
    fresh = sampler(choice=choice, temperature=temperature)
    assert used.draw(row, place, None, []) == fresh.draw(row.copy(), place, None, [])


def test_seed_and_choice_and_place_all_matter() -> None:
    row = np.zeros(SIZE, np.float32)

    def draws(seed: int, choice: int, start: int) -> list[int]:
        one = sampler(SIZE, seed, choice)
        return [one.draw(row, place, None, []) for place in range(start, start + 8)]

    series = [draws(1, 0, 0), draws(2, 0, 0), draws(1, 1, 0), draws(1, 0, 8)]
    assert len({tuple(one) for one in series}) == 4


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.5, 0, 1.0, 0.0),
        (3.0, 0, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.0, 0, 0.5, 0.0),
        (3.0, 0, 0.95, 0.0),
        (1.0, 400, 0.9, 0.0),
        (1.0, 0, 1.0, 0.1),
        (4.0, 0, 1.0, 0.0005),
        (1.0, 0, 0.9, 0.05),
    ],
)
def test_draws_are_distributed_by_the_book(
    temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    row = normal_row()
    one = sampler(SIZE, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = reference(row, temperature, top_k, top_p, min_p)
    count = 4000
    drawn = Counter(one.draw(row, place, None, []) for place in range(count))
    assert all(expected[token] > 0 for token in drawn)
    likeliest = np.argsort(-expected)[:10]
    for token in likeliest:
        share = expected[token]
        spread = math.sqrt(share * (1 - share) / count)
        assert abs(drawn[int(token)] / count - share) <= 5 * spread + 1e-9
    tail = np.setdiff1d(np.flatnonzero(expected), likeliest)
    share = float(expected[tail].sum())
    got = sum(drawn[int(token)] for token in tail) / count
    assert abs(got - share) <= 5 * math.sqrt(share * (1 - share) / count) + 1e-9


@given(logits, st.integers(0, 49))
def test_a_bias_of_100_decides(row: Row, token: int) -> None:
    assert (
        sampler(temperature=0.0, logit_bias=(TokenBias(token, 100.0),)).draw(row, 0, None, [])
        == token
    )


@given(logits)
def test_biases_of_one_token_add_up(row: Row) -> None:
    split = (TokenBias(3, 50.0), TokenBias(3, 50.0))
    assert sampler(temperature=0.0, logit_bias=split).draw(row, 0, None, []) == 3


def test_penalties_lower_what_was_said() -> None:
    row = np.array([2.0, 1.9, -1.0], np.float32)
    prompt = np.array([0])
    assert sampler(3, temperature=0.0, frequency_penalty=0.2).draw(row, 0, prompt, []) == 0
    assert sampler(3, temperature=0.0, frequency_penalty=0.2).draw(row, 0, prompt, [0]) == 1
    assert sampler(3, temperature=0.0, frequency_penalty=0.2).draw(row, 0, prompt, [0, 1, 1]) == 0
    assert sampler(3, temperature=0.0, presence_penalty=0.2).draw(row, 0, prompt, [0, 1, 1]) == 0
    assert sampler(3, temperature=0.0, repeat_penalty=1.2).draw(row, 0, prompt, []) == 1
    assert sampler(3, temperature=0.0, repeat_penalty=1.2).draw(row, 0, None, []) == 0
    assert list(row) == [np.float32(2.0), np.float32(1.9), -1.0], "the logits are not ours"


@given(logits, st.integers(0, 49), st.integers(0, 20))
def test_logprobs_are_those_of_the_softmax(row: Row, token: int, top: int) -> None:
    chosen, likeliest = ranked(row, token, top)
    exact = row.astype(np.float64) - np.logaddexp.reduce(row.astype(np.float64))
    assert chosen.logprob == pytest.approx(exact[token], abs=1e-4)
    assert [entry.token for entry in likeliest] == list(np.lexsort((np.arange(50), -row))[:top])
    for entry in likeliest:
        assert entry.logprob == pytest.approx(exact[entry.token], abs=1e-4)
        assert entry.logprob <= 0


def test_logprobs_of_everything_sum_to_one() -> None:
    row = normal_row(size=200)
    _, everything = ranked(row, 0, 200)
    assert sum(math.exp(entry.logprob) for entry in everything) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits_are_noticed(broken: float) -> None:
    rows = np.zeros((3, 50), np.float32)
    rows[1, 7] = broken
    rows[2, 9] = 1.0
    assert best_of_each(rows) == [0, -1, 9]
    with pytest.raises(FloatingPointError):
        sampler().draw(rows[1], 0, None, [])
