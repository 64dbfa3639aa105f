"""Which rows the engine computes next: a pure scheduler, in the manner of nano-vllm.

`schedule()` gives one step, the worker computes it and tells the outcome to `learn()`. A step is
one call of llama.cpp: either one row for every sequence that is generating (decode), or a piece of
one prompt (prefill). The two alternate, so that a long prompt never stops running streams.

Rules:
- No llama.cpp, no clock, no chance: the same calls give the same steps.
- First come, first served: a run waits until it has a slot for each of its choices, and nobody
  overtakes it.
- Which rows are computed together depends only on their place in their own sequence, never on the
  company, because llama.cpp's attention kernel for `TILE` rows and more rounds differently from
  the one for fewer. Prompts go in multiples of `TILE` and a rest below it; whatever was generated
  goes below it, so that a resumed sequence repeats exactly what decoding had computed.
- Generating sequences sit in neighbouring slots: llama.cpp computes only neighbours together.
- Runs of different groups (adapters) are never in one step, because an adapter is in force for a
  whole call. Groups take turns: each that generates gets one decode step in a round, and prompts
  have their share between rounds.
- Whoever gets a slot clears it. What a finished sequence left there costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

TILE: Final = 64
"""Rows from which ggml's CPU flash attention takes its tiled kernel (`GGML_FA_TILE_Q`)."""

BESIDE_ROWS: Final = 128
"""Prompt rows between two decode steps: about 0.25 s of a 135M model on two cores."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the engine has room for."""

    slots: int
    """Sequences at a time."""
    context: int
    """Tokens of one sequence."""
    batch: int = 512
    """Rows of one call."""

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
    resumed: int = 0
    """Tokens of the answer that are already there and only have to be computed again."""
    group: str = ""
    """Which runs it may share a step with: those of the same adapter."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A token is to be drawn for one choice."""

    choice: int
    slot: int


@dataclass(frozen=True, slots=True)
class Piece:
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


@dataclass(frozen=True, slots=True)
class Step:
    """One call: first `moves` (from, to), then `clear`, then all `pieces` together."""

    pieces: tuple[Piece, ...]
    decode: bool
    group: str = ""
    """Of all its pieces."""
    moves: tuple[tuple[int, int], ...] = ()
    clear: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the call."""
        return sum(piece.count for piece in self.pieces)


@dataclass(slots=True)
class _Sequence:
    """One choice of a run in its slot."""

    run: int
    choice: int
    slot: int
    order: int
    prompt: int
    most: int
    made: int
    group: str
    done: int = 0
    """Tokens computed so far."""
    follows: bool = False
    """Waits for the first choice to compute the prompt."""
    followers: list[_Sequence] = field(default_factory=list)

    @property
    def decoding(self) -> bool:
        return self.done >= self.prompt and self.prompt + self.made - self.done == 1

    def piece_rows(self, most: int) -> int:
        """Rows of the next piece: by place, see the rules above."""
        tiled = self.prompt // TILE * TILE
        if self.done < tiled:
            return min(max(most, TILE) // TILE * TILE, tiled - self.done)
        end = self.prompt if self.done < self.prompt else self.prompt + self.made
        return min(end - self.done, TILE - 1)


class Scheduler:
    """Waiting runs and running sequences."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._waiting: deque[Job] = deque()
        self._running: dict[int, _Sequence] = {}
        self._free = list(range(shape.slots))
        self._order = 0
        self._clear: list[int] = []
        self._allowance = 0
        self._line: list[str] = []
        """Groups that generate, in the order of their turns."""
        self._round = 0
        """Decode steps before prompts may go on: one for each group."""
        self._admitted: list[int] = []

    @property
    def running(self) -> int:
        """Sequences in slots."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Runs without a slot."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._running and not self._waiting

    def add(self, job: Job) -> None:
        """Queue a run. Raises `ValueError` where it could never run."""
        fits = job.prompt + job.most <= self._shape.context
        if not fits or job.prompt < 1 or not 0 <= job.resumed < job.most:
            raise ValueError(f"{job} does not fit a context of {self._shape.context}")
        if not 1 <= job.choices <= self._shape.slots:
            raise ValueError(f"{job} does not fit {self._shape.slots} slots")
        self._waiting.append(job)

    def cancel(self, run: int) -> None:
        """Forget a run; unknown ones are ignored. Not between a step and its `learn`."""
        self._waiting = deque(job for job in self._waiting if job.run != run)
        for sequence in [held for held in self._running.values() if held.run == run]:
            self._release(sequence)

    def admitted(self) -> list[int]:
        """Runs that got their slots since the last call."""
        admitted, self._admitted = self._admitted, []
        return admitted

    def schedule(self) -> Step | None:
        """The next step; None where there is nothing to do."""
        self._admit()
        decoding = [held for held in self._running.values() if held.decoding]
        prefilling = min(
            (held for held in self._running.values() if not held.decoding and not held.follows),
            key=lambda held: (held.order, held.choice),
            default=None,
        )
        if prefilling is not None:
            if not decoding:
                return self._prefill(prefilling, prefilling.piece_rows(self._shape.batch))
            rows = prefilling.piece_rows(min(self._allowance, self._shape.batch))
            if rows <= self._allowance and not self._round:
                self._allowance -= rows
                return self._prefill(prefilling, rows)
        if not decoding:
            return None
        groups = list(dict.fromkeys(held.group for held in decoding))
        group = self._turn(groups)
        decoding = [held for held in decoding if held.group == group]
        moves = self._compact() if prefilling is None and len(groups) == 1 else ()
        pieces = tuple(
            Piece(
                held.run,
                held.choice,
                held.slot,
                held.done,
                1,
                (Sample(held.choice, held.slot),),
            )
            for held in sorted(decoding, key=lambda held: held.slot)
        )
        return Step(pieces, decode=True, group=group, moves=moves, clear=self._to_clear())

    def learn(self, step: Step, finished: Collection[int]) -> None:
        """The step was computed; the sequences in the slots `finished` end with it."""
        for piece in step.pieces:
            sequence = self._running[piece.slot]
            sequence.done += piece.count
            if piece.share:
                for follower in sequence.followers:
                    follower.done = sequence.done
                    follower.follows = False
                sequence.followers = []
            for sample in piece.sample:
                drawn = self._running[sample.slot]
                drawn.made += 1
                if sample.slot in finished:
                    self._release(drawn)
                elif drawn.made >= drawn.most:
                    raise ValueError(f"run {drawn.run} goes on after its last token")

    # --- inside -----------------------------------------------------------------------------------
    def _turn(self, groups: list[str]) -> str:
        """Whose decode step it is; begins a new round where all have had theirs."""
        waiting = [group for group in self._line if group in groups]
        waiting += [group for group in groups if group not in waiting]
        group = waiting.pop(0)
        self._line = [*waiting, group]
        if self._round == 0:
            self._round = len(self._line)
            self._allowance = BESIDE_ROWS
        self._round = min(self._round, len(self._line)) - 1
        return group

    def _admit(self) -> None:
        while self._waiting and self._waiting[0].choices <= len(self._free):
            job = self._waiting.popleft()
            self._admitted.append(job.run)
            self._order += 1
            sequences = [
                _Sequence(
                    job.run,
                    choice,
                    self._take_slot(job.group),
                    self._order,
                    job.prompt,
                    job.most,
                    job.resumed,
                    job.group,
                    follows=choice > 0,
                )
                for choice in range(job.choices)
            ]
            sequences[0].followers = sequences[1:]
            self._clear.append(sequences[0].slot)
            for sequence in sequences:
                self._running[sequence.slot] = sequence

    def _take_slot(self, group: str) -> int:
        """A free slot: the lowest, but where groups meet, next to its own and far from others."""
        others = [held.slot for held in self._running.values() if held.group != group]
        own = [held.slot for held in self._running.values() if held.group == group]
        if not others:
            return self._free.pop(0)
        if own:
            chosen = min(self._free, key=lambda slot: min(abs(slot - place) for place in own))
        else:
            chosen = max(self._free, key=lambda slot: min(abs(slot - place) for place in others))
        self._free.remove(chosen)
        return chosen

    def _prefill(self, sequence: _Sequence, rows: int) -> Step:
        ends = sequence.done + rows
        sample: tuple[Sample, ...] = ()
        share: tuple[int, ...] = ()
        if ends == sequence.prompt + sequence.made:
            together = [sequence] if sequence.done >= sequence.prompt else self._family(sequence)
            sample = tuple(Sample(held.choice, held.slot) for held in together)
        if ends == sequence.prompt:
            share = tuple(held.slot for held in sequence.followers)
        piece = Piece(
            sequence.run, sequence.choice, sequence.slot, sequence.done, rows, sample, share
        )
        return Step((piece,), decode=False, group=sequence.group, clear=self._to_clear())

    def _family(self, sequence: _Sequence) -> list[_Sequence]:
        return [sequence, *sequence.followers]

    def _compact(self) -> tuple[tuple[int, int], ...]:
        """Move sequences from the top into holes, so that all are neighbours."""
        moves = []
        while self._free and self._running and self._free[0] < max(self._running):
            source, target = max(self._running), self._free.pop(0)
            sequence = self._running.pop(source)
            sequence.slot = target
            self._running[target] = sequence
            self._give_back(source)
            moves.append((source, target))
        return tuple(moves)

    def _release(self, sequence: _Sequence) -> None:
        del self._running[sequence.slot]
        if sequence.slot in self._clear:
            self._clear.remove(sequence.slot)
        self._give_back(sequence.slot)

    def _give_back(self, slot: int) -> None:
        self._free.append(slot)
        self._free.sort()

    def _to_clear(self) -> tuple[int, ...]:
        clear, self._clear = tuple(self._clear), []
        return clear
