"""The worker's loop for a model that reads texts: vectors of them, or scores of pairs.

Texts of all requests that are under way are computed together, as many as fit a call.

Rules:
- A request gets one place in a call before any gets a second one, so that a request of one text
  does not wait for one of a thousand.
- A text that is longer than the model can read is refused with both numbers, never cut: a vector
  of half a text looks like any other.
- Vectors have length one. Scores are from 0 to 1 where a ranking head gives them, and from -1 to 1
  where they compare two vectors.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from meshslm.engine.cores import ThreadChoice
from meshslm.engine.gguf import GgufHeader
from meshslm.engine.kinds import Pooling, pooling_of
from meshslm.engine.llama import DecodeFailed
from meshslm.engine.llama_encoder import Encoder
from meshslm.engine.operations import Desk, check_inputs, given_tokens
from meshslm.engine.protocol import (
    Command,
    Ended,
    Failed,
    Forget,
    Load,
    Measured,
    Produced,
    Ready,
    Report,
    Shutdown,
    Start,
    Stop,
)
from meshslm.errors import FaultCode, OurFault, RequestFault
from meshslm.wire.messages import Chunk, TaskRequest, Timings, Usage

TEXTS: Final = 64
"""Texts of one call: with a call of 512 tokens their mean length is 8 before this bounds."""
REVISE_S: Final = 1.0
"""Time between two looks at the load of others, and between two reports of the speed."""
SMOOTHING: Final = 0.2
"""Weight of the newest call in the measured speed."""

Vector = npt.NDArray[np.float32]


class Pipe(Protocol):
    """The worker's way to the daemon."""

    def receive(self, *, wait: bool) -> list[Command]:
        """Commands that have come; waits for some where `wait`."""
        ...

    def send(self, reports: list[Report]) -> None:
        """Report."""
        ...


@dataclass(slots=True)
class Reading:
    """One request: its texts as tokens, and how far it is."""

    number: int
    texts: list[list[int]]
    compares: bool
    """The first text is the query that the others are compared with."""
    arrived: float
    began: float = 0.0
    taken: int = 0
    """Texts that were given to a call."""
    done: int = 0
    query: Vector | None = None

    @property
    def tokens(self) -> int:
        """Of all its texts."""
        return sum(map(len, self.texts))


@dataclass(slots=True)
class Readings:
    """Requests under way, in turns."""

    rows: int
    """Tokens of one call."""
    most: int = TEXTS
    """Texts of one call."""
    _waiting: deque[Reading] = field(default_factory=deque)

    @property
    def idle(self) -> bool:
        """Nobody waits."""
        return not self._waiting

    def add(self, reading: Reading) -> None:
        """Queue a request."""
        self._waiting.append(reading)

    def stop(self, number: int) -> None:
        """Forget a request; unknown ones are ignored."""
        self._waiting = deque(held for held in self._waiting if held.number != number)

    def take(self) -> list[tuple[Reading, int]]:
        """The texts of the next call: whose, and which."""
        call: list[tuple[Reading, int]] = []
        left = self.rows
        full: list[Reading] = []
        while self._waiting and len(call) < self.most:
            reading = self._waiting.popleft()
            size = len(reading.texts[reading.taken])
            if size > left:
                full.append(reading)
                continue
            left -= size
            call.append((reading, reading.taken))
            reading.taken += 1
            if reading.taken < len(reading.texts):
                self._waiting.append(reading)
        # Who found no room is first next time.
        self._waiting.extendleft(reversed(full))
        return call


class EncoderWorker:
    """The loop over calls."""

    def __init__(
        self, pipe: Pipe, model: Encoder, pooling: Pooling, context: int, rows: int
    ) -> None:
        """`rows` is at least `context`: a text is read in one call."""
        self._pipe = pipe
        self._model = model
        self._pooling = pooling
        self._context = context
        self._readings = Readings(rows)
        self._desk = Desk(model.vocabulary, None)
        self._reports: list[Report] = []
        self._speed = 0.0
        self._told = (0.0, 0.0)

    def serve(self, threads: ThreadChoice) -> None:
        """Serve until told to leave."""
        while True:
            idle = self._readings.idle and self._desk.idle
            for command in self._pipe.receive(wait=idle):
                match command:
                    case Start():
                        self._start(command)
                    case Stop(number):
                        self._readings.stop(number)
                        self._desk.stop(number)
                    case Shutdown():
                        return
                    case Forget():
                        pass  # it was never told of one
                    case Load():
                        raise OurFault("a second model for one worker")
            if idle:
                threads.begin()
            self._reports += self._desk.work()
            call = self._readings.take()
            if call:
                self._compute(call, threads)
            self._report()

    def _report(self) -> None:
        now = time.monotonic()
        speed, (told, told_at) = round(self._speed, 1), self._told
        if speed != told and now - told_at >= REVISE_S:
            self._told = (speed, now)
            self._reports.append(Measured(speed, 0.0))
        if self._reports:
            self._pipe.send(self._reports)
            self._reports = []

    def _start(self, command: Start) -> None:
        number, request = command.run, command.request
        try:
            if request.operation in ("tokenize", "detokenize"):
                self._desk.start(number, request, datetime.now().astimezone().date())
            else:
                self._readings.add(self._reading(number, request))
        except RequestFault as fault:
            self._reports.append(Failed(number, fault.code, fault.detail, fault.param or ""))

    def _reading(self, number: int, request: TaskRequest) -> Reading:
        """A request as tokens. Raises `RequestFault`."""
        now = time.monotonic()
        if request.adapter:
            detail = "this model takes no adapters"
            raise RequestFault(FaultCode.BAD_REQUEST, detail, param="adapter")
        ranks = self._pooling is Pooling.RANK
        match request.operation:
            case "embed" if not ranks and (request.given or request.packed):
                # Tokens are taken as they are: with what the model wants around a text, or not.
                given = given_tokens(request, self._model.vocabulary.size, "input")
                texts = self._texts(("",), lambda _: list(given), "input")
            case "embed" if not ranks:
                check_inputs(request)
                texts = self._texts(request.inputs, self._whole, "input")
            case "rerank" if ranks:
                check_inputs(request)
                texts = self._texts(request.inputs, self._pair(request.prompt), "documents")
            case "rerank":
                check_inputs(request)
                texts = self._texts((request.prompt,), self._whole, "query")
                texts += self._texts(request.inputs, self._whole, "documents")
            case operation:
                makes = "scores of pairs of texts" if ranks else "vectors of texts"
                detail = f"this model makes {makes}, it cannot do {operation!r}"
                raise RequestFault(FaultCode.BAD_REQUEST, detail, param="model")
        compares = request.operation == "rerank" and not ranks
        return Reading(number, texts, compares, now)

    def _texts(
        self, inputs: Sequence[str], tokens: Callable[[str], list[int]], param: str
    ) -> list[list[int]]:
        texts = []
        for item, text in enumerate(inputs):
            made = tokens(text)
            if not made:
                raise RequestFault(FaultCode.BAD_REQUEST, f"text {item} is empty", param=param)
            if len(made) > self._context:
                raise RequestFault(
                    FaultCode.CONTEXT_OVERFLOW,
                    f"text {item} has {len(made)} tokens, but this model reads {self._context} at "
                    "most; send it in parts",
                    param=param,
                )
            texts.append(made)
        return texts

    def _whole(self, text: str) -> list[int]:
        return self._model.vocabulary.tokens(text, special=False, begins=True)

    def _pair(self, query: str) -> Callable[[str], list[int]]:
        """How a document is joined to `query`: as models of the BERT and RoBERTa kinds expect."""
        vocabulary = self._model.vocabulary
        begin = [vocabulary.bos] if vocabulary.adds_bos else []
        last = vocabulary.eos if vocabulary.eos >= 0 else vocabulary.sep
        sep = [vocabulary.sep] if vocabulary.adds_sep else []
        end = [last] if vocabulary.adds_eos else sep
        between = [*end, *sep] if vocabulary.adds_eos else sep
        asked = vocabulary.tokens(query, special=False)

        def pair(document: str) -> list[int]:
            told = vocabulary.tokens(document, special=False)
            return [*begin, *asked, *between, *told, *end]

        return pair

    # --- a call -----------------------------------------------------------------------------------
    def _compute(self, call: list[tuple[Reading, int]], threads: ThreadChoice) -> None:
        began = time.monotonic()
        for reading, _ in call:
            reading.began = reading.began or began
        texts = [reading.texts[item] for reading, item in call]
        try:
            with threads.timed(sum(map(len, texts)), self._model.set_threads):
                found = self._model.encode(texts)
        except DecodeFailed as fault:
            self._fail(call, str(fault))
            return
        speed = sum(map(len, texts)) / max(time.monotonic() - began, 1e-6)
        self._speed = speed if not self._speed else self._speed + SMOOTHING * (speed - self._speed)
        broken = []
        for place, numbers in zip(call, found, strict=True):
            if np.isfinite(numbers).all():
                self._deliver(*place, numbers)
            else:
                broken.append(place)
        self._fail(broken, "the model computed numbers that are not finite")

    def _deliver(self, reading: Reading, item: int, numbers: Vector) -> None:
        reading.done += 1
        if self._pooling is Pooling.RANK:
            score = 1.0 / (1.0 + math.exp(-max(-700.0, float(numbers[0]))))
            self._tell(reading, Chunk(0, item=item, score=score))
        else:
            length = float(np.linalg.norm(numbers.astype(np.float64)))
            vector = (numbers / np.float32(length or 1.0)).astype("<f4")
            if not reading.compares:
                self._tell(reading, Chunk(0, item=item, vector=vector.tobytes()))
            elif reading.query is None:
                reading.query = vector  # texts are computed in their order, the query first
            else:
                score = float(vector @ reading.query)
                self._tell(reading, Chunk(0, item=item - 1, score=score))
        if reading.done == len(reading.texts):
            now = time.monotonic()
            timings = Timings(
                queue_ms=(reading.began - reading.arrived) * 1000,
                prefill_ms=(now - reading.began) * 1000,
            )
            self._reports.append(Ended(reading.number, Usage(reading.tokens), timings))

    def _tell(self, reading: Reading, chunk: Chunk) -> None:
        self._reports.append(Produced(reading.number, chunk))

    def _fail(self, call: Sequence[tuple[Reading, int]], detail: str) -> None:
        for number in dict.fromkeys(reading.number for reading, _ in call):
            self._readings.stop(number)
            self._reports.append(Failed(number, FaultCode.INTERNAL, detail))


def load_encoder(
    pipe: Pipe,
    command: Load,
    header: GgufHeader,
    threads: ThreadChoice,
    progress: Callable[[float], None],
) -> tuple[EncoderWorker, Ready]:
    """Load a model that makes vectors or scores. Raises `OurFault`."""
    rows = max(command.batch, command.context)
    pooling = pooling_of(header)
    model = Encoder(
        Path(command.path),
        rows=rows,
        texts=TEXTS,
        pooling=pooling,
        threads=threads.threads,
        on_progress=progress,
    )
    ready = Ready(
        slots=command.slots,
        context=command.context,
        vocabulary=model.vocabulary.size,
        parameters=model.parameters,
        quantisation=header.quantisation,
        description=header.architecture,
        threads=threads.threads,
    )
    return EncoderWorker(pipe, model, pooling, command.context, rows), ready
