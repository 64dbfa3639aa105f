"""What a client has of an answer under way, so that another node can go on behind it.

Two ways, from best to worst:
- in tokens, on a node with the same file and the same profile: it computes the prompt and the
  delivered tokens again and goes on as the first would have. With greedy choice or a seed, and a
  file whose kernels are batch-invariant, the whole is what an undisturbed node says.
- in text, on a node with another file (another quantisation, another model of the domain), which
  reads what was said as its own words. Not where the answer has parts beside its text.

Rules:
- Several choices go on together, each behind its own part; those that have ended are only counted.
- What a node had made but not delivered is of no account: nothing is lost, nothing is doubled.
- An answer whose last chunks came, and only its end did not, is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from meshslm import limits
from meshslm.core.route import GENERATE, Candidate, Refusal, Verdict
from meshslm.wire.messages import Chunk, TaskRequest, Usage
from meshslm.wire.shares import Shares

TOKEN_BYTES = 4

SLOWEST = 0.8
"""What is left of the longest gap between items for each one that comes sooner."""


class Way(StrEnum):
    """How an answer goes on elsewhere."""

    TOKENS = "tokens"
    TEXT = "text"


@dataclass(slots=True)
class _Said:
    """What the client has of one choice."""

    tokens: bytearray = field(default_factory=bytearray)
    text: list[str] = field(default_factory=list)
    finish: str = ""
    """How it finished; empty while it has not."""


class Delivered:
    """What the client of one task has."""

    __slots__ = (
        "_in_text",
        "_possible",
        "_prompt_tokens",
        "_said",
        "_size",
        "_text_bytes",
        "_texts_only",
    )

    def __init__(self, request: TaskRequest) -> None:
        self._possible = request.operation == GENERATE and not request.echo
        self._said = [_Said() for _ in range(request.choices)]
        self._size = 0
        """Tokens of all choices together."""
        self._in_text = not (request.tools or request.constraint)
        """Not where the answer is more, or stricter, than its text, or has too much of it."""
        self._text_bytes = 0
        self._texts_only = False
        """It went on in text once: the tokens are of several vocabularies."""
        self._prompt_tokens = 0

    def add(self, chunk: Chunk) -> None:
        """The client gets a chunk."""
        if not self._possible:
            return
        said = self._said[chunk.choice]
        for token in chunk.tokens:
            said.tokens += token.to_bytes(TOKEN_BYTES, "little")
        self._size += len(chunk.tokens)
        self._prompt_tokens = chunk.prompt_tokens or self._prompt_tokens
        said.finish = chunk.finish
        self._text_bytes += len(chunk.text.encode(errors="replace"))
        if chunk.reasoning or chunk.calls or self._text_bytes > limits.DELIVERED_TEXT_BYTES:
            self._in_text = False
            for part in self._said:
                part.text.clear()
        elif self._in_text and chunk.text:
            said.text.append(chunk.text)
        if self._size > limits.DELIVERED_TOKENS:
            self._possible = False
            self._said.clear()

    @property
    def whole(self) -> bool:
        """Every choice has its last chunk."""
        return self._possible and all(said.finish for said in self._said)

    @property
    def ways(self) -> tuple[Way, ...]:
        """How it may go on, the best first; none where it cannot."""
        if not self._possible:
            return ()
        tokens = () if self._texts_only else (Way.TOKENS,)
        return (*tokens, Way.TEXT) if self._in_text else tokens

    def rest(self, request: TaskRequest, way: Way) -> TaskRequest:
        """What to ask the next node for."""
        if way is Way.TOKENS:
            tokens = [bytes(said.tokens) for said in self._said]
            return replace(request, delivered=b"".join(tokens), shares=self._shares(tokens))
        texts = ["".join(said.text) for said in self._said]
        return replace(request, begun="".join(texts), shares=self._shares(texts))

    def _shares(self, parts: Sequence[bytes | str]) -> Shares | None:
        if len(parts) == 1:
            return None
        finishes = tuple(said.finish for said in self._said)
        return Shares(tuple(map(len, parts)), finishes)

    def goes_on(self, way: Way) -> None:
        """A node is asked to go on in this way."""
        self._texts_only = self._texts_only or way is Way.TEXT

    def usage(self) -> Usage:
        """Token counts, by what came of them, where the serving node did not live to say."""
        return Usage(self._prompt_tokens, self._size)


Choose = Callable[[list[Candidate]], Verdict | Refusal]
"""The best of some candidates, as the request would have it."""


@dataclass(frozen=True, slots=True)
class Successor:
    """Who goes on, and how."""

    verdict: Verdict
    way: Way


def successor(
    delivered: Delivered, former: Candidate, candidates: list[Candidate], choose: Choose
) -> Successor | Refusal:
    """Who can best go on with what `former` began, or why nobody; there must be a way."""
    refusal: Refusal | None = None
    for way in delivered.ways:
        inside = [c for c in candidates if not c.upstream]  # those begin anew
        fit = inside if way is Way.TEXT else [c for c in inside if _same(c, former)]
        verdict = choose(fit)
        if isinstance(verdict, Verdict):
            return Successor(verdict, way)
        refusal = refusal or verdict
    assert refusal is not None
    return refusal


def _same(candidate: Candidate, former: Candidate) -> bool:
    one, other = candidate.specialist, former.specialist
    return (one.digest, one.profile) == (other.digest, other.profile) and bool(one.digest)


class Pace:
    """How fast the items of a stream come, to tell a stall from slowness. In milliseconds."""

    __slots__ = ("_longest",)

    def __init__(self) -> None:
        self._longest = 0.0

    def item(self, gap_ms: float) -> None:
        """One came, so long after the last."""
        self._longest = max(gap_ms, SLOWEST * self._longest)

    def silent(self, ms: float) -> bool:
        """Nothing at all from its node for so long is too long."""
        return ms >= max(limits.STREAM_SILENT_MS, 4.0 * self._longest)

    def stalled(self, ms: float) -> bool:
        """No item for so long is too long, although the node answers."""
        return ms >= max(limits.STREAM_STALLED_MS, 20.0 * self._longest)
