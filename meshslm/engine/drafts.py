"""A small model that guesses what a larger one of the same vocabulary will say.

Rules:
- It only proposes: what it says is drawn from the large model's own logits before it counts, so
  nothing of an answer depends on it, not even on whether it computes right.
- It holds one sequence. What that has in common with the next one is not computed again, and what
  the large model did not take is forgotten; so its memory is one context, whatever comes.
- It catches up with a long prompt in pieces, one between two steps of the large model.
- It supposes with the run's own random numbers: where both models see things alike, the same number
  chooses the same token, so drawn answers are guessed nearly as well as greedy ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from meshslm.engine.llama import DecodeFailed, Model
from meshslm.engine.runs import Run
from meshslm.errors import OurFault

log = logging.getLogger("meshslm.engine.drafts")

CATCH_UP: Final = 64
"""Rows of a prompt that it computes between two steps; a tile, as for others' prompts."""


class Drafter:
    """A draft model with what it has computed."""

    def __init__(self, model: Model, context: int) -> None:
        """`context`: tokens that its sequence has room for.

        Raises `OurFault` for a model that cannot forget what was not taken.
        """
        if not model.forgets_ends:
            raise OurFault("it is of a kind that cannot forget its last tokens")
        self._model = model
        self._context = min(context, model.trained_context or context)
        self._computed: list[int] = []
        self._broken = False

    def guess(self, run: Run, number: int, most: int, threads: int) -> list[int]:
        """What a choice may go on with; empty where it has to catch up first, or cannot."""
        choice = run.choices[number]
        known = [*run.prompt, *choice.tokens]
        most = min(most, run.most - len(choice.tokens) - 1, self._context - len(known) + 1)
        if self._broken or most < 1:
            return []
        self._model.set_threads(threads)
        try:
            return self._guess(run, number, known, most)
        except (DecodeFailed, FloatingPointError) as fault:
            log.warning("the draft model is not asked any more: %s", fault)
            self._broken = True
            return []

    def _guess(self, run: Run, number: int, known: Sequence[int], most: int) -> list[int]:
        same = min(_in_common(self._computed, known), len(known) - 1)
        del self._computed[same:]
        self._model.keep(0, same)
        rows = list(known[same:])
        if len(rows) > CATCH_UP:
            self._compute(rows[:CATCH_UP], wanted=False)
            return []
        guesses: list[int] = []
        while len(guesses) < most:
            self._compute(rows, wanted=True)
            row = self._model.logits(1)[0]
            guesses.append(run.suppose(number, row, guesses))
            rows = guesses[-1:]
        return guesses

    def _compute(self, rows: Sequence[int], *, wanted: bool) -> None:
        self._model.begin()
        self._model.add(0, len(self._computed), rows, wanted=wanted)
        self._model.compute()
        self._computed += rows


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are the same; by halves, which compare quickly."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
