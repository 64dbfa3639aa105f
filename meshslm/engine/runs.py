"""What the worker knows of each run: its tokens, its text, and how far it is.

Rules:
- Everything a client can have got wrong is refused here, before a run is scheduled, with the
  numbers involved.
- A choice ends by the model's end token, a stop string (`stop`) or its limit (`length`); nothing is
  reported of it afterwards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt

from meshslm.engine.llama import Vocabulary
from meshslm.engine.sampling import Ranked, Row, Sampler, ranked
from meshslm.engine.schedule import Job
from meshslm.engine.templates import ChatTemplate
from meshslm.engine.text import TextStream
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import Chunk, TaskRequest, TokenLogprob, TopLogprob


@dataclass(slots=True)
class Choice:
    """One answer in the making."""

    number: int
    sampler: Sampler
    text: TextStream
    tokens: list[int] = field(default_factory=list)
    finish: str = ""


@dataclass(slots=True)
class Run:
    """One run. Times are seconds on the worker's monotonic clock."""

    id: int
    prompt: list[int]
    most: int
    choices: list[Choice]
    logprobs: int | None
    arrived: float
    admitted: float = 0.0
    first_token: float = 0.0
    _prompt_set: npt.NDArray[np.int64] | None = None

    @property
    def job(self) -> Job:
        """Itself, for the scheduler."""
        return Job(self.id, len(self.prompt), self.most, len(self.choices))

    @property
    def finished(self) -> bool:
        """Every choice has ended."""
        return all(choice.finish for choice in self.choices)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all choices."""
        return sum(len(choice.tokens) for choice in self.choices)

    def tokens(self, choice: int, start: int, count: int) -> list[int]:
        """Tokens of prompt and answer, by place."""
        known = len(self.prompt)
        end = start + count
        if end <= known:
            return self.prompt[start:end]
        made = self.choices[choice].tokens
        return self.prompt[start:known] + made[max(0, start - known) : end - known]

    def draw(self, number: int, row: Row) -> int:
        """Choose the next token of a choice from its logits."""
        choice = self.choices[number]
        if choice.sampler.changes and self._prompt_set is None:
            self._prompt_set = np.unique(np.asarray(self.prompt, dtype=np.int64))
        place = len(self.prompt) + len(choice.tokens)
        return choice.sampler.draw(row, place, self._prompt_set, choice.tokens)

    def take(self, number: int, token: int, row: Row, vocabulary: Vocabulary) -> Chunk:
        """Append a token to a choice; the chunk to report."""
        choice = self.choices[number]
        if vocabulary.ends(token):
            choice.finish = "stop"
            return Chunk(number, text=choice.text.close(), finish="stop")
        choice.tokens.append(token)
        text = choice.text.feed(vocabulary.piece(token))
        if not choice.text.stopped and len(choice.tokens) >= self.most:
            text += choice.text.close()
            choice.finish = "length"
        if choice.text.stopped:
            choice.finish = "stop"
        logprobs: tuple[TokenLogprob, ...] = ()
        if self.logprobs is not None:
            logprobs = (_told(*ranked(row, token, self.logprobs), vocabulary),)
        return Chunk(number, (token,), text, logprobs, choice.finish)


def _told(chosen: Ranked, likeliest: tuple[Ranked, ...], vocabulary: Vocabulary) -> TokenLogprob:
    top = tuple(TopLogprob(*_piece(entry, vocabulary), entry.logprob) for entry in likeliest)
    return TokenLogprob(*_piece(chosen, vocabulary), chosen.logprob, top)


def _piece(entry: Ranked, vocabulary: Vocabulary) -> tuple[str, bytes]:
    raw = vocabulary.piece(entry.token)
    return raw.decode(errors="replace"), raw


class Intake:
    """Makes runs of requests."""

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate, context: int, slots: int
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._context = context
        self._slots = slots

    def run(self, number: int, request: TaskRequest, now: float, today: date) -> Run:
        """Check and tokenise a request. Raises `RequestFault`, or `OurFault` for the template."""
        self._check(request)
        prompt = self._prompt(request, today)
        if not prompt:
            raise RequestFault(FaultCode.BAD_REQUEST, "the prompt is empty", param="prompt")
        room = self._context - len(prompt)
        most = request.max_tokens or room
        if room < 1 or most > room:
            asked = f" and {most} to generate are {len(prompt) + most}" if room >= 1 else ""
            raise RequestFault(
                FaultCode.CONTEXT_OVERFLOW,
                f"{len(prompt)} prompt tokens{asked}, but the context has {self._context}",
                param="max_tokens" if room >= 1 else "messages",
            )
        seed = request.sampling.seed
        if seed is None:
            seed = int.from_bytes(os.urandom(7), "big")
        choices = [
            Choice(place, Sampler(request.sampling, seed, place), TextStream(request.stop))
            for place in range(request.choices)
        ]
        return Run(number, prompt, most, choices, request.logprobs, now)

    def _check(self, request: TaskRequest) -> None:
        if request.choices > self._slots:
            raise RequestFault(
                FaultCode.BAD_REQUEST,
                f"{request.choices} choices, but this engine runs {self._slots} at a time",
                param="n",
            )
        for bias in request.sampling.logit_bias:
            if not 0 <= bias.token < self._vocabulary.size:
                raise RequestFault(
                    FaultCode.BAD_REQUEST,
                    f"logit_bias for token {bias.token}, but the vocabulary has tokens 0 to "
                    f"{self._vocabulary.size - 1}",
                    param="logit_bias",
                )

    def _prompt(self, request: TaskRequest, today: date) -> list[int]:
        vocabulary = self._vocabulary
        if not request.messages:
            return vocabulary.tokens(request.prompt, special=False, begins=True)
        tokens: list[int] = []
        for part in self._template.render(request.messages, today):
            tokens += vocabulary.tokens(part.text, special=not part.literal)
        if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
            tokens.insert(0, vocabulary.bos)
        return tokens
