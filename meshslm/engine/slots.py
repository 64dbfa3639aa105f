"""The slots of one model's context: which choice sits where, and what free slots still hold.

Rules:
- Where a beginning is there already, a choice sits down on it if nothing is lost by that, else
  beside it; whatever a finished run leaves in its slot is kept until the slot is needed.
- Choices that generate sit in neighbouring slots, with others of their own group.
- What is moved or cut in the slots is done before the rows of the next step; see `settle`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshslm.engine.prefix_cache import TILE, PrefixCache, Tiles
from meshslm.engine.steps import Job, filled_rows


@dataclass(slots=True)
class Sequence:
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
    followers: list[Sequence] = field(default_factory=list)

    @property
    def decoding(self) -> bool:
        """Whether all but its newest token is computed."""
        return self.done >= self.job.prompt and self.job.prompt + self.made - self.done == 1

    @property
    def reusable(self) -> Tiles:
        """Tiles that need not be computed: all but one that ends the prompt and is drawn from."""
        return self.job.tiles[: (self.job.prompt - 1) // TILE]

    def piece_rows(self, most: int, *, fills: bool) -> tuple[int, int]:
        """Rows of the next piece, and rows to fill it up: by place, see `engine.schedule`."""
        prompt = self.job.prompt
        tiled = prompt // TILE * TILE
        if self.done < tiled:
            return min(max(most, TILE) // TILE * TILE, tiled - self.done), 0
        if self.done < prompt:
            return prompt - self.done, filled_rows(prompt) if fills else 0
        return min(prompt + self.made - self.done, TILE - 1), 0


class Slots:
    """All slots, taken or free."""

    def __init__(self, count: int) -> None:
        self.running: dict[int, Sequence] = {}
        self.free = list(range(count))
        """In ascending order."""
        self.cache = PrefixCache(count)
        self._count = count
        self._left: dict[int, tuple[int, int, int]] = {}
        """Slots with a sequence that had to give way: its run, choice, and tokens computed."""
        self._moves: list[tuple[int, int]] = []
        self._keep: dict[int, int] = {}

    def adopt(self, tiles: Tiles) -> int | None:
        """A free slot that is taken to hold these tiles from now on; None where none is free."""
        if not self.free or self._moves or self._keep:
            return None
        slot = self.cache.oldest(self._unneeded())
        self._left.pop(slot, None)
        self.cache.hold(slot, tiles)
        return slot

    def to_compute(self, job: Job) -> int:
        """Rows of a prompt that no slot has."""
        return job.prompt - TILE * self.cache.match(job.tiles[: (job.prompt - 1) // TILE])[1]

    def settle(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """What the next step has to do before its rows."""
        moves, keep = tuple(self._moves), tuple(sorted(self._keep.items()))
        self._moves, self._keep = [], {}
        return moves, keep

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.cache.check()
        assert sorted([*self.free, *self.running]) == list(range(self._count))
        assert all(slot == held.slot for slot, held in self.running.items())
        assert set(self._left) <= set(self.free)
        for slot, held in self.running.items():
            tiles = self.cache.held(slot)
            assert tiles == held.job.tiles[: len(tiles)], "a slot that holds another's tiles"
            assert len(tiles) * TILE <= max(held.done, 0), "tiles before they are computed"

    # --- coming and going -------------------------------------------------------------------------
    def seat(self, sequence: Sequence, *, crowded: bool) -> None:
        """Give a sequence its slot: where its beginning is, if nothing is lost by that.

        `crowded`: what would be saved for others soon goes as well, as many wait.
        """
        job = sequence.job
        for slot, (run, choice, done) in self._left.items():
            if (run, choice) == (job.run, sequence.choice):
                self._sit(sequence, slot, done)
                sequence.cached = min(done, job.prompt)
                return
        source, count = self.cache.match(sequence.reusable)
        if count and source in self.free and source not in self._left:
            whole = count == len(self.cache.held(source))
            if whole or source == self.cache.oldest(self._unneeded()):
                self.cache.hold(source, sequence.reusable[:count])
                self._sit(sequence, source, count * TILE)
                sequence.cached = sequence.done
                return
        if count:
            self.cache.touch(source)
        slot = self._choose(job.group)
        if not crowded:
            self._save(slot)
        self.cache.hold(slot, ())
        self._sit(sequence, slot, 0)

    def _sit(self, sequence: Sequence, slot: int, done: int) -> None:
        self.free.remove(slot)
        self._left.pop(slot, None)
        self._keep[slot] = done
        sequence.slot, sequence.done = slot, done
        self.running[slot] = sequence

    def release(self, sequence: Sequence) -> None:
        """A choice gets up; what it has computed stays until the slot is needed."""
        del self.running[sequence.slot]
        self.cache.touch(sequence.slot)
        self._give_back(sequence.slot)

    def _give_back(self, slot: int) -> None:
        self.free.append(slot)
        self.free.sort()

    def give_way(self, sequence: Sequence) -> None:
        """A choice gets up for another's sake, and may come back to what it has computed."""
        self.release(sequence)
        if sequence.done and sequence.slot not in self._keep:
            self._left[sequence.slot] = (sequence.job.run, sequence.choice, sequence.done)

    def forget(self, run: int) -> None:
        """A run does not come back."""
        self._left = {slot: left for slot, left in self._left.items() if left[0] != run}

    # --- which slot, and what moves ---------------------------------------------------------------
    def _choose(self, group: str) -> int:
        """A free slot: beside its own group's and far from others', or what is worth least."""
        others = [held.slot for held in self.running.values() if held.job.group != group]
        own = [held.slot for held in self.running.values() if held.job.group == group]
        if own:
            return min(self.free, key=lambda slot: min(abs(slot - place) for place in own))
        if others:
            return max(self.free, key=lambda slot: min(abs(slot - place) for place in others))
        return self.cache.oldest(self._unneeded())

    def _unneeded(self) -> Iterable[int]:
        """Free slots; only if there are no others, those to which somebody comes back."""
        return [slot for slot in self.free if slot not in self._left] or self.free

    def _save(self, slot: int) -> None:
        """Move what a free slot holds to another, if there is less in that."""
        left = self._left.get(slot)
        if left is None and self.cache.worthless(slot):
            return
        others = [free for free in self._unneeded() if free != slot]
        target = self.cache.oldest([slot, *others]) if left is None else next(iter(others), slot)
        if target == slot or target in self._left:
            return
        self._moves.append((slot, target))
        self._keep.pop(target, None)
        if slot in self._keep:
            self._keep[target] = self._keep.pop(slot)
        self.cache.move(slot, target)
        if left is not None:
            self._left[target] = left
            del self._left[slot]

    def take_over(self, sequence: Sequence) -> None:
        """Take over tiles that another slot has got meanwhile."""
        source, count = self.cache.match(sequence.reusable)
        if count * TILE <= sequence.done:
            return
        self._moves.append((source, sequence.slot))
        self.cache.hold(sequence.slot, sequence.reusable[:count])
        self.cache.touch(source)
        sequence.done = sequence.cached = count * TILE
        self._keep[sequence.slot] = sequence.done

    def compact(self) -> None:
        """Move sequences from the top into holes between them, so that all are neighbours."""
        slots = sorted(self.running)
        while slots[-1] - slots[0] >= len(slots):
            top = slots.pop()
            hole = next(slot for slot in range(slots[0], top) if slot not in self.running)
            self._save(hole)
            self._left.pop(hole, None)
            self._moves.append((top, hole))
            self._keep.pop(hole, None)
            if top in self._keep:
                self._keep[hole] = self._keep.pop(top)
            self.cache.move(top, hole)
            sequence = self.running.pop(top)
            sequence.slot = hole
            self.running[hole] = sequence
            self.free.remove(hole)
            self._give_back(top)
            slots = sorted([*slots, hole])
