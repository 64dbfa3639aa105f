"""Filters of a choice: each says of one candidate why it cannot be asked, or nothing.

Rules:
- Each is a pure function of the facts and one candidate.
- The hard ones hold whatever comes of it: what was asked for is never swapped for something else.
- The soft ones drop whom one would rather not ask; where they leave nobody, they are taken back,
  the last first. So an only match is asked, and never lost without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from meshslm import mesh_limits
from meshslm.core.candidates import Candidate
from meshslm.core.classify import GENERAL, Score
from meshslm.core.route_facts import GENERATE, Facts, Tier
from meshslm.ids import NodeId, ms_between
from meshslm.wire.messages import Specialist, TaskRequest

AUTO: Final = "auto"
DOMAIN: Final = "domain:"

STALE_MS: Final = 2.0 * mesh_limits.IDLE_PRESENCE_MS
"""What was told of a load so long ago says little: who was idle then may have a queue by now."""

LARGER: Final = 0.5
"""Of the largest model's size, from which on one counts as large too (a guess)."""

Filter = Callable[[Facts, Candidate], str]


def has_domain(candidate: Candidate, domain: str) -> bool:
    """Whether a candidate declares a domain."""
    for card in candidate.specialist.domains:  # noqa: SIM110 - a generator takes three times as long
        if card.domain == domain:
            return True
    return False


def at_node(node: str, candidate: Candidate) -> bool:
    """Whether it is the node that a selector names behind `@`; none: any."""
    return not node or node in (candidate.node_name, candidate.node)


def named(name: str, candidate: Candidate) -> bool:
    """Whether a selector without its `@node` names this candidate."""
    if name.startswith(DOMAIN):
        return has_domain(candidate, name.removeprefix(DOMAIN))
    specialist = candidate.specialist
    return name == AUTO or name in (specialist.profile, specialist.model)


def operation(facts: Facts, candidate: Candidate) -> str:
    """It must announce what it is asked to do."""
    wanted = facts.request.operation
    return "" if wanted in candidate.specialist.operations else f"it cannot {wanted}"


def adapter(facts: Facts, candidate: Candidate) -> str:
    """It must have the LoRA adapter that the request names, if it names one."""
    name = facts.request.adapter
    if not name or facts.request.operation != GENERATE or name in candidate.specialist.adapters:
        return ""
    return f"it has no adapter {name!r}"


def private(facts: Facts, candidate: Candidate) -> str:
    """What is private stays in the mesh."""
    if candidate.upstream and facts.request.routing.private:
        return "the prompt is private, and this is outside the mesh"
    return ""


def secret_domains(specialists: Iterable[Specialist]) -> set[str]:
    """Domains of which one of these says that what is asked of it does not leave the mesh."""
    return {card.domain for s in specialists if s.private for card in s.domains}


def may_be(scores: Sequence[Score], unsure_below: float) -> list[str]:
    """Domains that a text may well be of, whether one is recognised or not."""
    likely = [score.domain for score in scores if score.score >= unsure_below]
    return likely or [GENERAL, *(score.domain for score in scores[:1])]


def cloud(facts: Facts, candidate: Candidate) -> str:
    """An upstream is asked where it is named, or the request is hard enough for its tier."""
    if not candidate.upstream:
        return ""
    if not plain(facts.request):
        return "an upstream is asked for one plain answer in a chat, without special sampling"
    if facts.tier is Tier.CLOUD:
        return ""
    name = facts.request.selector.partition("@")[0]
    if name in (candidate.specialist.profile, candidate.specialist.model):
        return ""
    return "an upstream is for hard requests, or to be named"


def plain(request: TaskRequest) -> bool:
    """Whether an upstream is sure to understand all that a request asks for."""
    special = request.tools or request.constraint or request.echo or request.adapter
    if special or request.logprobs is not None or request.choices > 1 or not request.messages:
        return False
    how = request.sampling
    if how.logit_bias or any(
        said is not None for said in (how.top_k, how.min_p, how.repeat_penalty)
    ):
        return False
    return all(not turn.calls and not turn.call_id for turn in request.messages)


def context(facts: Facts, candidate: Candidate) -> str:
    """Prompt and answer should fit its context, as far as can be told without its tokenizer."""
    room = candidate.specialist.context
    need = facts.prompt_tokens + facts.request.max_tokens
    if not room or need <= room:
        return ""
    return f"about {need:.0f} tokens do not fit its context of {room}"


HARD: Final[tuple[tuple[str, Filter], ...]] = (
    ("operation", operation),
    ("adapter", adapter),
    ("private", private),
    ("upstream", cloud),
)
"""In the order in which a refusal names them."""


def moot(facts: Facts, candidates: Sequence[Candidate]) -> list[Filter]:
    """Hard filters that can drop nobody here, so that not each of a thousand is asked in vain."""
    found: list[Filter] = [] if facts.request.adapter else [adapter]
    if not any(candidate.upstream for candidate in candidates):
        found += [private, cloud]
    return found


def reachable(tried: Sequence[NodeId], candidate: Candidate) -> bool:
    """Whether it was not tried yet."""
    return candidate.tried_as not in tried


def stale(facts: Facts, candidate: Candidate) -> bool:
    """Whether nobody knows how busy it is now; a conversation's own node is asked all the same."""
    if candidate.local or (facts.stay is not None and facts.stay.node == candidate.node):
        return False
    return ms_between(candidate.told, facts.now) > STALE_MS


def able_enough(facts: Facts, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the request's tier; all where the tier has nobody here."""
    if facts.tier is Tier.EDGE:
        return list(candidates)
    if facts.tier is Tier.CLOUD:
        upstream = [c for c in candidates if c.upstream]
        if upstream:
            return upstream
    sizes = [c.specialist.size_mib for c in candidates]
    least = LARGER * max(sizes, default=0)
    return [c for c, size in zip(candidates, sizes, strict=True) if size >= least]
