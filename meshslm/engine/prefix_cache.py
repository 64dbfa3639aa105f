"""Which KV sequences hold which beginnings of prompts: a radix tree over tiles of tokens.

A node of the tree is one tile of `TILE` tokens behind all the tiles before it, and is owned by the
slots whose sequences hold these tokens at this place. A node's name is a hash of everything from
the root to it, so that it is found without walking, and has the same name on every machine.

Rules:
- Pure: no llama.cpp, no clock. Who changes a sequence says so here.
- Only whole tiles count, and only those that the tiled kernel computed (see `schedule`): what is
  reused is, bit by bit, what would have been computed.
- Prompts of different groups (adapters) share no node.
- Slots are the budget. What is in a slot goes when the slot is needed, that which is also held
  elsewhere first, then the least recently used.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

TILE: Final = 64
"""Rows from which ggml's CPU flash attention takes its tiled kernel (`GGML_FA_TILE_Q`)."""
NAME_BYTES: Final = 16
DIGEST_BYTES: Final = 4
"""Of a name in a digest: one of 4,096 warm tiles is taken for another once in a million."""

Tiles = tuple[bytes, ...]


def tile_names(group: str, tokens: Sequence[int]) -> Tiles:
    """The names of all whole tiles of a prompt."""
    name = blake2b(group.encode(), digest_size=NAME_BYTES).digest()
    names = []
    for start in range(0, len(tokens) - TILE + 1, TILE):
        tile = array("i", tokens[start : start + TILE]).tobytes()
        name = blake2b(name + tile, digest_size=NAME_BYTES).digest()
        names.append(name)
    return tuple(names)


class PrefixCache:
    """What each slot holds."""

    def __init__(self, slots: int) -> None:
        self._held: list[Tiles] = [()] * slots
        self._owners: dict[bytes, set[int]] = {}
        self._used = [0] * slots
        self._clock = 0

    def held(self, slot: int) -> Tiles:
        """The tiles of a slot."""
        return self._held[slot]

    def match(self, tiles: Tiles) -> tuple[int, int]:
        """The slot that holds most of a prompt's beginning, and how many tiles; (-1, 0) for none.

        Of equals the one that holds least beyond them, then the first.
        """
        low, high = 0, len(tiles)
        while low < high:  # whoever holds a tile holds all before it
            middle = (low + high + 1) // 2
            if tiles[middle - 1] in self._owners:
                low = middle
            else:
                high = middle - 1
        if not low:
            return -1, 0
        owners = self._owners[tiles[low - 1]]
        return min(owners, key=lambda slot: (len(self._held[slot]), slot)), low

    def hold(self, slot: int, tiles: Tiles) -> None:
        """A slot holds exactly these tiles from now on, and was used now."""
        for name in self._held[slot]:
            owners = self._owners[name]
            owners.discard(slot)
            if not owners:
                del self._owners[name]
        self._held[slot] = tiles
        for name in tiles:
            self._owners.setdefault(name, set()).add(slot)
        self.touch(slot)

    def touch(self, slot: int) -> None:
        """A slot's content was used now."""
        self._clock += 1
        self._used[slot] = self._clock

    def move(self, source: int, target: int) -> None:
        """A slot's content is in another now, as old as it is; the first holds nothing."""
        used = self._used[source]
        self.hold(target, self._held[source])
        self.hold(source, ())
        self._used[target] = used

    def worthless(self, slot: int) -> bool:
        """Everything in a slot is held by another too."""
        tiles = self._held[slot]
        return not tiles or len(self._owners[tiles[-1]]) > 1

    def oldest(self, slots: Iterable[int]) -> int:
        """Which of the slots is to be given up first. Raises `ValueError` for none."""
        return min(slots, key=lambda slot: (not self.worthless(slot), self._used[slot], slot))

    def recent(self) -> list[int]:
        """Slots whose content no other slot has, the last used first."""
        found = [slot for slot in range(len(self._held)) if self._held[slot]]
        found.sort(key=lambda slot: -self._used[slot])
        seen: set[bytes] = set()
        own = []
        for slot in found:
            last = self._held[slot][-1]
            longer = any(
                len(self._held[other]) > len(self._held[slot]) for other in self._owners[last]
            )
            if last not in seen and not longer:
                own.append(slot)
                seen.add(last)
        return own

    def digest(self, most_bytes: int) -> bytes:
        """The last tile of each content, the last used first: what is warm here, in few bytes."""
        names = [self._held[slot][-1][:DIGEST_BYTES] for slot in self.recent()]
        return b"".join(names[: most_bytes // DIGEST_BYTES])

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for slot, tiles in enumerate(self._held):
            assert all(slot in self._owners[name] for name in tiles), "a tile without its owner"
        for name, owners in self._owners.items():
            assert owners, "a tile that nobody owns"
            assert all(name in self._held[slot] for slot in owners), "an owner without its tile"
