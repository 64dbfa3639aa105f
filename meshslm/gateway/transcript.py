"""What one choice has produced so far, cut into blocks: thinking, text, calls.

The shapes of answers differ between families of requests, and so do the events of their streams;
what happens to a block (it begins, grows, ends) is the same for all of them.

Rules:
- A block ends when another begins, or with the answer; an answer may have no block.
- A piece of a call that has ended still reaches it: its events carry its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from meshslm.wire.messages import Chunk, TokenLogprob

Kind: TypeAlias = Literal["reasoning", "text", "call"]


@dataclass(slots=True, eq=False)
class Block:
    """A part of an answer. `id` and `name` are a call's; its text is its arguments."""

    number: int
    kind: Kind
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All its text."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Begun:
    """A block has begun. This is an empty twin of it: the block itself may have grown since."""

    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    """A block has more text."""

    block: Block
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A block is whole."""

    block: Block


Step: TypeAlias = Begun | Grown | Ended


class Thoughts:
    """Counts the tokens that one choice spends on thinking.

    Text lags behind tokens, so the tokens at both ends of the thinking may be counted to the other
    side.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._thinking = False

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        if chunk.reasoning or chunk.text or chunk.calls:
            self._thinking = bool(chunk.reasoning)
        if self._thinking:
            self.tokens += len(chunk.tokens)


class Transcript:
    """One choice."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish = "stop"
        self.stopped = ""
        self.thoughts = Thoughts()
        self._open: Block | None = None
        self._calls: dict[int, Block] = {}

    def add(self, chunk: Chunk) -> list[Step]:
        """Append a chunk of this choice; what that does to its blocks."""
        self.logprobs.extend(chunk.logprobs)
        self.thoughts.add(chunk)
        steps: list[Step] = []
        if chunk.reasoning:
            steps += self._grow_plain("reasoning", chunk.reasoning)
        if chunk.text:
            steps += self._grow_plain("text", chunk.text)
        for piece in chunk.calls:
            call = self._calls.get(piece.index)
            if call is None:
                call = Block(len(self.blocks), "call", piece.id, piece.name)
                self._calls[piece.index] = call
                steps += self._begin(call)
            if piece.arguments:
                steps.append(self._grow(call, piece.arguments))
        if chunk.finish:
            self.finish, self.stopped = chunk.finish, chunk.stopped
        return steps

    def end(self) -> list[Step]:
        """The answer is whole."""
        open_, self._open = self._open, None
        return [] if open_ is None else [Ended(open_)]

    def of_kind(self, kind: Kind) -> Iterator[Block]:
        """Its blocks of one kind."""
        return (block for block in self.blocks if block.kind == kind)

    @property
    def text(self) -> str:
        """All its text."""
        return "".join(block.text for block in self.of_kind("text"))

    @property
    def reasoning(self) -> str:
        """All that was thought."""
        return "".join(block.text for block in self.of_kind("reasoning"))

    def _grow_plain(self, kind: Kind, text: str) -> list[Step]:
        block, steps = self._open, list[Step]()
        if block is None or block.kind != kind:
            block = Block(len(self.blocks), kind)
            steps = self._begin(block)
        return [*steps, self._grow(block, text)]

    def _begin(self, block: Block) -> list[Step]:
        steps = self.end()
        self.blocks.append(block)
        self._open = block
        return [*steps, Begun(replace(block, pieces=[]))]

    def _grow(self, block: Block, text: str) -> Grown:
        block.pieces.append(text)
        return Grown(block, text)
