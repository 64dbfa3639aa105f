"""Makes runs of requests: checks, renders, tokenises, and brings resumed ones to where they were.

Rules:
- Everything a client can have got wrong is refused here, before a run is scheduled, with the
  numbers involved.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from hashlib import blake2b

import numpy as np

from meshslm.engine.begun import Begun
from meshslm.engine.forms import END_OF_THOUGHTS, Form, Forms
from meshslm.engine.grammar import Grammars
from meshslm.engine.llama import Vocabulary
from meshslm.engine.output import THINK, THOUGHT, OutputStream
from meshslm.engine.runs import Choice, Run
from meshslm.engine.sampling import Sampler
from meshslm.engine.templates import ChatTemplate, Part
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import TaskRequest


class Intake:
    """Makes runs of requests."""

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate, context: int, slots: int
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._context = context
        self._slots = slots
        self._scratch = np.zeros(vocabulary.size, dtype=np.float32)
        self._controls = vocabulary.control_tokens()
        self._forms = Forms(template, Grammars(vocabulary), self._controls)
        self._end_of_thoughts = vocabulary.tokens(END_OF_THOUGHTS, special=True)

    @property
    def prepared(self) -> bool:
        """Ready for answers of a given form."""
        return self._forms.grammars.prepared

    def prepare(self) -> None:
        """Make ready for answers of a given form: half a second that the first would wait."""
        self._forms.grammars.prepare()

    def run(self, number: int, request: TaskRequest, now: float, today: date) -> Run:
        """Check and tokenise a request. Raises `RequestFault`, or `OurFault` for the template."""
        self._check(request)
        parts = self._parts(request, today)
        form = self._forms.form(request, parts)
        prompt = self._tokens(request, parts)
        if not prompt:
            raise RequestFault(FaultCode.BAD_REQUEST, "the prompt is empty", param="prompt")
        room = self._context - len(prompt)
        most = request.max_tokens or room
        if room < 1 or most > room:
            asked = f" and {most} to generate are {len(prompt) + most}" if room >= 1 else ""
            raise RequestFault(
                FaultCode.CONTEXT_OVERFLOW,
                f"{len(prompt)} prompt tokens{asked}, but the context has {self._context}",
                param="max_tokens" if room >= 1 else "messages" if request.messages else "prompt",
            )
        seed = request.sampling.seed
        if seed is None:
            seed = int.from_bytes(os.urandom(7), "big")
        choices = [self._choice(request, form, seed, place) for place in range(request.choices)]
        run = Run(number, prompt, most, choices, request.logprobs, now)
        run.tenant, run.background = request.tenant, request.priority == "background"
        run.marks = self._marks(form)
        run.thinking_tokens = form.thinking_tokens
        run.end_of_thoughts = self._end_of_thoughts
        if form.thinking_tokens == 0:
            for choice in choices:
                if choice.output.thinking:
                    choice.forced = list(self._end_of_thoughts)
        if request.delivered or request.begun or request.shares is not None:
            begun = Begun(request, self._vocabulary)
            begun.make_room(run, room)
            begun.resume(run)
        return run

    def _choice(self, request: TaskRequest, form: Form, seed: int, place: int) -> Choice:
        return Choice(
            place,
            Sampler(request.sampling, seed, place, self._scratch),
            OutputStream(form.reading, request.stop, _call_ids(seed, place)),
            None if form.matcher is None else form.matcher.copy(),
        )

    def _marks(self, form: Form) -> dict[int, bytes]:
        if form.reading.plain:
            return {}
        texts = [THINK, THOUGHT]
        if form.reading.format is not None:
            format_ = form.reading.format
            texts += [format_.open, format_.close, format_.marker]
        return {self._controls[text]: text.encode() for text in texts if text in self._controls}

    def rendered(self, request: TaskRequest, today: date) -> tuple[str, list[int]]:
        """The prompt of a conversation, as text and as tokens. Raises as `run` does."""
        self._forms.check(request)
        parts = self._parts(request, today)
        return "".join(part.text for part in parts), self._tokens(request, parts)

    def _check(self, request: TaskRequest) -> None:
        self._forms.check(request)
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

    def _parts(self, request: TaskRequest, today: date) -> list[Part]:
        if not request.messages:
            return [Part(request.prompt, literal=True)] if request.prompt else []
        return self._template.render(
            request.messages,
            today,
            tools=() if request.tool_choice == "none" else request.tools,
            options=self._forms.options(request),
        )

    def _tokens(self, request: TaskRequest, parts: list[Part]) -> list[int]:
        vocabulary = self._vocabulary
        if not request.messages:
            return vocabulary.tokens(request.prompt, special=False, begins=True)
        tokens: list[int] = []
        for part in parts:
            tokens += vocabulary.tokens(part.text, special=not part.literal)
        if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
            tokens.insert(0, vocabulary.bos)
        return tokens


def _call_ids(seed: int, choice: int) -> Callable[[int], str]:
    """Ids of calls: of the run's seed, so that a run that is resumed elsewhere gives the same."""

    def call_id(index: int) -> str:
        digest = blake2b(f"{seed}/{choice}/{index}".encode(), digest_size=12)
        return f"call_{digest.hexdigest()}"

    return call_id
