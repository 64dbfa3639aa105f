"""Choosing the next token from the logits.

Order: bias, penalties, temperature, top-k, top-p, min-p, as vLLM has it.

Rules:
- Each draw is a function of (seed, choice, position) and the logits, never of a running state, so
  that a run that is resumed elsewhere, or computed in other company, draws the same.
- Temperature 0 takes the likeliest token; of equals the first.
- Log-probabilities are of the model's own distribution, before bias and temperature.
- Repetition penalty looks at prompt and answer, the other two at the answer alone, as vLLM does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from meshslm.wire.messages import Sampling

Row = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

LIKELIEST: Final = (256, 4096)
"""So many tokens are looked at first; nearly always the first number is enough. Sorting the whole
vocabulary takes milliseconds, finding the likeliest 0.05 ms."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A token and its log-probability."""

    token: int
    logprob: float


class Sampler:
    """Draws the tokens of one choice."""

    __slots__ = (
        "_bias_tokens",
        "_bias_values",
        "_frequency",
        "_key",
        "_min_p",
        "_presence",
        "_repeat",
        "_scratch",
        "_temperature",
        "_top_k",
        "_top_p",
        "changes",
        "greedy",
    )

    def __init__(self, sampling: Sampling, seed: int, choice: int, scratch: Row) -> None:
        """`scratch` has room for one row and is overwritten by each draw; samplers may share it."""
        self._scratch = scratch
        self._temperature = 1.0 if sampling.temperature is None else sampling.temperature
        self._top_p = 1.0 if sampling.top_p is None else sampling.top_p
        self._top_k = sampling.top_k or 0
        self._min_p = sampling.min_p or 0.0
        self._repeat = sampling.repeat_penalty or 1.0
        self._frequency = sampling.frequency_penalty or 0.0
        self._presence = sampling.presence_penalty or 0.0
        self._bias_tokens = np.array([bias.token for bias in sampling.logit_bias], dtype=np.int64)
        self._bias_values = np.array([bias.bias for bias in sampling.logit_bias], dtype=np.float32)
        self._key = blake2b(f"{seed}/{choice}".encode(), digest_size=16).digest()
        self.greedy = self._temperature <= 0.0 or self._top_k == 1
        self.changes = bool(
            sampling.logit_bias
            or self._repeat != 1.0
            or self._frequency != 0.0
            or self._presence != 0.0
        )
        """Logits are changed before the choice, so a batch-wide maximum does not serve."""

    def draw(
        self,
        row: Row,
        position: int,
        prompt: Tokens | None,
        made: Sequence[int],
        allowed: Tokens | None = None,
    ) -> int:
        """The token at `position`, from its logits.

        `prompt` holds the prompt's tokens, each once; `made` the answer's so far; `allowed`, in
        order, those that the answer's form leaves, before anything is cut off. Raises
        `FloatingPointError` where the logits are not finite.
        """
        if self.changes:
            row = self._changed(row, prompt, made)
        if allowed is None:
            return self._draw(row, position)
        return int(allowed[self._draw(row[allowed], position)])

    def _draw(self, row: Row, position: int) -> int:
        best = int(row.argmax())
        top = row[best]
        if not math.isfinite(top):
            raise FloatingPointError("the model computed logits that are not finite")
        if self.greedy:
            return best
        uniform = self._uniform(position)
        if self._top_k:
            tokens = _largest(row, min(self._top_k, len(row)))
            weights = np.exp((row[tokens] - top) * np.float32(1.0 / self._temperature))
            place = self._place(weights, 0.0, uniform, last=True)
            assert place is not None
            return int(tokens[place])
        weights = np.subtract(row, top, out=self._scratch[: len(row)])
        weights *= np.float32(1.0 / self._temperature)
        return self._pick(np.exp(weights, out=weights), uniform)

    def _pick(self, weights: Row, uniform: float) -> int:
        """Draw from `weights`, of which the largest is 1."""
        total = float(weights.sum())
        everything = len(weights)
        for size in (*LIKELIEST, everything):
            tokens = _largest(weights, min(size, everything))
            place = self._place(weights[tokens], total, uniform, last=size >= everything)
            if place is not None:
                return int(tokens[place])
        raise AssertionError("the last pass always draws")

    def _place(self, weights: Row, total: float, uniform: float, *, last: bool) -> int | None:
        """Draw among the likeliest, sorted; None where more must be seen to know."""
        sums = np.cumsum(weights, dtype=np.float64)
        kept, limit = self._cut(weights, sums, total, last=last)
        place = int(np.searchsorted(sums[:kept], uniform * limit, side="right"))
        if place < kept:
            return place
        return kept - 1 if last else None

    def _cut(
        self, sorted_weights: Row, sums: npt.NDArray[np.float64], total: float, *, last: bool
    ) -> tuple[int, float]:
        """How many of the likeliest are drawn from, and their weight: 0 where more must be seen."""
        mass = float(sums[-1]) if last else total
        kept, limit = len(sums), mass
        if self._top_p < 1.0:
            kept = int(np.searchsorted(sums, self._top_p * mass)) + 1
            if kept > len(sums):
                if not last:
                    return 0, 0.0
                kept = len(sums)
            limit = float(sums[kept - 1])
        if self._min_p > 0.0:
            if not last and kept == len(sums) and sorted_weights[-1] >= self._min_p:
                return 0, 0.0
            kept = max(1, int(np.count_nonzero(sorted_weights[:kept] >= self._min_p)))
            limit = float(sums[kept - 1])
        return kept, limit

    def _uniform(self, position: int) -> float:
        """In [0, 1), by counter."""
        digest = blake2b(position.to_bytes(8, "big"), key=self._key, digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) * 2.0**-53

    def _changed(self, row: Row, prompt: Tokens | None, made: Sequence[int]) -> Row:
        row = row.copy()
        if len(self._bias_tokens):
            np.add.at(row, self._bias_tokens, self._bias_values)
        if self._repeat == 1.0 and self._frequency == 0.0 and self._presence == 0.0:
            return row
        answer, counts = np.unique(np.asarray(made, dtype=np.int64), return_counts=True)
        if self._repeat != 1.0:
            seen = answer if prompt is None else np.union1d(prompt, answer).astype(np.int64)
            values = row[seen]
            row[seen] = np.where(values > 0, values / self._repeat, values * self._repeat)
        if len(answer):
            row[answer] -= (self._frequency * counts + self._presence).astype(np.float32)
        return row


def _largest(row: Row, count: int) -> npt.NDArray[np.intp]:
    """Places of the `count` largest, largest first, of equals the first."""
    size = len(row)
    if count >= size:
        return np.argsort(-row, kind="stable")
    least = np.partition(row, size - count)[size - count]
    above = np.flatnonzero(row > least)
    places = np.concatenate((above, np.flatnonzero(row == least)[: count - len(above)]))
    return places[np.argsort(-row[places], kind="stable")]


def best_of_each(rows: Row) -> list[int]:
    """The likeliest token of each row, -1 where the logits are not finite."""
    best = rows.argmax(axis=1).tolist()
    return [
        token if math.isfinite(row[token]) else -1 for row, token in zip(rows, best, strict=True)
    ]


def ranked(row: Row, token: int, top: int) -> tuple[Ranked, tuple[Ranked, ...]]:
    """The log-probability of `token`, and the `top` likeliest with theirs, likeliest first."""
    high = row.max()
    norm = float(high) + math.log(float(np.exp(row - high).sum(dtype=np.float64)))
    likeliest: tuple[Ranked, ...] = ()
    if top:
        likeliest = tuple(
            Ranked(int(place), min(0.0, float(row[place]) - norm)) for place in _largest(row, top)
        )
    return Ranked(token, min(0.0, float(row[token]) - norm)), likeliest
