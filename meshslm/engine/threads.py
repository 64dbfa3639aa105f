"""How many threads to compute with, learned from how long steps take. Pure.

Threads meet at barriers many times a token, so one thread that has lost its core stalls all: with
one busy neighbour on two cores, two threads were measured 5 to 30 times slower than one, and with
free cores 1.2 to 1.5 times faster. What is best cannot be told from the load alone, so now and then
a few steps are tried with one thread more or less, and the faster number is kept.

Rules:
- Steps are compared with steps of the same size, moments before: the machine's state is the same.
- A trial ends with the first step that shows it to be bad, and the next of its kind waits twice as
  long; a step that is suddenly slow asks for a trial at once.
- The load of others says in which direction a trial is worth its cost, never what is better.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

SAMPLES: Final = 6
"""Steps that a comparison needs of each side."""
KEPT: Final = 32
"""Steps that it looks at, at most."""
LONG_ENOUGH_S: Final = 0.15
"""Time that a trial takes at least: a step may be lucky, and slow ones come in between."""
FRESH_S: Final = 4.0
"""Older steps say nothing of the machine as it is."""
USUAL_S: Final = 0.5
"""So long a limit for what is usual holds without a new look."""
GAIN: Final = 0.95
"""A trial must take less than this part of the time: below it is noise."""
LOSS: Final = 6.0
"""A trial ends when it has cost so many steps' time more than none."""
GOOD: Final = 0.6
"""A trial that takes so much less is decided at once."""
TRIAL_S: Final = 2.0
"""Longest trial."""
SUDDEN: Final = 1.5
"""Steps this much slower than those before ask for a trial of fewer threads."""
DRASTIC: Final = 4.0
"""Steps this much slower need no confirmation."""
WAIT_S: Final = 0.5
WAIT_MOST_S: Final = 16.0
"""First and longest time until a direction that did not pay is tried again; doubles. Where a trial
costs ten steps' time, 16 s keep it below one per cent."""
WAIT_FEWER_S: Final = 4.0
"""The same for fewer threads: such a trial costs little, and too many threads may cost much."""
AGAINST_LOAD: Final = 2.0
"""Waits are this much longer for more threads than others leave room for."""


@dataclass(slots=True)
class _Direction:
    """Trials with more threads, or with fewer."""

    most_s: float
    wait_s: float = WAIT_S
    due: float = 0.0

    def failed(self, now: float) -> None:
        self.due = now + self.wait_s
        self.wait_s = min(2 * self.wait_s, self.most_s)

    def reset(self, now: float) -> None:
        self.wait_s, self.due = WAIT_S, now + WAIT_S


class Climb:
    """The number of threads; `choose` before each step, `learn` after it."""

    def __init__(self, most: int, start: int) -> None:
        """From 1 to `most`, beginning with `start`."""
        self._most = most
        self.threads = start
        """The number that is kept until a trial shows a better one."""
        self._room = most
        self._trial: int | None = None
        self._bucket = 0
        """Size of the steps that the trial compares."""
        self._begun = 0.0
        self._reference = 0.0
        self._tried: list[float] = []
        self._recent: dict[int, deque[tuple[float, float]]] = {}
        """Size of a step -> when the last ones with `threads` were, and how long they took."""
        self._more = _Direction(WAIT_MOST_S)
        self._fewer = _Direction(WAIT_FEWER_S)
        self._slow: dict[int, list[tuple[float, float]]] = {}
        """Steps slower than all before them, until the next one tells whether that stays."""
        self._usual: dict[int, tuple[float, float]] = {}
        """Until when steps that cost up to so much are like those before them: to look through all
        of these takes 0.05 ms, for which each token of a lone stream would wait."""

    def room(self, threads: int, now: float) -> None:
        """How many threads others leave cores for, by the system's word."""
        if threads > self._room:
            self._more.reset(now - WAIT_S)
        elif threads < self._room:
            self._fewer.reset(now - WAIT_S)
        self._room = threads

    def start(self, threads: int) -> None:
        """Begin anew, after a time without work."""
        self.threads = self._room = threads
        self._trial = None
        self._recent.clear()
        self._slow.clear()
        self._usual.clear()

    def choose(self, rows: int, now: float) -> int:
        """Threads for a step of so many rows."""
        bucket = _bucket(rows)
        if self._trial is not None and now - self._begun > TRIAL_S:
            self._trial = None  # steps of this size come no more
        if self._trial is not None:
            return self._trial if bucket == self._bucket else self.threads
        wanted = self._wanted(now)
        if wanted is None:
            return self.threads
        reference = self._typical(bucket, now)
        if reference is None:
            return self.threads
        self._trial, self._bucket, self._begun = wanted, bucket, now
        self._reference, self._tried = reference, []
        return wanted

    def learn(self, rows: int, threads: int, seconds: float, now: float) -> None:
        """A step of so many rows took so long."""
        bucket = _bucket(rows)
        cost = seconds / rows
        if self._trial is not None:
            if threads == self._trial and bucket == self._bucket:
                self._judge(cost, now)
            return
        if threads != self.threads:
            return
        until, most = self._usual.get(bucket, (0.0, 0.0))
        if cost <= most and now <= until:
            self._recent[bucket].append((now, cost))
            return
        recent = self._recent.setdefault(bucket, deque(maxlen=KEPT))
        costs = [held for at, held in recent if now - at <= FRESH_S]
        most = max(SUDDEN * median(costs), *costs) if len(costs) >= SAMPLES else math.inf
        if cost <= most:
            recent.extend([*self._slow.pop(bucket, ()), (now, cost)])
            if most < math.inf:
                self._usual[bucket] = (now + USUAL_S, most)
            return
        self._usual.clear()
        slow = self._slow.setdefault(bucket, [])
        slow.append((now, cost))
        if len(slow) == 2:  # one alone may be anything
            self._fewer.due = now
            # What was before holds no more; as many again are waited for unless it is drastic.
            drastic = cost > DRASTIC * median(costs)
            self._recent = {bucket: deque(slow * (SAMPLES if drastic else 1), maxlen=KEPT)}
            self._slow.clear()

    # --- trials -----------------------------------------------------------------------------------
    def _wanted(self, now: float) -> int | None:
        """The number to try now; None for no trial."""
        crowded = self.threads > self._room
        directions = ((self.threads - 1, self._fewer), (self.threads + 1, self._more))
        for threads, direction in directions if crowded else directions[::-1]:
            if not 1 <= threads <= self._most:
                continue
            extra = (AGAINST_LOAD - 1) * direction.wait_s if threads > self._room else 0.0
            if now >= direction.due + extra:
                return threads
        return None

    def _typical(self, bucket: int, now: float) -> float | None:
        """Seconds a row of recent steps of this size; None where there were too few."""
        costs = [cost for at, cost in self._recent.get(bucket, ()) if now - at <= FRESH_S]
        return fmean(costs) if len(costs) >= SAMPLES else None

    def _judge(self, cost: float, now: float) -> None:
        assert self._trial is not None
        self._tried.append(cost)
        # The first step with another number wakes or parks threads.
        settled = self._tried[1:]
        if sum(self._tried) - len(self._tried) * self._reference > LOSS * self._reference:
            self._end_trial(now, better=False)
        elif len(settled) >= SAMPLES:
            mean = fmean(settled)
            if now - self._begun >= LONG_ENOUGH_S or mean < GOOD * self._reference:
                self._end_trial(now, better=mean < GAIN * self._reference)

    def _end_trial(self, now: float, *, better: bool) -> None:
        trial, self._trial = self._trial, None
        assert trial is not None
        up = trial > self.threads
        same, back = (self._more, self._fewer) if up else (self._fewer, self._more)
        if better:
            self.threads = trial
            self._recent = {self._bucket: deque([(now, c) for c in self._tried[1:]], maxlen=KEPT)}
            self._usual.clear()
            same.due = now
            back.failed(now)
        else:
            same.failed(now)


def _bucket(rows: int) -> int:
    """Steps of one class cost about the same a row: exact for small ones, by powers of 2 above."""
    return rows if rows <= 16 else 16 + rows.bit_length()
