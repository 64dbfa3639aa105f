"""Who should answer: filters, then scorers, then the best by the strategy that was asked for.

Pure functions over a list of candidates. The selector of a request narrows it (a model, a profile,
a domain, a node); `auto` finds the domain from the text. `core.route_filters` drops whom one must
not or would rather not ask, `core.route_costs` says what each of the others would cost, and
`core.strategies` ranks them.

Rules:
- What was asked for by name is never swapped for something else.
- Nobody is asked for an operation that it does not announce: a chat model gives no vectors, and an
  embedding model no answers; nor for an adapter that it does not have.
- Of those that cost about the same one is drawn: numbers are stale by a moment, and if all who see
  the same ones went to the same node, it would be full before anybody knew (power of two choices).
  A conversation's own node is taken without drawing.
- Every verdict carries its reason in words a person can read, in ASCII, for a response header.
- A refusal says what there is to choose from.
- What is explained is what is done: both come of `decide`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from meshslm.chance import Chance
from meshslm.core import refusals
from meshslm.core.candidates import (
    Assessment,
    Candidate,
    Decision,
    Refusal,
    Terms,
    Verdict,
)
from meshslm.core.classify import GENERAL, Score
from meshslm.core.route_costs import terms_of, usual_speeds
from meshslm.core.route_facts import (
    CLOUD_FROM,
    EDGE_BELOW,
    GENERATE,
    NOTHING_MEASURED,
    Facts,
    Length,
    Measured,
    Stay,
    facts_of,
    length_key,
    tier_of,
)
from meshslm.core.route_filters import (
    AUTO,
    DOMAIN,
    HARD,
    able_enough,
    at_node,
    context,
    has_domain,
    may_be,
    moot,
    named,
    reachable,
    secret_domains,
    stale,
)
from meshslm.core.strategies import STRATEGIES, Key
from meshslm.ids import Instant, NodeId
from meshslm.wire.messages import TaskRequest

__all__ = [
    "AUTO",
    "DOMAIN",
    "GENERAL",
    "GENERATE",
    "Candidate",
    "Decision",
    "Known",
    "Refusal",
    "Verdict",
    "choose",
    "cost_ms",
    "decide",
    "request_text",
]

EVEN: Final = 1.1
EVEN_IN_CROWD: Final = 1.5
CROWD: Final = 12
EVEN_MS: Final = 5.0
"""Costs within a tenth, or so little, of the least count as equal: estimates are no better. From a
dozen candidates on, within a half: the more there are, the more origins choose by the same stale
numbers. Simulated at 100 nodes, that takes a tenth off the slowest hundredth of answers."""

PATIENCE_LEAST_MS: Final = 500.0
"""Nobody is sent on for less (a guess: some round trips, and the prompt once more)."""


class Classifies(Protocol):
    """Says what a text is about."""

    unsure_below: float
    """A best score below this says that it does not know."""

    def classify(self, text: str) -> list[Score]:
        """Every domain with its score, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What an origin knows beside request and candidates."""

    strategy: str = AUTO
    """For requests that name none."""
    measured: Measured = NOTHING_MEASURED
    stay: Stay | None = None
    complexity: float | None = None
    tiers: tuple[float, float] = (EDGE_BELOW, CLOUD_FROM)
    """Complexities from which a larger model, and from which an upstream is to answer."""
    lengths: Mapping[str, Length] = field(default_factory=dict)
    """Of answers so far, by `length_key`."""
    now: Instant = Instant(0)
    secret: Collection[str] = ()
    """Domains that are private by what was ever told here, beside those of the candidates."""
    earlier: Collection[str] = ()
    """Domains that the turns before the last may well be of, where that matters."""


NOTHING_KNOWN: Final = Known()


def request_text(request: TaskRequest) -> str:
    """What decides the domain: the last turn of the user, or the prompt."""
    for message in reversed(request.messages):
        if message.role == "user":
            return message.content
    return request.prompt


def cost_ms(candidate: Candidate, request: TaskRequest) -> float:
    """Expected milliseconds until the answer is complete, for whoever has measured nothing."""
    return terms_of(facts_of(request, strategy=AUTO), candidate).total


def choose(
    request: TaskRequest,
    candidates: Sequence[Candidate],
    tried: Sequence[NodeId],
    classifier: Classifies,
    chance: Chance,
    known: Known = NOTHING_KNOWN,
) -> Verdict | Refusal:
    """The best candidate that was not tried yet, or why there is none."""
    return _Choice(request, candidates, tried, classifier, chance, known).outcome


def decide(
    request: TaskRequest,
    candidates: Sequence[Candidate],
    tried: Sequence[NodeId],
    classifier: Classifies,
    chance: Chance,
    known: Known = NOTHING_KNOWN,
) -> Decision:
    """The same, with everything that it came of."""
    return _Choice(request, candidates, tried, classifier, chance, known).decision()


class _Choice:
    """One choice, made when it is constructed."""

    __slots__ = (
        "_candidates",
        "_chance",
        "_facts",
        "_known",
        "_request",
        "_scored",
        "_scores",
        "_taken_back",
        "_tried",
        "_why",
        "outcome",
    )

    def __init__(
        self,
        request: TaskRequest,
        candidates: Sequence[Candidate],
        tried: Sequence[NodeId],
        classifier: Classifies,
        chance: Chance,
        known: Known,
    ) -> None:
        self._request = request
        self._candidates = candidates
        self._tried = tried
        self._chance = chance
        self._known = known
        self._scores: list[Score] = []
        self._scored: list[tuple[Key, Candidate, Terms]] = []
        self._why: list[tuple[str, Sequence[Candidate]]] = []
        """Steps that dropped somebody: why, and who was left."""
        self._taken_back = ""
        self._facts = self._facts_for(request.selector.partition("@")[0])
        self.outcome = self._choose(classifier)

    def _facts_for(self, kind: str) -> Facts:
        known = self._known
        length = known.lengths.get(length_key(kind, self._request))
        return facts_of(
            self._request,
            strategy=self._request.routing.strategy or known.strategy,
            measured=known.measured,
            stay=known.stay,
            expected_tokens=length.likely_most if length is not None else 0.0,
            tier=tier_of(known.complexity, known.tiers),
            now=known.now,
        )

    # --- who may be asked -----------------------------------------------------------------------
    def _choose(self, classifier: Classifies) -> Verdict | Refusal:
        request = self._request
        selector, _, node = request.selector.partition("@")
        pool = list(self._candidates)
        if node:
            pool = self._keep("not that node", [c for c in pool if at_node(node, c)])
        if node and not pool:
            problem = f"no node {node!r} hosts a model here"
            return refusals.unknown(problem, self._candidates)
        matching = pool
        if selector != AUTO:
            matching = self._keep("not what was asked for", [c for c in pool if named(selector, c)])
        if not matching:
            problem = f"nobody hosts {request.selector!r}"
            if selector == AUTO:
                problem = "no node hosts a model yet"
            return refusals.unknown(problem, self._candidates)
        if selector == AUTO and request.operation == GENERATE:
            self._scores = classifier.classify(request_text(request))
            matching = self._keep("private", self._inside(matching, classifier))
        idle = moot(self._facts, matching)
        for name, hard in HARD:
            if hard in idle:
                continue
            before, matching = matching, [c for c in matching if not hard(self._facts, c)]
            self._why.append((name, matching))
            if not matching:
                return refusals.of_filter(name, request, self._candidates, before, self._facts)
        if selector == AUTO:
            return self._auto(matching, classifier)
        if selector.startswith(DOMAIN):
            return self._best(matching, f"domain {selector.removeprefix(DOMAIN)} asked for")
        return self._best(matching, f"{selector} asked for by name")

    def _auto(self, pool: Sequence[Candidate], classifier: Classifies) -> Verdict | Refusal:
        request = self._request
        if request.operation != GENERATE:
            chat = [c for c in pool if GENERATE in c.specialist.operations]
            return self._best(chat or pool, f"auto: {request.operation}")
        wanted = self._wanted_domains(classifier.unsure_below)
        for domain, reason in wanted:
            here = [c for c in pool if c.upstream or has_domain(c, domain)]
            if any(reachable(self._tried, c) for c in here):
                self._keep(f"not for {domain}", here)
                self._facts = self._facts_for(DOMAIN + domain)
                return self._best(here, reason, domain)
        return self._best(pool, f"{wanted[0][1]}, anybody", wanted[0][0])

    def _inside(self, pool: list[Candidate], classifier: Classifies) -> list[Candidate]:
        """Without upstreams, where the text may be of a domain that somebody keeps private.

        By all who are known: who is not asked for, left alone or gone has said so too.
        """
        if not any(candidate.upstream for candidate in pool):
            return pool
        known = self._known
        secret = secret_domains(c.specialist for c in self._candidates).union(known.secret)
        likely = [*may_be(self._scores, classifier.unsure_below), *known.earlier]
        if known.stay is not None:
            likely.append(known.stay.domain)
        if secret.isdisjoint(likely):
            return pool
        return [candidate for candidate in pool if not candidate.upstream]

    def _wanted_domains(self, unsure_below: float) -> list[tuple[str, str]]:
        scores, stay = self._scores, self._known.stay
        if not scores or scores[0].score < unsure_below:
            general = [(GENERAL, "auto: no domain recognised")]
            if stay is not None and stay.domain:
                return [(stay.domain, f"auto: the conversation is about {stay.domain}"), *general]
            return general
        first = scores[0]
        return [
            (first.domain, f"auto: domain {first.domain} {first.score:.2f}"),
            (GENERAL, f"auto: generalist, since {first.domain} has nobody left"),
        ]

    def _keep(self, why: str, left: list[Candidate]) -> list[Candidate]:
        self._why.append((why, left))
        return left

    # --- who is asked ---------------------------------------------------------------------------
    def _best(
        self, matching: Sequence[Candidate], reason: str, domain: str = ""
    ) -> Verdict | Refusal:
        left = self._keep("tried already", [c for c in matching if reachable(self._tried, c)])
        if not left:
            return refusals.exhausted(self._request, len(matching))
        left = self._softly("load not known", [c for c in left if not stale(self._facts, c)], left)
        left = self._softly("context", [c for c in left if not context(self._facts, c)], left)
        left = self._softly("tier", able_enough(self._facts, left), left)
        if not all(c.load is not None and c.load.decode_tps for c in left):
            self._facts = replace(self._facts, usual=usual_speeds(matching))
        rank, facts = STRATEGIES[self._facts.strategy], self._facts
        scored = []
        for candidate in left:
            terms = terms_of(facts, candidate)
            scored.append((rank(facts, candidate, terms), candidate, terms))
        in_time = [s for s in scored if s[2].busy <= self._request.deadline_ms]
        if in_time and len(in_time) < len(scored):
            self._keep("too late", [s[1] for s in in_time])
            scored = in_time
        self._scored = scored
        _, candidate, terms = self._draw(scored)
        how = "" if facts.strategy == AUTO else f"{facts.strategy}, "
        words = f"{reason}; {how}{terms.total:.0f} ms expected, best of {len(scored)}"
        words += self._taken_back
        ascii_words = words.encode("ascii", "replace").decode()
        return Verdict(candidate, ascii_words, terms.first, domain, self._patience(terms))

    def _patience(self, terms: Terms) -> float:
        """How long it may wait there before the next best would have been better; 0: for ever."""
        if self._facts.strategy != AUTO or len(self._scored) < 2:
            return 0.0
        costs = sorted(entry[2].total for entry in self._scored)
        return max(PATIENCE_LEAST_MS, terms.queue + costs[1] - terms.total)

    def _softly(
        self, why: str, kept: list[Candidate], before: Sequence[Candidate]
    ) -> list[Candidate]:
        if not kept:
            self._taken_back += f"; nobody left by {why}, so that does not count"
            return list(before)
        return self._keep(why, kept)

    def _draw(self, scored: list[tuple[Key, Candidate, Terms]]) -> tuple[Key, Candidate, Terms]:
        if len(scored) == 1:
            return scored[0]
        least = min(scored, key=lambda entry: entry[0])[0]
        if (home := self._home(scored, least)) is not None:
            return home
        even = [entry for entry in scored if entry[0][:-1] == least[:-1]]
        most = least[-1]
        if self._facts.strategy == AUTO:
            within = EVEN if len(scored) < CROWD else EVEN_IN_CROWD
            most = max(most * within, most + EVEN_MS)
        even = [entry for entry in even if entry[0][-1] <= most]
        if len(even) == 1:
            return even[0]
        return min(self._chance.some(even, 2), key=lambda entry: entry[0])

    def _home(
        self, scored: list[tuple[Key, Candidate, Terms]], least: Key
    ) -> tuple[Key, Candidate, Terms] | None:
        """Where the conversation is, if that costs about as much as the best."""
        stay = self._known.stay
        if stay is None or self._facts.strategy != AUTO:
            return None
        for entry in scored:
            specialist = entry[1].specialist
            if (entry[1].node, specialist.profile) == (stay.node, stay.profile):
                near = max(least[-1] * EVEN, least[-1] + EVEN_MS)
                return entry if entry[0][-1] <= near else None
        return None

    # --- telling --------------------------------------------------------------------------------
    def decision(self) -> Decision:
        """The choice with its reasons."""
        ranked = sorted(self._scored, key=lambda entry: entry[0])
        found = [
            Assessment(candidate, "", terms, place)
            for place, (_, candidate, terms) in enumerate(ranked, 1)
        ]
        for candidate in self._candidates:
            why = next((why for why, left in self._why if candidate not in left), "")
            if why:
                found.append(Assessment(candidate, why, None, 0))
        return Decision(
            self.outcome,
            self._facts.strategy,
            tuple(found),
            tuple((score.domain, score.score) for score in self._scores),
            self._known.complexity,
            str(self._facts.tier),
        )
