"""Which rows the engine computes next: a pure scheduler, in the manner of nano-vllm.

`schedule()` gives one step, the worker computes it and tells the outcome to `learn()`. A step is
one call of llama.cpp: either one row for every sequence that is generating (decode), or a piece of
one prompt (prefill). The two alternate, so that a long prompt never stops running streams.

Rules:
- No llama.cpp, no clock, no chance: the same calls give the same steps.
- Who waits gets its slots in the order of `core.line`: interactive before background, tenants
  fairly. A run waits until it has a slot for each of its choices, and nobody overtakes the next.
- An interactive run without room takes the slots of background runs, the youngest first. These go
  on later with the tokens that they had made, and what is still in their slots; background work
  that has waited long enough is left alone.
- Which rows are computed together depends only on their place in their own sequence, never on the
  company, because llama.cpp's attention kernel for `TILE` rows and more rounds differently from
  the one for fewer. Prompts go in multiples of `TILE` and a rest; a rest far into its sequence is
  filled up to a tile with rows that are taken back, because the other kernel would take longer.
  Whatever was generated goes below a tile, so that a resumed sequence repeats exactly what
  decoding had computed.
- Tiles of a prompt that some slot holds already are not computed again, but taken over: in place
  where nothing is lost by it, else as a copy, which costs as much as a few rows. Whatever a
  finished run leaves in its slot is kept for that until the slot is needed.
- A prompt whose beginning is being computed for another run comes after it, and takes that over.
- Generating sequences sit in neighbouring slots: llama.cpp computes only neighbours together.
- Runs of different groups (adapters) are never in one step, because an adapter is in force for a
  whole call. Groups take turns: each that generates gets one decode step in a round, and prompts
  have their share between rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from meshslm.core.line import Line
from meshslm.engine.prefix_cache import TILE, PrefixCache, Tiles
from meshslm.engine.slots import Sequence, Slots
from meshslm.engine.steps import Job, Outlook, Piece, Sample, Shape, Step


@dataclass(frozen=True, slots=True)
class _Entry:
    """A run that waits, for the first time or again."""

    job: Job
    made: Mapping[int, int]
    """Choices that have not ended: their tokens so far."""


class Scheduler:
    """Waiting runs and running sequences."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._line: Line[_Entry] = Line()
        self._slots = Slots(shape.slots)
        self._running, self._free = self._slots.running, self._slots.free
        self._cache = self._slots.cache
        self._order = 0
        self.beside_rows = TILE
        """Prompt rows between two decode steps: so long a pause is imposed on running streams."""
        self._allowance = 0
        self._turns: list[str] = []
        """Groups that generate, in the order of their turns."""
        self._round = 0
        """Decode steps before prompts may go on: one for each group."""
        self._admitted: list[int] = []
        self._steady: Step | None = None
        """The last step, where the next is the same a row on: nobody came, left or moved."""

    @property
    def running(self) -> int:
        """Sequences in slots."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Runs without a slot."""
        return len(self._line)

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._running and not self._line

    @property
    def steady(self) -> bool:
        """The next step is as the last, a token for each sequence, unless runs come or go."""
        return self._steady is not None

    @property
    def cache(self) -> PrefixCache:
        """What the slots hold; to look at."""
        return self._cache

    def add(self, job: Job) -> None:
        """Queue a run. Raises `ValueError` where it could never run."""
        made = dict(job.resumed) or dict.fromkeys(range(job.choices), 0)
        fits = job.prompt + job.most <= self._shape.context
        if not fits or job.prompt < 1 or not all(0 <= n < job.most for n in made.values()):
            raise ValueError(f"{job} does not fit a context of {self._shape.context}")
        if not 1 <= job.choices <= self._shape.slots or not 0 <= max(made) < job.choices:
            raise ValueError(f"{job} does not fit {self._shape.slots} slots")
        if job.tiles and len(job.tiles) != job.prompt // TILE:
            raise ValueError(f"run {job.run} has names for {len(job.tiles)} tiles")
        self._steady = None
        self._line.add(_Entry(job, made), job.tenant, background=job.background)

    def cancel(self, run: int) -> None:
        """Forget a run; unknown ones are ignored. Not between a step and its `learn`."""
        self._line.remove(lambda entry: entry.job.run == run)
        self._slots.forget(run)
        for sequence in [held for held in self._running.values() if held.job.run == run]:
            self._release(sequence)

    def admitted(self) -> list[int]:
        """Runs that got their slots since the last call; some not for the first time."""
        admitted, self._admitted = self._admitted, []
        return admitted

    def outlook(self, job: Job) -> Outlook:
        """What a job would have to wait for."""
        ahead = [entry.job for entry in self._line if job.background or not entry.job.background]
        others = [held for held in self._running.values() if job.background or not held.yields]
        wanted = job.choices + sum(other.choices for other in ahead)
        rows = sum(max(0, held.job.prompt - held.done) for held in others if not held.follows)
        rows += sum(self._slots.to_compute(other) for other in (*ahead, job))
        return Outlook(max(0, wanted + len(others) - self._shape.slots), rows)

    def adopt(self, tiles: Tiles) -> int | None:
        """A free slot that is taken to hold these tiles from now on; None where none is free.

        The caller puts them there before the next step.
        """
        return self._slots.adopt(tiles)

    def schedule(self) -> Step | None:
        """The next step; None where there is nothing to do."""
        if self._steady is not None:
            return Step(
                tuple(map(self._one_row, self._steady.pieces)),
                decode=True,
                group=self._steady.group,
            )
        self._admit()
        decoding = [held for held in self._running.values() if held.decoding]
        prefilling = min(
            (held for held in self._running.values() if not held.decoding and not held.follows),
            key=lambda held: (held.yields, held.order, held.choice),
            default=None,
        )
        if prefilling is not None:
            self._slots.take_over(prefilling)
            if not decoding:
                return self._prefill(prefilling, self._shape.batch)
            most = min(self._allowance, self._shape.batch)
            rows = sum(prefilling.piece_rows(most, fills=self._shape.fills))
            if rows <= self._allowance and not self._round:
                self._allowance -= rows
                return self._prefill(prefilling, most)
        if not decoding:
            return None
        groups = list(dict.fromkeys(held.job.group for held in decoding))
        group = self._turn(groups)
        if prefilling is None and len(groups) == 1:
            self._slots.compact()
        pieces = tuple(
            Piece(
                held.job.run,
                held.choice,
                held.slot,
                held.done,
                1,
                (Sample(held.choice, held.slot),),
                cached=held.cached,
            )
            for held in sorted(decoding, key=lambda held: held.slot)
            if held.job.group == group
        )
        moves, keep = self._slots.settle()
        step = Step(pieces, decode=True, group=group, moves=moves, keep=keep)
        if prefilling is None and len(groups) == 1 and not self._line:
            self._steady = step
        return step

    def _one_row(self, piece: Piece) -> Piece:
        """The next row of a sequence that generates, in the place of its last one."""
        start = self._running[piece.slot].done
        return Piece(
            piece.run, piece.choice, piece.slot, start, 1, piece.sample, cached=piece.cached
        )

    def learn(
        self, step: Step, finished: Collection[int], further: Mapping[int, int] | None = None
    ) -> None:
        """The step was computed; the sequences in the slots `finished` end with it.

        `further`: slots of a decode step that made, and computed, so many tokens more than one.
        """
        for piece in step.pieces:
            sequence = self._running[piece.slot]
            job = sequence.job
            sequence.done += piece.count
            if piece.start < len(job.tiles) * TILE:
                self._cache.hold(piece.slot, job.tiles[: sequence.done // TILE])
            for follower in sequence.followers if piece.share else ():
                follower.done, follower.cached = sequence.done, sequence.done
                follower.follows = False
                self._cache.hold(follower.slot, self._cache.held(piece.slot))
            if piece.share:
                sequence.followers = []
            for sample in piece.sample:
                drawn = self._running[sample.slot]
                more = (further or {}).get(sample.slot, 0)
                drawn.made += 1 + more
                drawn.done += more
                self._line.charge(job.tenant, 1 + more)
                if sample.slot in finished:
                    self._release(drawn)
                elif drawn.made >= job.most:
                    raise ValueError(f"run {job.run} goes on after its last token")

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self._slots.check()

    # --- who gets which slots ---------------------------------------------------------------------
    def _admit(self) -> None:
        while (entry := self._line.next()) is not None:
            if len(entry.made) > len(self._free) and not self._make_room(entry):
                return
            entry, aged = self._line.take()
            self._line.charge(entry.job.tenant, self._slots.to_compute(entry.job))
            self._enter(entry, aged=aged)

    def _make_room(self, entry: _Entry) -> bool:
        """Take slots of background runs for an interactive one; whether there are enough."""
        if entry.job.background:
            return False
        yielding = [held for held in self._running.values() if held.yields]
        if len(entry.made) > len(self._free) + len(yielding):
            return False
        while len(entry.made) > len(self._free):
            youngest = max(
                (held for held in self._running.values() if held.yields),
                key=lambda held: held.order,
            )
            self._preempt(youngest.job)
        return True

    def _preempt(self, job: Job) -> None:
        """Put a running run back into the line."""
        self._steady = None
        sequences = [held for held in self._running.values() if held.job.run == job.run]
        made = {held.choice: held.made for held in sorted(sequences, key=lambda held: held.choice)}
        for held in sequences:
            self._slots.give_way(held)
        self._line.put_back(_Entry(job, made), job.tenant, background=True)

    def _enter(self, entry: _Entry, *, aged: bool) -> None:
        job = entry.job
        self._admitted.append(job.run)
        self._steady = None
        self._order += 1
        yields = job.background and not aged
        leader: Sequence | None = None
        # Who has to be drawn for where the prompt ends leads, and draws for others of its kind.
        for choice, made in sorted(entry.made.items(), key=lambda item: item[1] > 0):
            sequence = Sequence(job, choice, -1, self._order, made, yields)
            self._slots.seat(sequence, crowded=len(self._line) >= len(self._free))
            if sequence.done >= job.prompt:
                continue  # it has come back to what it left
            if leader is None:
                leader = sequence
            else:
                sequence.follows = True
                leader.followers.append(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._steady = None
        self._slots.release(sequence)

    # --- steps ------------------------------------------------------------------------------------
    def _turn(self, groups: list[str]) -> str:
        """Whose decode step it is; begins a new round where all have had theirs."""
        waiting = [group for group in self._turns if group in groups]
        waiting += [group for group in groups if group not in waiting]
        group = waiting.pop(0)
        self._turns = [*waiting, group]
        if self._round == 0:
            self._round = len(self._turns)
            self._allowance = self.beside_rows
        self._round = min(self._round, len(self._turns)) - 1
        return group

    def _prefill(self, sequence: Sequence, most: int) -> Step:
        job = sequence.job
        rows, fill = sequence.piece_rows(most, fills=self._shape.fills)
        ends = sequence.done + rows
        sample: tuple[Sample, ...] = ()
        share: tuple[int, ...] = ()
        if ends == job.prompt + sequence.made:
            together = [sequence]
            if sequence.done < job.prompt:
                together += [held for held in sequence.followers if not held.made]
            sample = tuple(Sample(held.choice, held.slot) for held in together)
        if ends == job.prompt:
            share = tuple(held.slot for held in sequence.followers)
        piece = Piece(
            job.run,
            sequence.choice,
            sequence.slot,
            sequence.done,
            rows,
            sample,
            share,
            sequence.cached,
            fill,
        )
        moves, keep = self._slots.settle()
        return Step((piece,), decode=False, group=job.group, moves=moves, keep=keep)
