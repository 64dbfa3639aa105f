"""Answers kept for requests that go on from them, in memory and within bounds.

Rules:
- They are kept by the node that was asked, not by the mesh, and not over a restart.
- The oldest goes first, whether there are too many, too much text, or its time is over.
- An id is a task's, which nobody can guess: who has it was given it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from meshslm import limits
from meshslm.api.conversation import Turn
from meshslm.api.responses_replies import ResponseReply


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer and the conversation up to it, its own turn included."""

    reply: bytes
    turns: tuple[Turn, ...]
    until_s: float
    private: bool = False
    """No request that goes on from it leaves the mesh."""

    @property
    def size(self) -> int:
        """Bytes it takes, about: turns shared with others are counted again."""
        texts = sum(len(text) for turn in self.turns for text in turn.texts())
        return len(self.reply) + texts


class KeptResponses:
    """All kept answers of a node. Times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def keep(
        self, reply: ResponseReply, turns: tuple[Turn, ...], now_s: float, *, private: bool = False
    ) -> None:
        """Keep an answer, and let go of what is too much."""
        kept = Kept(msgspec.json.encode(reply), turns, now_s + limits.RESPONSES_MS / 1000, private)
        self.drop(reply.id)
        self._kept[reply.id] = kept
        self._bytes += kept.size
        self._sweep(now_s)

    def get(self, name: str, now_s: float) -> Kept | None:
        """A kept answer, by its id."""
        self._sweep(now_s)
        return self._kept.get(name)

    def drop(self, name: str) -> bool:
        """Let go of an answer; whether it was there."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        self._bytes -= kept.size
        return True

    def _sweep(self, now_s: float) -> None:
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            too_much = self._bytes > limits.RESPONSES_BYTES or len(self._kept) > limits.RESPONSES
            if oldest.until_s > now_s and not too_much:
                return
            self.drop(name)
