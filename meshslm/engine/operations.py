"""What is asked of a model beside its answers: tokens of a text, a text of tokens, a prompt.

None of it computes anything with the model, so it is done between steps, a little at a time.

Rules:
- Tokens are those that the model would get: of a text as a prompt of its own, with what its
  vocabulary adds in front or behind; texts of control tokens in it stay text.
- No chunk is larger than a message may be.
- Who waits is served in turns, a chunk each.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from meshslm.engine.llama import Vocabulary
from meshslm.engine.protocol import Ended, Produced, Report
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import Chunk, TaskRequest, Timings, Usage
from meshslm.wire.tokens import unpacked

WORK_S: Final = 0.005
"""Time for this between two steps: a tenth of a step with a few running streams."""
TOKENS: Final = 1024
"""Tokens of one chunk, as the protocol has it."""
CHARACTERS: Final = 64 * 1024
"""Characters of one chunk: at most 256 KiB."""

NO_VECTORS: Final = (
    ": it generates text, and was not trained to make vectors or scores of it; choose an embedding "
    "model"
)

Render = Callable[[TaskRequest, date], tuple[str, list[int]]]
"""The prompt of a conversation, as text and as tokens. Raises `RequestFault` or `OurFault`."""


@dataclass(slots=True)
class _Job:
    """One operation under way; what it yields is reported."""

    number: int
    chunks: Iterator[Chunk]
    arrived: float
    tokens: int = 0
    """Given, or made so far."""
    began: float = 0.0


class Desk:
    """Operations that need no computing."""

    def __init__(self, vocabulary: Vocabulary, render: Render | None) -> None:
        """`render` is None for a model without conversations."""
        self._vocabulary = vocabulary
        self._render = render
        self._jobs: deque[_Job] = deque()

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._jobs

    def start(self, number: int, request: TaskRequest, today: date) -> None:
        """Begin an operation. Raises `RequestFault`, or `OurFault` for a broken template."""
        arrived = time.monotonic()
        match request.operation:
            case "tokenize":
                check_inputs(request)
                job = _Job(number, self._tokenize(request.inputs), arrived)
            case "detokenize":
                given = given_tokens(request, self._vocabulary.size, "tokens")
                chunks = _cut(0, (), self._vocabulary.text(given))
                job = _Job(number, chunks, arrived, len(given))
            case "template" if self._render is not None:
                if not request.messages:
                    detail = "a template needs a conversation"
                    raise RequestFault(FaultCode.BAD_REQUEST, detail, param="messages")
                text, tokens = self._render(request, today)
                job = _Job(number, _cut(0, tokens, text), arrived)
            case operation:
                why = NO_VECTORS if operation in ("embed", "rerank") else ""
                detail = f"this model cannot do {operation!r}{why}"
                raise RequestFault(FaultCode.BAD_REQUEST, detail, param="model")
        self._jobs.append(job)

    def stop(self, number: int) -> None:
        """Forget an operation; unknown ones are ignored."""
        self._jobs = deque(job for job in self._jobs if job.number != number)

    def work(self) -> list[Report]:
        """Go on for a moment; what came of it."""
        until = time.monotonic() + WORK_S
        reports: list[Report] = []
        while self._jobs and (not reports or time.monotonic() < until):
            job = self._jobs.popleft()
            job.began = job.began or time.monotonic()
            chunk = next(job.chunks, None)
            if chunk is None:
                reports.append(_ended(job))
            else:
                job.tokens += len(chunk.tokens)
                reports.append(Produced(job.number, chunk))
                self._jobs.append(job)
        return reports

    def _tokenize(self, texts: Sequence[str]) -> Iterator[Chunk]:
        for item, text in enumerate(texts):
            yield from _cut(item, self._vocabulary.tokens(text, special=False, begins=True))


def given_tokens(request: TaskRequest, size: int, param: str) -> tuple[int, ...]:
    """The tokens that a request gives, whose field is `param`.

    Raises `RequestFault` where one is none of the vocabulary's `size`.
    """
    try:
        tokens = unpacked(request.packed) or request.given
    except ValueError as error:
        raise RequestFault(FaultCode.BAD_REQUEST, str(error), param=param) from None
    strange = next((token for token in tokens if not 0 <= token < size), None)
    if strange is not None:
        raise RequestFault(
            FaultCode.BAD_REQUEST,
            f"token {strange} does not exist, the vocabulary has tokens 0 to {size - 1}",
            param=param,
        )
    return tokens


def check_inputs(request: TaskRequest) -> None:
    """Raise `RequestFault` where there is nothing to work on."""
    if not request.inputs:
        raise RequestFault(
            FaultCode.BAD_REQUEST, f"{request.operation} needs at least one text", param="input"
        )


def _cut(item: int, tokens: Sequence[int], text: str = "") -> Iterator[Chunk]:
    """Chunks that together have all of it; one where there is nothing."""
    yield Chunk(0, tuple(tokens[:TOKENS]), text[:CHARACTERS], item=item)
    for place in range(CHARACTERS, len(text), CHARACTERS):
        yield Chunk(0, text=text[place : place + CHARACTERS], item=item)
    for place in range(TOKENS, len(tokens), TOKENS):
        yield Chunk(0, tuple(tokens[place : place + TOKENS]), item=item)


def _ended(job: _Job) -> Ended:
    now = time.monotonic()
    timings = Timings(
        queue_ms=(job.began - job.arrived) * 1000, prefill_ms=(now - job.began) * 1000
    )
    return Ended(job.number, Usage(job.tokens), timings)
