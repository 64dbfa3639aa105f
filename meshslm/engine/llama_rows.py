"""Rows of a call of llama.cpp, in arrays that it reads as they are.

Rules:
- Nothing is allocated for a call: the arrays are made once, for the largest.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import llama_cpp as llama
import numpy as np

_BATCH_TYPES: Final = {field[0]: field[1] for field in llama.llama_batch._fields_}


class Rows:
    """Rows of a call, in arrays that llama.cpp reads directly."""

    def __init__(self, most: int) -> None:
        self.tokens = np.zeros(most, dtype=np.int32)
        self.places = np.zeros(most, dtype=np.int32)
        self.slots = np.zeros(most, dtype=np.int32)
        self._wanted = np.zeros(most, dtype=np.int8)
        self._ones = np.ones(most, dtype=np.int32)
        stride = self.slots.itemsize
        self._slot_pointers = self.slots.ctypes.data + stride * np.arange(most, dtype=np.uintp)
        self._token_cells = self.tokens.data
        self._place_cells = self.places.data
        self._slot_cells = self.slots.data
        self._wanted_cells = self._wanted.data
        self.count = 0
        self._farthest = 0
        self._batch = llama.llama_batch()
        for name, array in (
            ("token", self.tokens),
            ("pos", self.places),
            ("n_seq_id", self._ones),
            ("seq_id", self._slot_pointers),
            ("logits", self._wanted),
        ):
            kind: Any = _BATCH_TYPES[name]
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, kind))

    def clear(self) -> None:
        """Begin with no rows."""
        self.count = self._farthest = 0

    def add(self, slot: int, start: int, tokens: Sequence[int], *, wanted: bool) -> None:
        """Add rows of one sequence; `wanted`: a result for the last one."""
        begin, end = self.count, self.count + len(tokens)
        if len(tokens) == 1:  # ranges cost several times as much, and this is every token
            self._token_cells[begin] = tokens[0]
            self._place_cells[begin] = start
            self._slot_cells[begin] = slot
            self._wanted_cells[begin] = wanted
            self.count = end
            self._farthest = max(self._farthest, end - begin + start)
            return
        self.tokens[begin:end] = tokens
        self.places[begin:end] = range(start, start + len(tokens))
        self.slots[begin:end] = slot
        self._wanted[begin:end] = 0
        self._wanted[end - 1] = wanted
        self.count = end
        self._farthest = max(self._farthest, start + len(tokens))

    def want_all(self) -> None:
        """Every row has a result."""
        self._wanted[: self.count] = 1

    def lone(self, begin: int) -> list[int]:
        """Rows without a neighbour, which llama.cpp computes by themselves, from a place on.

        In order of slots, one row each; none where a sequence has more than one.
        """
        if self._farthest <= begin:
            return []
        slots = self.slots[: self.count]
        gaps = np.diff(slots)
        if (gaps < 1).any():
            return []
        before = np.concatenate(([True], gaps > 1))
        after = np.concatenate((gaps > 1, [True]))
        far = self.places[: self.count] >= begin
        return [int(row) for row in np.flatnonzero(before & after & far)]

    def batch(self) -> llama.llama_batch:
        """What llama.cpp takes; valid until rows are added."""
        self._batch.n_tokens = self.count
        return self._batch
