"""Chance that is handed in, so that a seed decides a whole run.

Decisions never ask the operating system for randomness: production seeds one `Chance` per boot,
the simulator one per node, and both then take the same branches from the same draws.

Rules:
- `fork` gives an independent stream by name, so that one more draw in one machine does not shift
  the draws of another.
- Nothing secret is ever made here; keys come from the key ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

from meshslm.ids import TaskId

T = TypeVar("T")


class Chance:
    """A seeded stream of draws."""

    __slots__ = ("_random", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._random = Random(int.from_bytes(blake2b(seed, digest_size=16).digest(), "big"))

    @classmethod
    def from_int(cls, seed: int) -> Chance:
        """A stream from a number a person can type."""
        return cls(b"int:%d" % seed)

    def fork(self, name: str) -> Chance:
        """An independent stream; the same name always gives the same one."""
        return Chance(blake2b(self._seed + b"/" + name.encode(), digest_size=16).digest())

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return self._random.random()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self._random.random()

    def below(self, bound: int) -> int:
        """A whole number in [0, bound)."""
        return self._random.randrange(bound)

    def pick(self, items: Sequence[T]) -> T:
        """One of `items`, which must not be empty."""
        return items[self._random.randrange(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list of `items` in a drawn order."""
        drawn = list(items)
        self._random.shuffle(drawn)
        return drawn

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different ones of `items`, which must be at least as many, in a drawn order."""
        return self._random.sample(items, count)

    def normal(self, mean: float, deviation: float) -> float:
        """Normally distributed."""
        return self._random.gauss(mean, deviation)

    def task_id(self) -> TaskId:
        """A fresh 128-bit task id in hex."""
        return TaskId(f"{self._random.getrandbits(128):032x}")
