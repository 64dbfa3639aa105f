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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshslm.core.line import Line
from meshslm.engine.prefix_cache import TILE, PrefixCache, Tiles
from meshslm.engine.steps import Job, Outlook, Piece, Sample, Shape, Step, filled_rows


@dataclass(frozen=True, slots=True)
class _Entry:
    """A run that waits, for the first time or again."""

    job: Job
    made: Mapping[int, int]
    """Choices that have not ended: their tokens so far."""


@dataclass(slots=True)
class _Sequence:
    """One choice of a run in its slot."""

    job: Job
    choice: int
    slot: int
    order: int
    made: int
    yields: bool
    """Background work whose slot may be taken."""
    done: int = 0
    """Tokens computed so far."""
    cached: int = 0
    follows: bool = False
    """Waits for another choice to compute the prompt."""
    followers: list[_Sequence] = field(default_factory=list)

    @property
    def decoding(self) -> bool:
        return self.done >= self.job.prompt and self.job.prompt + self.made - self.done == 1

    @property
    def reusable(self) -> Tiles:
        """Tiles that need not be computed: all but one that ends the prompt and is drawn from."""
        return self.job.tiles[: (self.job.prompt - 1) // TILE]

    def piece_rows(self, most: int, *, fills: bool) -> tuple[int, int]:
        """Rows of the next piece, and rows to fill it up: by place, see the rules above."""
        prompt = self.job.prompt
        tiled = prompt // TILE * TILE
        if self.done < tiled:
            return min(max(most, TILE) // TILE * TILE, tiled - self.done), 0
        if self.done < prompt:
            return prompt - self.done, filled_rows(prompt) if fills else 0
        return min(prompt + self.made - self.done, TILE - 1), 0


class Scheduler:
    """Waiting runs and running sequences."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._line: Line[_Entry] = Line()
        self._running: dict[int, _Sequence] = {}
        self._free = list(range(shape.slots))
        self._cache = PrefixCache(shape.slots)
        self._left: dict[int, tuple[int, int, int]] = {}
        """Slots with a sequence that had to give way: its run, choice, and tokens computed."""
        self._order = 0
        self._moves: list[tuple[int, int]] = []
        self._keep: dict[int, int] = {}
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
        self._left = {slot: left for slot, left in self._left.items() if left[0] != run}
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
        rows += sum(self._to_compute(other) for other in (*ahead, job))
        return Outlook(max(0, wanted + len(others) - self._shape.slots), rows)

    def adopt(self, tiles: Tiles) -> int | None:
        """A free slot that is taken to hold these tiles from now on; None where none is free.

        The caller puts them there before the next step.
        """
        if not self._free or self._moves or self._keep:
            return None
        slot = self._cache.oldest(self._unneeded())
        self._left.pop(slot, None)
        self._cache.hold(slot, tiles)
        return slot

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
            self._take_over(prefilling)
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
            self._compact()
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
        moves, keep = self._settle()
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
        self._cache.check()
        assert sorted([*self._free, *self._running]) == list(range(self._shape.slots))
        assert all(slot == held.slot for slot, held in self._running.items())
        assert set(self._left) <= set(self._free)
        for slot, held in self._running.items():
            tiles = self._cache.held(slot)
            assert tiles == held.job.tiles[: len(tiles)], "a slot that holds another's tiles"
            assert len(tiles) * TILE <= max(held.done, 0), "tiles before they are computed"

    # --- who gets which slots ---------------------------------------------------------------------
    def _admit(self) -> None:
        while (entry := self._line.next()) is not None:
            if len(entry.made) > len(self._free) and not self._make_room(entry):
                return
            entry, aged = self._line.take()
            self._line.charge(entry.job.tenant, self._to_compute(entry.job))
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
        sequences = [held for held in self._running.values() if held.job.run == job.run]
        made = {held.choice: held.made for held in sorted(sequences, key=lambda held: held.choice)}
        for held in sequences:
            self._release(held)
            if held.done and held.slot not in self._keep:
                self._left[held.slot] = (job.run, held.choice, held.done)
        self._line.put_back(_Entry(job, made), job.tenant, background=True)

    def _enter(self, entry: _Entry, *, aged: bool) -> None:
        job = entry.job
        self._admitted.append(job.run)
        self._steady = None
        self._order += 1
        yields = job.background and not aged
        leader: _Sequence | None = None
        # Who has to be drawn for where the prompt ends leads, and draws for others of its kind.
        for choice, made in sorted(entry.made.items(), key=lambda item: item[1] > 0):
            sequence = _Sequence(job, choice, -1, self._order, made, yields)
            self._seat(sequence)
            self._running[sequence.slot] = sequence
            if sequence.done >= job.prompt:
                continue  # it has come back to what it left
            if leader is None:
                leader = sequence
            else:
                sequence.follows = True
                leader.followers.append(sequence)

    def _seat(self, sequence: _Sequence) -> None:
        """Give a sequence its slot: where its beginning is, if nothing is lost by that."""
        job = sequence.job
        for slot, (run, choice, done) in self._left.items():
            if (run, choice) == (job.run, sequence.choice):
                self._sit(sequence, slot, done)
                sequence.cached = min(done, job.prompt)
                return
        source, count = self._cache.match(sequence.reusable)
        if count and source in self._free and source not in self._left:
            whole = count == len(self._cache.held(source))
            if whole or source == self._cache.oldest(self._unneeded()):
                self._cache.hold(source, sequence.reusable[:count])
                self._sit(sequence, source, count * TILE)
                sequence.cached = sequence.done
                return
        if count:
            self._cache.touch(source)
        slot = self._choose(job.group)
        if len(self._line) < len(self._free):  # else what would be saved soon goes as well
            self._save(slot)
        self._cache.hold(slot, ())
        self._sit(sequence, slot, 0)

    def _sit(self, sequence: _Sequence, slot: int, done: int) -> None:
        self._free.remove(slot)
        self._left.pop(slot, None)
        self._keep[slot] = done
        sequence.slot, sequence.done = slot, done

    def _choose(self, group: str) -> int:
        """A free slot: beside its own group's and far from others', or what is worth least."""
        others = [held.slot for held in self._running.values() if held.job.group != group]
        own = [held.slot for held in self._running.values() if held.job.group == group]
        if own:
            return min(self._free, key=lambda slot: min(abs(slot - place) for place in own))
        if others:
            return max(self._free, key=lambda slot: min(abs(slot - place) for place in others))
        return self._cache.oldest(self._unneeded())

    def _unneeded(self) -> Iterable[int]:
        """Free slots; only if there are no others, those to which somebody comes back."""
        return [slot for slot in self._free if slot not in self._left] or self._free

    def _save(self, slot: int) -> None:
        """Move what a free slot holds to another, if there is less in that."""
        left = self._left.get(slot)
        if left is None and self._cache.worthless(slot):
            return
        others = [free for free in self._unneeded() if free != slot]
        target = self._cache.oldest([slot, *others]) if left is None else next(iter(others), slot)
        if target == slot or target in self._left:
            return
        self._moves.append((slot, target))
        self._keep.pop(target, None)
        if slot in self._keep:
            self._keep[target] = self._keep.pop(slot)
        self._cache.move(slot, target)
        if left is not None:
            self._left[target] = left
            del self._left[slot]

    def _take_over(self, sequence: _Sequence) -> None:
        """Take over tiles that another slot has got meanwhile."""
        source, count = self._cache.match(sequence.reusable)
        if count * TILE <= sequence.done:
            return
        self._moves.append((source, sequence.slot))
        self._cache.hold(sequence.slot, sequence.reusable[:count])
        self._cache.touch(source)
        sequence.done = sequence.cached = count * TILE
        self._keep[sequence.slot] = sequence.done

    def _compact(self) -> None:
        """Move sequences from the top into holes between them, so that all are neighbours."""
        slots = sorted(self._running)
        while slots[-1] - slots[0] >= len(slots):
            top = slots.pop()
            hole = next(slot for slot in range(slots[0], top) if slot not in self._running)
            self._save(hole)
            self._left.pop(hole, None)
            self._moves.append((top, hole))
            self._keep.pop(hole, None)
            if top in self._keep:
                self._keep[hole] = self._keep.pop(top)
            self._cache.move(top, hole)
            sequence = self._running.pop(top)
            sequence.slot = hole
            self._running[hole] = sequence
            self._free.remove(hole)
            self._give_back(top)
            slots = sorted([*slots, hole])

    def _release(self, sequence: _Sequence) -> None:
        self._steady = None
        del self._running[sequence.slot]
        self._cache.touch(sequence.slot)
        self._give_back(sequence.slot)

    def _give_back(self, slot: int) -> None:
        self._free.append(slot)
        self._free.sort()

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

    def _prefill(self, sequence: _Sequence, most: int) -> Step:
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
        moves, keep = self._settle()
        return Step((piece,), decode=False, group=job.group, moves=moves, keep=keep)

    def _settle(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """What the next step has to do before its rows."""
        moves, keep = tuple(self._moves), tuple(sorted(self._keep.items()))
        self._moves, self._keep = [], {}
        return moves, keep

    def _to_compute(self, job: Job) -> int:
        """Rows of a prompt that no slot has."""
        return job.prompt - TILE * self._cache.match(job.tiles[: (job.prompt - 1) // TILE])[1]
