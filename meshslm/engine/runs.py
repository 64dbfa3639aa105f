"""What the worker knows of each run: its tokens, its text, and how far it is.

Rules:
- A choice ends by the model's end token, a stop string, or the end of its form (`stop`, or
  `tool_calls` where it called some), or by its limit (`length`); nothing is reported of it
  afterwards.
- A choice's state is a function of the request and its tokens: `replay` rebuilds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from meshslm.engine.grammar import Matcher
from meshslm.engine.llama import Vocabulary
from meshslm.engine.output import Delta, OutputStream
from meshslm.engine.prefix_cache import Tiles
from meshslm.engine.sampling import Ranked, Row, Sampler, ranked
from meshslm.engine.speculate import Lookup
from meshslm.engine.steps import Job
from meshslm.limits import TOOL_CALLS
from meshslm.wire.messages import Chunk, TokenLogprob, TopLogprob


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
    coalesce: bool = False
    """What it says may wait for what follows."""
    tiles: Tiles = ()
    """Names of the prompt's tiles, where they may be taken over from other runs."""
    resumed: tuple[tuple[int, int], ...] = ()
    """Of an answer that was begun, and delivered, elsewhere: choices that go on, and their tokens
    so far."""
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
