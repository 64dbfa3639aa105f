"""Who should answer: filters, then the cheapest of those that are left.

Pure functions over a list of candidates. The selector of a request narrows it (a model, a profile,
a domain, a node); `auto` finds the domain from the text. Among equals the one that will be done
first wins, by an estimate in milliseconds.

Rules:
- What was asked for by name is never swapped for something else.
- Nobody is asked for an operation that it does not announce: a chat model gives no vectors, and an
  embedding model no answers; nor for an adapter that it does not have.
- Every verdict carries its reason in words a person can read, in ASCII, for a response header.
- A refusal says what there is to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshslm.chance import Chance
from meshslm.core.classify import Classifier
from meshslm.errors import FaultCode
from meshslm.ids import NodeId
from meshslm.wire.messages import EngineLoad, Specialist, TaskRequest

AUTO = "auto"
DOMAIN = "domain:"
GENERATE = "generate"
GENERAL = "general"
"""Domain of the specialist that takes what no other recognises."""

UNSURE_BELOW = 0.06
"""Scores below this say nothing: measured on the packaged cards, texts in languages and subjects
that no card mentions stay under it."""

ASSUMED_PREFILL_TPS = 200.0
ASSUMED_DECODE_TPS = 50.0
"""Speeds of an engine that measured nothing yet: half of a small model on two cores."""

ASSUMED_RTT_MS = 50.0
ASSUMED_ANSWER_TOKENS = 256
BYTES_PER_TOKEN = 4.0
NOT_READY_MS = 5_000.0
"""Cost of an engine that is not ready: a load from disk takes about as long."""

NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A specialist on a node."""

    node: NodeId
    node_name: str
    specialist: Specialist
    load: EngineLoad | None
    rtt_ms: float | None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whom to ask, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody can be asked. `exhausted`: there were candidates, but all had been tried."""

    code: FaultCode
    detail: str
    exhausted: bool = False


def request_text(request: TaskRequest) -> str:
    """What decides the domain: the last turn of the user, or the prompt."""
    for message in reversed(request.messages):
        if message.role == "user":
            return message.content
    return request.prompt


def _prompt_length(request: TaskRequest) -> int:
    """Characters that are to be read, roughly."""
    texts = (*(message.content for message in request.messages), request.prompt, *request.inputs)
    return sum(map(len, texts))


def cost_ms(candidate: Candidate, request: TaskRequest) -> float:
    """Expected milliseconds until the answer is complete."""
    load = candidate.load
    prompt = _prompt_length(request)
    answer = min(request.max_tokens or ASSUMED_ANSWER_TOKENS, ASSUMED_ANSWER_TOKENS)
    if request.operation != GENERATE:
        answer = 0
    prefill_tps = (load.prefill_tps if load else 0.0) or ASSUMED_PREFILL_TPS
    decode_tps = (load.decode_tps if load else 0.0) or ASSUMED_DECODE_TPS
    decode = answer / decode_tps * 1000.0
    cost = prompt / BYTES_PER_TOKEN / prefill_tps * 1000.0 + decode
    if not candidate.local:
        cost += ASSUMED_RTT_MS if candidate.rtt_ms is None else candidate.rtt_ms
    if load is None or not load.ready:
        return cost + NOT_READY_MS
    if load.free_slots == 0:
        slots = max(1, candidate.specialist.slots)
        cost += (load.queued + 1) / slots * (decode or cost)
    return cost


def choose(
    request: TaskRequest,
    candidates: Sequence[Candidate],
    tried: Sequence[NodeId],
    classifier: Classifier,
    chance: Chance,
) -> Verdict | Refusal:
    """The best candidate that was not tried yet, or why there is none."""
    selector, _, node = request.selector.partition("@")
    pool = [c for c in candidates if not node or node in (c.node_name, c.node)]
    if node and not pool:
        return _unknown(f"no node {node!r} hosts a model here", candidates)
    if selector == AUTO:
        return _choose_auto(request, pool, tried, classifier, chance)
    if selector.startswith(DOMAIN):
        domain = selector.removeprefix(DOMAIN)
        matching = [c for c in pool if _has_domain(c, domain)]
        reason = f"domain {domain} asked for"
    else:
        matching = [c for c in pool if selector in (c.specialist.profile, c.specialist.model)]
        reason = f"{selector} asked for by name"
    if not matching:
        return _unknown(f"nobody hosts {request.selector!r}", candidates)
    able = _able(request, matching)
    if not able:
        return _unable(request, candidates)
    fitting = _with_adapter(request, able)
    if not fitting:
        return _no_adapter(request, candidates)
    return _cheapest(request, fitting, tried, reason, chance)


def _choose_auto(
    request: TaskRequest,
    pool: Sequence[Candidate],
    tried: Sequence[NodeId],
    classifier: Classifier,
    chance: Chance,
) -> Verdict | Refusal:
    if not pool:
        return _unknown("no node hosts a model yet", pool)
    able = _able(request, pool)
    if not able:
        return _unable(request, pool)
    able = _with_adapter(request, able)
    if not able:
        return _no_adapter(request, pool)
    if request.operation != GENERATE:
        chat = [c for c in able if GENERATE in c.specialist.operations]
        return _cheapest(request, chat or able, tried, f"auto: {request.operation}", chance)
    pool = able
    scores = classifier.classify(request_text(request))
    if not scores or scores[0].score < UNSURE_BELOW:
        wanted = [(GENERAL, "auto: no domain recognised")]
    else:
        wanted = [(s.domain, f"auto: domain {s.domain} {s.score:.2f}") for s in scores[:1]]
        wanted.append((GENERAL, f"auto: generalist, since {scores[0].domain} has nobody left"))
    for domain, reason in wanted:
        matching = [c for c in pool if _has_domain(c, domain) and c.node not in tried]
        if matching:
            return _cheapest(request, matching, tried, reason, chance)
    return _cheapest(request, pool, tried, f"{wanted[0][1]}, anybody", chance)


def _cheapest(
    request: TaskRequest,
    matching: Sequence[Candidate],
    tried: Sequence[NodeId],
    reason: str,
    chance: Chance,
) -> Verdict | Refusal:
    left = [c for c in matching if c.node not in tried]
    if not left:
        return Refusal(
            FaultCode.NOT_READY,
            f"all {len(matching)} nodes for {request.selector!r} were tried",
            exhausted=True,
        )
    costs = [cost_ms(candidate, request) for candidate in left]
    least = min(costs)
    best = [c for c, cost in zip(left, costs, strict=True) if cost == least]
    chosen = best[0] if len(best) == 1 else chance.pick(best)
    words = f"{reason}; {least:.0f} ms expected, best of {len(left)}"
    return Verdict(chosen, words.encode("ascii", "replace").decode())


def _able(request: TaskRequest, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if request.operation in c.specialist.operations]


def _with_adapter(request: TaskRequest, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that have the adapter that a request names, if it names one."""
    name = request.adapter
    if not name or request.operation != GENERATE:
        return list(candidates)
    return [c for c in candidates if name in c.specialist.adapters]


def _no_adapter(request: TaskRequest, candidates: Sequence[Candidate]) -> Refusal:
    """There are models, but none of them with this adapter."""
    found = {(name, c.specialist.model) for c in candidates for name in c.specialist.adapters}
    what = f"adapter {request.adapter!r}"[:500]
    bases = ", ".join(sorted(base for name, base in found if name == request.adapter)[:NAMES_SHOWN])
    if bases:
        detail = f"{what} is for {bases}, and {request.selector!r} is not one of them"
        return Refusal(FaultCode.BAD_REQUEST, detail[:1000])
    names = [f"{name} (for {base})" for name, base in sorted(found)]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    known = f"known are {', '.join(names[:NAMES_SHOWN])}{more}" if names else "nobody has any"
    return Refusal(FaultCode.UNKNOWN_MODEL, f"no node here has an {what}; {known}"[:1000])


def _unable(request: TaskRequest, candidates: Sequence[Candidate]) -> Refusal:
    """There are models, but not for this operation."""
    names = sorted({c.specialist.profile for c in _able(request, candidates)})[:NAMES_SHOWN]
    what = f"{request.selector!r} cannot do {request.operation!r}"[:500]
    if names:
        return Refusal(FaultCode.BAD_REQUEST, f"{what}; who can: {', '.join(names)}"[:1000])
    return Refusal(FaultCode.UNKNOWN_MODEL, f"{what}, and no other model here can"[:1000])


def _has_domain(candidate: Candidate, domain: str) -> bool:
    return any(card.domain == domain for card in candidate.specialist.domains)


def _unknown(problem: str, candidates: Sequence[Candidate]) -> Refusal:
    names = dict.fromkeys(
        name
        for c in candidates
        for name in (
            c.specialist.model,
            c.specialist.profile,
            *(DOMAIN + card.domain for card in c.specialist.domains),
        )
    )
    shown = ", ".join(sorted(names)[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    known = f"known are {AUTO}, {shown}{more}" if names else "nobody hosts anything yet"
    return Refusal(FaultCode.UNKNOWN_MODEL, f"{problem}; {known}"[:1000])
