"""What a choice knows beside its candidates: the request in numbers, and what this origin measured.

Computed once for a choice, so that what is done for each candidate stays small.

Rules:
- A prompt's tokens are estimated from its characters: no tokenizer is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from meshslm.core.candidates import Candidate
from meshslm.core.prefix import PROMPT_CHARACTERS, marks
from meshslm.ids import Instant
from meshslm.wire.messages import TaskRequest

GENERATE = "generate"
CHARACTERS_PER_TOKEN: Final = 4.0
"""Of English prose in the vocabularies of small models, about; other scripts have fewer."""
ASSUMED_ANSWER_TOKENS: Final = 256
"""Length of an answer of a kind that was never seen here."""

NEWEST: Final = 0.1
"""Share of the newest answer in a running mean."""
DEVIATIONS: Final = 3.0
"""A slow node is slow for long if an answer turns out long: measured in the simulator, with means
alone the slowest hundredth took 1.3 times as long as with the best choice, with this 1.2 times."""

EDGE_BELOW: Final = 0.3
CLOUD_FROM: Final = 0.7


class Tier(StrEnum):
    """How able an answerer has to be."""

    EDGE = "edge"
    """Any specialist."""
    HYBRID = "hybrid"
    """A larger model, where several are there."""
    CLOUD = "cloud"
    """An upstream, where there is one."""


def tier_of(
    complexity: float | None, tiers: tuple[float, float] = (EDGE_BELOW, CLOUD_FROM)
) -> Tier:
    """The tier for an estimate in 0..1; without one, any specialist will do."""
    edge_below, cloud_from = tiers
    if complexity is None or complexity < edge_below:
        return Tier.EDGE
    return Tier.CLOUD if complexity >= cloud_from else Tier.HYBRID


class Measured(Protocol):
    """What this origin has measured of candidates; see `core.track_record`."""

    def pending(self, candidate: Candidate) -> int:
        """Tasks sent there from here that its load does not count yet."""
        ...

    def decode_tps(self, candidate: Candidate, told: float) -> float:
        """Tokens a second of one stream: what it told, replaced as far as it was measured."""
        ...

    def late_ms(self, candidate: Candidate) -> float:
        """How much later than promised its first tokens come."""
        ...

    def failing(self, candidate: Candidate) -> float:
        """Share of its attempts that fail, in [0, 1)."""
        ...

    def response_ms(self, candidate: Candidate) -> float:
        """Time that its answers took; 0 where there were none."""
        ...

    def turn(self, candidate: Candidate) -> int:
        """When it was last chosen here, as a count of choices; 0: never."""
        ...


class Unmeasured:
    """An origin that has seen nothing yet."""

    def pending(self, _candidate: Candidate) -> int:
        """See `Measured`."""
        return 0

    def decode_tps(self, _candidate: Candidate, told: float) -> float:
        """See `Measured`."""
        return told

    def late_ms(self, _candidate: Candidate) -> float:
        """See `Measured`."""
        return 0.0

    def failing(self, _candidate: Candidate) -> float:
        """See `Measured`."""
        return 0.0

    def response_ms(self, _candidate: Candidate) -> float:
        """See `Measured`."""
        return 0.0

    def turn(self, _candidate: Candidate) -> int:
        """See `Measured`."""
        return 0


NOTHING_MEASURED: Final = Unmeasured()


@dataclass(frozen=True, slots=True)
class Stay:
    """Where a conversation was answered last."""

    node: str
    profile: str
    characters: int
    """Of the request's beginning, which are warm there."""
    domain: str = ""
    """What it was about."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A request, in numbers."""

    request: TaskRequest
    prompt_tokens: float
    answer_tokens: float
    marks: tuple[bytes, ...]
    ends: tuple[int, ...]
    """Characters of the request up to the end of the part that each mark stands for."""
    measured: Measured
    stay: Stay | None
    tier: Tier
    strategy: str
    now: Instant
    usual: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Tokens a second, of prompts and of answers, of engines of a profile that told their speed."""


def facts_of(
    request: TaskRequest,
    *,
    strategy: str,
    measured: Measured = NOTHING_MEASURED,
    stay: Stay | None = None,
    expected_tokens: float = 0.0,
    tier: Tier = Tier.EDGE,
    now: Instant = Instant(0),
) -> Facts:
    """The facts of a request; `expected_tokens` of its answer, 0 where nobody knows."""
    parts, rest = parts_of(request)
    ends = []
    length = 0
    for part in parts:
        length += part
        ends.append(length)
    return Facts(
        request,
        (length + rest) / CHARACTERS_PER_TOKEN,
        answer_tokens(request, expected_tokens),
        marks(request) if request.operation == GENERATE else (),
        tuple(ends),
        measured,
        stay,
        tier,
        strategy,
        now,
    )


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of answers of one kind: a running mean, and how far they are from it."""

    mean: float
    deviation: float
    answers: int = 0

    @classmethod
    def unseen(cls, most: float) -> Length:
        """Before the first answer of at most so many tokens: it may well have them all."""
        return cls(most / 2, most / 2 / DEVIATIONS)

    def after(self, tokens: int) -> Length:
        """With one more answer."""
        share = max(NEWEST, 1.0 / (self.answers + 3))
        error = tokens - self.mean
        deviation = self.deviation + share * (abs(error) - self.deviation)
        return Length(self.mean + share * error, deviation, self.answers + 1)

    @property
    def likely_most(self) -> float:
        """Tokens that few answers exceed; as TCP waits for an acknowledgement (RFC 6298)."""
        return self.mean + DEVIATIONS * self.deviation


def length_key(kind: str, request: TaskRequest) -> str:
    """Under what the length of an answer is remembered: what was asked of, and for how much.

    Who allows ten times as many tokens gets longer answers, so powers of two are kept apart.
    """
    return f"{kind} {request.max_tokens.bit_length()}"


def answer_tokens(request: TaskRequest, expected: float) -> float:
    """Tokens that an answer will have; 0 of operations that write no text."""
    if request.operation != GENERATE:
        return 0.0
    likely = expected or ASSUMED_ANSWER_TOKENS
    each = min(request.max_tokens, likely) if request.max_tokens else likely
    return float(each)


def parts_of(request: TaskRequest) -> tuple[list[int], int]:
    """Characters of the parts that have a mark each, and of what has none."""
    if request.messages:
        return [len(turn.content) for turn in request.messages], sum(map(len, request.inputs))
    whole = len(request.prompt)
    rest = whole % PROMPT_CHARACTERS + sum(map(len, request.inputs))
    return [PROMPT_CHARACTERS] * (whole // PROMPT_CHARACTERS), rest
