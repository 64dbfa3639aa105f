"""Who guesses the next tokens of a sequence that generates alone, and whether it may.

Rules:
- What was said before is looked up first: that costs nothing. A draft model is asked where nothing
  was found, or where looking up does not pay.
- Each of the two is judged by its own measured payoff, against steps without guesses. Where a draft
  always has something to say, such a step is put in now and then, to have something to judge by.
- What a draft model spends on catching up with a prompt is charged to the guesses that come of it.
"""

from __future__ import annotations

import time
from typing import Final

from meshslm.engine.drafts import Drafter
from meshslm.engine.runs import Run
from meshslm.engine.speculate import Payoff

BASELINE: Final = 3
"""Plain steps before a draft model is asked for the first time."""
REFRESH: Final = 32
"""Steps with guesses between two plain ones: it costs a thirtieth of the gain."""
SPREAD: Final = 1 / 32
"""Of the time spent on catching up, what each step with guesses is charged."""


class Guesser:
    """Guesses, and learns from what became of them."""

    def __init__(self, drafter: Drafter | None = None) -> None:
        self.enabled = True
        """Whether anything is guessed at all."""
        self.lookup = Payoff()
        self.draft = Payoff()
        self._drafter = drafter
        self._source: Payoff | None = None
        self._aside_s = 0.0
        """Spent on catching up, before the present step."""
        self._owed_s = 0.0
        self._plain = 0
        self._since_plain = 0

    def guess(self, run: Run, number: int, threads: int) -> list[int]:
        """Tokens that may come next; empty where nothing is to be guessed now."""
        self._source, self._aside_s = None, 0.0
        if not self.enabled:
            return []
        if self.lookup.worthwhile:
            found = run.guess(number, self.lookup.most)
            if found:
                self._source = self.lookup
                return found
        due = self._plain < BASELINE or self._since_plain >= REFRESH
        if self._drafter is None or due or not self.draft.worthwhile:
            return []
        began = time.monotonic()
        found = self._drafter.guess(run, number, self.draft.most, threads)
        if found:
            self._source = self.draft
        else:
            self._aside_s = time.monotonic() - began
            self._owed_s += self._aside_s
        return found

    def learn(self, seconds: float, guessed: int, accepted: int) -> None:
        """The step that followed took so long, guessing included; so many guesses were right."""
        if self._source is None:
            self._plain += 1
            self._since_plain = 0
            for payoff in (self.lookup, self.draft):
                payoff.plain(seconds - self._aside_s)
            return
        self._since_plain += 1
        if self._source is self.draft:
            charge = self._owed_s * SPREAD
            self._owed_s -= charge
            self.draft.guesses(seconds + charge, guessed, accepted)
            self.lookup.passed()
        else:
            self.lookup.guesses(seconds, guessed, accepted)
            self.draft.passed()
