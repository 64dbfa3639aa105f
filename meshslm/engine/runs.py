"""What the worker knows of each run: its tokens, its text, and how far it is.

Rules:
- Everything a client can have got wrong is refused here, before a run is scheduled, with the
  numbers involved.
- A choice ends by the model's end token, a stop string, or the end of its form (`stop`, or
  `tool_calls` where it called some), or by its limit (`length`); nothing is reported of it
  afterwards.
- A choice's state is a function of the request and its tokens: `replay` rebuilds it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from meshslm.engine.forms import END_OF_THOUGHTS, Form, Forms
from meshslm.engine.gbnf import GrammarFault
from meshslm.engine.grammar import Grammars, Matcher
from meshslm.engine.llama import Vocabulary
from meshslm.engine.output import THINK, THOUGHT, Delta, OutputStream
from meshslm.engine.prefix_cache import Tiles
from meshslm.engine.sampling import Ranked, Row, Sampler, ranked
from meshslm.engine.speculate import Lookup
from meshslm.engine.steps import Job
from meshslm.engine.templates import ChatTemplate, Part
from meshslm.errors import FaultCode, RequestFault
from meshslm.limits import TOOL_CALLS
from meshslm.wire.messages import Chunk, TaskRequest, TokenLogprob, TopLogprob


@dataclass(slots=True)
class Choice:
    """One answer in the making."""

    number: int
    sampler: Sampler
    output: OutputStream
    matcher: Matcher | None = None
    tokens: list[int] = field(default_factory=list)
    finish: str = ""
    thought: int = 0
    """Tokens among thoughts."""
    forced: list[int] = field(default_factory=list)
    """Tokens that come next, whatever the model says."""
    lookup: Lookup | None = None
    """Its tokens and the prompt's, once they were looked at for guesses."""

    def end(self, finish: str) -> None:
        """It ends by itself, or by its limit."""
        self.finish = "tool_calls" if finish == "stop" and self.output.calls else finish

    def close(self, delta: Delta, finish: str) -> Delta:
        """It ends after what `delta` released; that, and what was still held back."""
        last = self.output.close()
        self.end("stop" if self.output.stopped else finish)
        return Delta(
            delta.text + last.text, delta.reasoning + last.reasoning, delta.calls + last.calls
        )


@dataclass(slots=True)
class Run:
    """One run. Times are seconds on the worker's monotonic clock."""

    id: int
    prompt: list[int]
    most: int
    choices: list[Choice]
    logprobs: int | None
    arrived: float
    group: str = ""
    """Which runs it may share a step with; the file of its adapter."""
    marks: Mapping[int, bytes] = field(default_factory=dict)
    """Control tokens that are read as text, because they are tags of thoughts or calls."""
    thinking_tokens: int | None = None
    """After so many, `end_of_thoughts` comes."""
    end_of_thoughts: Sequence[int] = ()
    tenant: str = ""
    background: bool = False
    tiles: Tiles = ()
    """Names of the prompt's tiles, where they may be taken over from other runs."""
    resumed: int = 0
    """Tokens of the answer that were made, and delivered, elsewhere."""
    cached: int = -1
    """Tokens of the prompt that were not computed; below 0 while that is not known."""
    guessed: int = 0
    """Tokens that were guessed for it."""
    accepted: int = 0
    """Those of them that it had drawn, too."""
    admitted: float = 0.0
    first_token: float = 0.0
    _prompt_set: npt.NDArray[np.int64] | None = None

    @property
    def job(self) -> Job:
        """Itself, for the scheduler."""
        return Job(
            self.id,
            len(self.prompt),
            self.most,
            len(self.choices),
            self.resumed,
            group=self.group,
            tiles=self.tiles,
            tenant=self.tenant,
            background=self.background,
        )

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

    def guess(self, number: int, most: int) -> list[int]:
        """What a choice may go on with, at most so many tokens.

        What its form leaves no choice about, or else what was said before.
        """
        choice = self.choices[number]
        most = min(most, self.most - len(choice.tokens) - 1)
        if choice.forced:
            return choice.forced[:most]
        if choice.matcher is not None:
            forced = choice.matcher.ahead()
            if forced:
                return forced[:most]
        if choice.lookup is None:
            choice.lookup = Lookup(self.prompt)
        choice.lookup.extend(choice.tokens[len(choice.lookup) - len(self.prompt) :])
        return choice.lookup.guess(most)

    def draw(self, number: int, row: Row, best: int) -> int:
        """Choose the next token of a choice from its logits, of which `best` is the likeliest.

        Raises `GrammarFault` where the choice's form cannot go on.
        """
        choice = self.choices[number]
        if choice.forced:
            return choice.forced[0]
        sampler, matcher = choice.sampler, choice.matcher
        plain = sampler.greedy and not sampler.changes
        if plain and (matcher is None or matcher.allows(best)):
            return best
        return self._sample(
            choice, row, choice.tokens, None if matcher is None else matcher.allowed()
        )

    def suppose(self, number: int, row: Row, ahead: Sequence[int]) -> int:
        """What a choice would draw behind the tokens `ahead`, if these were another's logits.

        Its form is not heeded. Raises `FloatingPointError` where they are not finite.
        """
        choice = self.choices[number]
        return self._sample(choice, row, [*choice.tokens, *ahead], None)

    def _sample(
        self, choice: Choice, row: Row, made: Sequence[int], allowed: npt.NDArray[np.int64] | None
    ) -> int:
        if choice.sampler.changes and self._prompt_set is None:
            self._prompt_set = np.unique(np.asarray(self.prompt, dtype=np.int64))
        place = len(self.prompt) + len(made)
        return choice.sampler.draw(row, place, self._prompt_set, made, allowed)

    def take(self, number: int, token: int, row: Row, vocabulary: Vocabulary) -> Chunk:
        """Append a token to a choice; the chunk to report."""
        choice = self.choices[number]
        delta = self._advance(choice, token, vocabulary)
        known = () if vocabulary.ends(token) else (token,)
        logprobs: tuple[TokenLogprob, ...] = ()
        if known and self.logprobs is not None:
            logprobs = (told(*ranked(row, token, self.logprobs), vocabulary),)
        return Chunk(
            number,
            known,
            delta.text,
            logprobs,
            choice.finish,
            reasoning=delta.reasoning,
            calls=delta.calls,
            stopped=choice.output.stopped if choice.finish == "stop" else "",
        )

    def replay(self, number: int, tokens: Sequence[int], vocabulary: Vocabulary) -> list[Delta]:
        """Bring a choice to where it was after `tokens`; what they released, token by token.

        Raises `GrammarFault` where they are not of its form.
        """
        choice = self.choices[number]
        return [self._advance(choice, token, vocabulary) for token in tokens]

    def _advance(self, choice: Choice, token: int, vocabulary: Vocabulary) -> Delta:
        output = choice.output
        if vocabulary.ends(token):
            delta = output.close()
            choice.end("stop")
            return delta
        choice.tokens.append(token)
        if choice.matcher is not None:
            choice.matcher.accept(token)
        if choice.forced:
            choice.forced.pop(0)
        thinking = output.thinking
        delta = output.feed(self.marks.get(token) or vocabulary.piece(token))
        whole = choice.matcher is not None and choice.matcher.done
        if output.stopped:
            choice.end("stop")
        elif whole or output.calls >= TOOL_CALLS:
            return choice.close(delta, "stop")
        elif len(choice.tokens) >= self.most:
            return choice.close(delta, "length")
        elif output.thinking:
            choice.thought += thinking
            self._bound_thoughts(choice)
        return delta

    def _bound_thoughts(self, choice: Choice) -> None:
        most = self.thinking_tokens
        spent = most is not None and choice.thought >= most
        if spent and not choice.forced and choice.output.between_characters:
            choice.forced = list(self.end_of_thoughts)


def told(chosen: Ranked, likeliest: tuple[Ranked, ...], vocabulary: Vocabulary) -> TokenLogprob:
    """A token and the likeliest beside it, as clients see them."""
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
        delivered = self._delivered(request)
        if delivered:
            self._resume(run, delivered)
        return run

    def _delivered(self, request: TaskRequest) -> list[int]:
        """Tokens of the answer that the client has; another model's words in our tokens."""
        if request.begun:
            return self._vocabulary.tokens(request.begun, special=False)
        if len(request.delivered) % 4:
            raise RequestFault(
                FaultCode.BAD_REQUEST,
                f"{len(request.delivered)} bytes of delivered tokens, which have 4 each",
                param="delivered",
            )
        return [token for (token,) in struct.iter_unpack("<I", request.delivered)]

    def _resume(self, run: Run, delivered: list[int]) -> None:
        """Bring a run to where it was after the tokens that its client has."""
        if len(run.choices) != 1 or len(delivered) >= run.most:
            raise RequestFault(
                FaultCode.BAD_REQUEST,
                f"{len(delivered)} tokens were delivered of {len(run.choices)} choices of at most "
                f"{run.most}: only one that has not ended can go on",
                param="delivered",
            )
        size = self._vocabulary.size
        strange = next((token for token in delivered if token >= size), None)
        if strange is not None:
            raise RequestFault(
                FaultCode.BAD_REQUEST,
                f"token {strange} was delivered, but the vocabulary has tokens 0 to {size - 1}",
                param="delivered",
            )
        try:
            run.replay(0, delivered, self._vocabulary)
        except GrammarFault as fault:
            raise RequestFault(
                FaultCode.BAD_REQUEST,
                f"what was delivered is not of the form of the answer: {fault}",
                param="delivered",
            ) from fault
        if run.finished:
            raise RequestFault(
                FaultCode.BAD_REQUEST, "what was delivered had ended already", param="delivered"
            )
        run.resumed = len(delivered)

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
