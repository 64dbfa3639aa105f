"""What a scheduler is asked for and what it answers: jobs, and the steps that compute them.

Rules:
- What is made anew for every step is a struct of msgspec's: it takes a fifth of the time that a
  frozen dataclass takes, and each token of a lone stream waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from meshslm.engine.prefix_cache import TILE, Tiles

FILL_PLACE: Final = 128
"""Where in a sequence a row takes the kernel for few rows twice as long as its own products do;
with the tiled kernel that is nowhere near (measured: 5.8 and 2.9 ms there, 35 and 5 at 1,500)."""


def filled_rows(prompt: int) -> int:
    """Rows to add to the rest of a prompt, so that it is computed as a tile; by its length alone.

    A tile of any fill costs as much as `TILE` rows near the beginning.
    """
    rest = prompt % TILE
    costs = rest * (FILL_PLACE + prompt - rest)
    return TILE - rest if costs > TILE * FILL_PLACE else 0


@dataclass(frozen=True, slots=True)
class Shape:
    """What the engine has room for."""

    slots: int
    """Sequences at a time."""
    context: int
    """Tokens of one sequence."""
    batch: int = 512
    """Rows of one call."""
    fills: bool = True
    """Sequences can forget their end, so that rows may be added and taken back."""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.context < 1 or self.batch < TILE:
            raise ValueError(f"impossible shape {self}")


@dataclass(frozen=True, slots=True)
class Job:
    """A run to schedule, in numbers of tokens."""

    run: int
    prompt: int
    most: int
    """Tokens to generate for each choice, at most."""
    choices: int = 1
    resumed: tuple[tuple[int, int], ...] = ()
    """Of an answer that goes on: the choices that have not ended, and how many tokens of each are
    already there and only have to be computed again."""
    group: str = ""
    """Which runs it may share a step with: those of the same adapter."""
    tiles: Tiles = ()
    """Names of the prompt's whole tiles; none where nothing of it may be taken over."""
    tenant: str = ""
    background: bool = False
    """Gives way to others."""


class Sample(msgspec.Struct, frozen=True, gc=False):
    """A token is to be drawn for one choice."""

    choice: int
    slot: int


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Rows of one sequence: its tokens `start` to `start + count`."""

    run: int
    choice: int
    slot: int
    start: int
    count: int
    sample: tuple[Sample, ...]
    """Draws from the last row; empty in the middle of a prompt."""
    share: tuple[int, ...] = ()
    """Slots that get a copy of this one's state afterwards."""
    cached: int = 0
    """Tokens of the prompt that the sequence did not have to compute."""
    fill: int = 0
    """Rows to compute behind these and to take back at once, before any `share`."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One call: first `moves`, one after another, then `keep`, then all `pieces` together."""

    pieces: tuple[Piece, ...]
    decode: bool
    group: str = ""
    """Of all its pieces."""
    moves: tuple[tuple[int, int], ...] = ()
    """Copies of whole sequences: from a slot, to a slot."""
    keep: tuple[tuple[int, int], ...] = ()
    """Slots that forget all but so many of their first tokens."""

    @property
    def rows(self) -> int:
        """Rows of the call."""
        return sum(piece.count + piece.fill for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is before a run that would be added now, as far as it is known."""

    runs: int
    """Running ones that must end before it has its slots."""
    rows: int
    """Of prompts, its own included."""
