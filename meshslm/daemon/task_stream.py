"""What comes back for one task, kept for a reader that may be slow.

Rules:
- A reader that keeps up gets every item as it came, at once. For one that is behind, tokens that
  follow each other become one item of at most `MERGED_TOKENS`: fewer events to write, less to keep.
- A reader so slow that `STREAM_BYTES` pile up loses its task, not the node its memory; the run is
  stopped, wherever it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import trio

from meshslm import limits
from meshslm.core.events import EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.errors import FaultCode
from meshslm.ids import TaskId
from meshslm.wire.messages import Chunk

ClientEffect = RouteChosen | EmitChunk | FinishTask | FailTask

TOKEN_BYTES = 32
"""Of a token in a tuple, and its share of the values around it."""
TOKENLESS_BYTES = 256
"""Of an item without tokens, whatever is in it: it is never joined with another."""
LOGPROB_BYTES = 256
"""Of one token's text, bytes and number as values."""


class TaskStream:
    """The route, chunks, and one end."""

    def __init__(self, task: TaskId) -> None:
        self.task = task
        self.ended = False
        self._items: deque[ClientEffect] = deque()
        self._kept = 0
        """Bytes of the chunks that wait, about."""
        self._more = trio.Event()

    def push(self, effect: ClientEffect) -> bool:
        """Queue an item; false where the reader is too slow and the task must go."""
        if self.ended:
            return True
        if isinstance(effect, EmitChunk):
            self._kept += weight(effect.chunk)
            if self._kept > limits.STREAM_BYTES:
                why = f"the client reads too slowly: {self._kept} bytes wait for it"
                effect = FailTask(self.task, FaultCode.CANCELLED, why)
                self._put(effect)
                return False
        self._put(effect)
        return True

    def _put(self, effect: ClientEffect) -> None:
        self.ended = isinstance(effect, FinishTask | FailTask)
        last = self._items[-1] if self._items else None
        if (
            isinstance(last, EmitChunk)
            and isinstance(effect, EmitChunk)
            and may_merge(last.chunk, effect.chunk)
        ):
            self._items[-1] = EmitChunk(self.task, merged(last.chunk, effect.chunk))
        else:
            self._items.append(effect)
        self._more.set()

    def take_nowait(self) -> ClientEffect | None:
        """The next item if it is there already."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, EmitChunk):
            self._kept -= weight(item.chunk)
        return item

    def __aiter__(self) -> TaskStream:
        return self

    async def __anext__(self) -> ClientEffect:
        while (item := self.take_nowait()) is None:
            if self.ended:
                raise StopAsyncIteration
            self._more = trio.Event()
            await self._more.wait()
        return item


def weight(chunk: Chunk) -> int:
    """About how many bytes of memory a chunk takes; of two merged it is the sum."""
    texts = len(chunk.text) + len(chunk.reasoning) + len(chunk.vector)
    calls = sum(len(piece.arguments) + LOGPROB_BYTES for piece in chunk.calls)
    told = sum(1 + len(logprob.top) for logprob in chunk.logprobs)
    tokens = TOKEN_BYTES * len(chunk.tokens) or TOKENLESS_BYTES
    return texts + calls + tokens + LOGPROB_BYTES * told


def may_merge(first: Chunk, second: Chunk) -> bool:
    """Whether two chunks that follow each other may be told as one."""
    return (
        first.choice == second.choice
        and not first.finish
        and not (first.calls or second.calls or first.vector or second.vector)
        and first.item == second.item
        and not (first.text and second.reasoning)
        and len(second.tokens) > 0
        and 0 < len(first.tokens) <= limits.MERGED_TOKENS - len(second.tokens)
    )


def merged(first: Chunk, second: Chunk) -> Chunk:
    """Both as one."""
    return replace(
        first,
        tokens=first.tokens + second.tokens,
        text=first.text + second.text,
        reasoning=first.reasoning + second.reasoning,
        logprobs=first.logprobs + second.logprobs,
        finish=second.finish,
        stopped=second.stopped,
    )
