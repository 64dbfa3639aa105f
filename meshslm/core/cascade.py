"""Answer small, judge, and ask a larger model only where that was not good enough. Pure functions.

A model's own probabilities say something of how sure it is: an answer that it wrote with likely
tokens all along is right more often than one where it guessed. That, and what can be checked
without understanding (it ended, it has the form that was asked for, it is long enough), decides.

Rules:
- A likelier token never makes an answer less trusted, and a less certain place never more.
- Who tells no probabilities is not trusted.
- What was asked for by name is never swapped: there are steps only where the mesh chooses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final

import msgspec

from meshslm.core.candidates import Assessment
from meshslm.core.classify import GENERAL
from meshslm.core.route_facts import GENERATE
from meshslm.core.route_filters import AUTO, DOMAIN, LARGER, has_domain, plain
from meshslm.wire.messages import TaskRequest, TokenLogprob, TopLogprob

CONFIDENT: Final = 0.5
"""Least confidence of an answer that is given (a guess; a profile may say another)."""
TOP: Final = 5
"""Likeliest tokens that are asked for: what is beyond them counts as one more."""
DECISIONS: Final = 0.1
"""Share of an answer's tokens at which it was decided: those where most others were possible. The
rest are endings of words and the like, which say nothing of what it knows (a guess)."""
DOUBT: Final = 0.5
"""How much of the confidence is lost where all was open at those (a guess)."""
TIERS: Final = 3
"""Models of the mesh that are asked one after the other, beside an upstream."""
CHECKED_CHARACTERS: Final = 65_536
"""Of an answer that a pattern is looked for in."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a profile says of answers that may be given without asking anybody larger."""

    confident: float = CONFIDENT
    min_characters: int = 0
    pattern: str = ""
    """A regular expression that is found in a good answer."""
    always: bool = False
    """Requests that this profile would answer are judged without asking for it."""


@dataclass(frozen=True, slots=True)
class Written:
    """A whole answer, as far as it is judged."""

    text: str
    finish: str
    tokens: tuple[TokenLogprob, ...] = ()
    calls: tuple[str, ...] = ()
    """Arguments of the tool calls in it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How sure one can be of an answer."""

    confidence: float
    """0..1."""
    why_not: str
    """Why it is not good enough; empty where it is."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Who is asked at one step."""

    selector: str
    profile: str
    model: str


# --- judging ------------------------------------------------------------------------------------
def judge(answer: Written, request: TaskRequest, check: Check) -> Judgement:
    """Whether an answer is good enough to be given."""
    sure = confidence(answer.tokens)
    why_not = _broken(answer, request) or _unlike(answer, check)
    if not why_not and sure < check.confident:
        why_not = f"unsure, below {check.confident:.2f}"
    return Judgement(sure, why_not)


def confidence(tokens: Sequence[TokenLogprob]) -> float:
    """0..1: how likely its tokens were on average, less how open it was where it was decided."""
    if not tokens:
        return 0.0
    likely = exp(min(0.0, sum(token.logprob for token in tokens) / len(tokens)))
    open_ = sorted((openness(token.top) for token in tokens), reverse=True)
    decided = open_[: max(1, round(DECISIONS * len(open_)))]
    return likely * (1.0 - DOUBT * sum(decided) / len(decided))


def openness(top: Sequence[TopLogprob]) -> float:
    """0..1: entropy of the likeliest tokens and of all others together, of the most it may be."""
    if not top:
        return 0.0
    parts = [exp(min(0.0, one.logprob)) for one in top]
    rest = 1.0 - sum(parts)
    if rest < 0.0:  # rounding, or a node that says what cannot be
        parts = [part / (1.0 - rest) for part in parts]
        rest = 0.0
    entropy = -sum(part * log(part) for part in (*parts, rest) if part > 0.0)
    return min(1.0, max(0.0, entropy / log(len(parts) + 1)))


def _broken(answer: Written, request: TaskRequest) -> str:
    """What is wrong with it whatever it says."""
    if not answer.finish:
        return "not whole"
    if not answer.text.strip() and not answer.calls:
        return "empty"
    form = request.constraint
    if answer.finish == "length" and (form or answer.calls or not request.max_tokens):
        return "cut off"
    if form is not None and form.kind != "gbnf" and not answer.calls:
        wants_object = form.kind == "json_object"
        if not _is_json(answer.text, wants_object=wants_object):
            return "not the form that was asked for"
    if not all(_is_json(arguments or "{}", wants_object=True) for arguments in answer.calls):
        return "a call without proper arguments"
    return ""


def _is_json(text: str, *, wants_object: bool) -> bool:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return isinstance(value, dict) or not wants_object


def _unlike(answer: Written, check: Check) -> str:
    """What its profile's check says against it; calls are no text."""
    if answer.calls:
        return ""
    if len(answer.text.strip()) < check.min_characters:
        return f"shorter than {check.min_characters} characters"
    if check.pattern and not re.search(check.pattern, answer.text[:CHECKED_CHARACTERS]):
        return "without what its profile looks for"
    return ""


# --- whom to ask --------------------------------------------------------------------------------
def fit_for_it(request: TaskRequest) -> str:
    """Why a request cannot be answered in steps; empty where it can."""
    name, _, node = request.selector.partition("@")
    if request.operation != GENERATE or request.choices != 1:
        return "only one generated answer can be judged"
    if request.echo:
        return "an answer that repeats its prompt's tokens cannot be judged"
    if node or not (name == AUTO or name.startswith(DOMAIN)):
        return f"it is the mesh that chooses: ask 'auto' or 'domain:...', not {request.selector!r}"
    return ""


def ladder(assessments: Iterable[Assessment], request: TaskRequest) -> tuple[Tier, ...]:
    """Models that can answer, each at least twice as large as the one before; then an upstream."""
    able = [a for a in assessments if _able(a, request)]
    inside = [a for a in able if not a.candidate.upstream and a.candidate.specialist.size_mib]
    # The domain's own before a generalist of the same model; of each the best placed.
    inside.sort(key=lambda a: (a.candidate.specialist.size_mib, _elsewhere(a), a.rank or 10**6))
    steps: list[Assessment] = []
    for one in inside:
        asked = [step.candidate.specialist for step in steps]
        own = one.candidate.specialist
        # A node may tell another size of the same model: it would say the same once more.
        known = own.model in [before.model for before in asked]
        if not asked or (asked[-1].size_mib <= LARGER * own.size_mib and not known):
            steps.append(one)
    if len(steps) > TIERS:
        steps = [*steps[: TIERS - 1], steps[-1]]
    if steps:
        steps += [a for a in able if a.candidate.upstream][:1]
    return tuple(_tier(step, able) for step in steps)


def _able(assessment: Assessment, request: TaskRequest) -> bool:
    dropped, candidate = assessment.dropped, assessment.candidate
    if candidate.upstream:
        return dropped in ("", "tier") or (dropped == "upstream" and plain(request))
    if _elsewhere(assessment):
        return has_domain(candidate, GENERAL)
    return dropped in ("", "tier")


def _elsewhere(assessment: Assessment) -> bool:
    """Whether it was dropped as it is not of the domain."""
    return assessment.dropped.startswith("not for ")


def _tier(step: Assessment, able: Sequence[Assessment]) -> Tier:
    specialist = step.candidate.specialist
    clash = any(
        a.candidate.specialist.profile == specialist.profile
        and a.candidate.specialist.model != specialist.model
        for a in able
    )
    selector = specialist.model if clash else specialist.profile
    return Tier(selector, specialist.profile, specialist.model)
