"""Guessing the next tokens from what was said before, and whether guesses pay.

Answers repeat their prompts: names, code, quotations. Where the last tokens have occurred before,
what followed them then is computed along with the next token; as many guesses count as the model
itself would have chosen, so that the answer is the same with and without.

Rules:
- Pure; times are handed in.
- Only for a sequence that generates alone: beside others the rows of guesses cost what the rows of
  those would.
- A guess is never a token that cannot be afforded: whoever asks says how many it may be.

Prompt lookup: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

GUESSES: Final = 7
"""Tokens guessed at once: with the row of the certain one, a call of eight."""
GRAMS: Final = (4, 3)
"""Tokens that must have occurred before; more first. Two alone are mostly chance."""
FIRST: Final = 2
"""Tokens guessed at first, and more than were right the last time: a row of a guess costs about a
third of a step of one row (135M model, 200 tokens before it)."""
TRIALS: Final = 4
"""Guessed steps after which it is judged whether they pay."""
PAUSE: Final = 96
PAUSE_MOST: Final = 768
"""Plain steps before guesses that did not pay are tried again; doubles each time that they do not,
so that trying costs one part in a hundred at most."""
_SMOOTHING: Final = 0.2


class Lookup:
    """Where the tokens of one sequence have occurred before."""

    __slots__ = ("_after", "_tokens")

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Tokens that follow."""
        known = self._tokens
        for token in tokens:
            place = len(known)
            for size in GRAMS:
                if place >= size:
                    self._after[tuple(known[place - size :])] = place
            known.append(token)

    def guess(self, most: int) -> list[int]:
        """What may come next; empty where nothing like it was there before."""
        for size in GRAMS:
            place = self._after.get(tuple(self._tokens[-size:]))
            if place is not None:
                return self._tokens[place : place + min(most, GUESSES)]
        return []


class Payoff:
    """Whether guessing gives more tokens a second than not guessing."""

    def __init__(self) -> None:
        self._plain_s = 0.0
        self._guessed_s = 0.0
        self._gained = 0.0
        self._trials = 0
        self._pause = 0
        self._next_pause = PAUSE
        self.most = FIRST
        """Tokens to guess at once."""
        self.guessed = 0
        """Tokens that were guessed."""
        self.accepted = 0
        """Those of them that were right."""

    @property
    def worthwhile(self) -> bool:
        """Guess now, if there is something to guess."""
        return self._pause == 0

    def plain(self, seconds: float) -> None:
        """A step of one row took so long."""
        self._plain_s = _smooth(self._plain_s, seconds)
        self.passed()

    def passed(self) -> None:
        """A step was computed without guesses of this kind."""
        self._pause = max(0, self._pause - 1)

    def guesses(self, seconds: float, guessed: int, accepted: int) -> None:
        """A step with guesses took so long; so many of them were right."""
        self.guessed += guessed
        self.accepted += accepted
        self.most = min(GUESSES, accepted + FIRST)
        self._guessed_s = _smooth(self._guessed_s, seconds)
        self._gained = _smooth(self._gained, 1.0 + accepted)
        self._trials += 1
        if self._trials < TRIALS or not self._plain_s:
            return
        if self._gained / self._guessed_s < 1.0 / self._plain_s:
            self._pause, self._trials = self._next_pause, 0
            self._next_pause = min(2 * self._next_pause, PAUSE_MOST)
            self._guessed_s = self._gained = 0.0
        else:
            self._next_pause = PAUSE


def _smooth(old: float, new: float) -> float:
    return new if old == 0.0 else old + _SMOOTHING * (new - old)
