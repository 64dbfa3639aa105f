"""Routing at one origin: who is there, what is known of them, and the choice for each request.

It joins what membership tells, what this node hosts, and what this origin has measured; the choice
itself is `core.route`, pure.

Rules:
- What does not change between two requests is not computed for each: a peer's candidates are made
  when its capability, load or distance changes.
- It learns from the effects that clients get, in the order in which they get them.
- Explaining runs nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Decision, Refusal, Verdict
from meshslm.core.classify import classifier_for, distinct
from meshslm.core.complexity import complexity_of
from meshslm.core.conversations import Conversations
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Effect, EmitChunk, FailTask, FinishTask, RouteChosen
from meshslm.core.reading import Reading
from meshslm.core.route import DOMAIN, Classifies, Known, choose, decide, request_text
from meshslm.core.route_facts import (
    ASSUMED_ANSWER_TOKENS,
    CLOUD_FROM,
    EDGE_BELOW,
    length_key,
)
from meshslm.core.route_filters import may_be
from meshslm.core.strategies import AUTO
from meshslm.core.track_record import TrackRecord
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.wire.messages import (
    Capability,
    DomainCard,
    EngineLoad,
    Specialist,
    TaskRequest,
)


@dataclass(frozen=True, slots=True)
class Own:
    """This node, as its own origin sees it."""

    node: NodeId
    name: str
    capability: Capability
    loads: tuple[EngineLoad, ...]
    upstream: tuple[Specialist, ...] = ()
    """Endpoints outside the mesh that this node may use, for its own clients."""


@dataclass(slots=True)
class _Listed:
    """A peer's candidates, and what they were made of."""

    capability: Capability
    loads: tuple[EngineLoad, ...]
    rtt_ms: float | None
    told: Instant
    candidates: tuple[Candidate, ...]


class Router:
    """The choices of one origin."""

    def __init__(
        self,
        directory: Directory,
        chance: Chance,
        own: Callable[[], Own],
        *,
        strategy: str = AUTO,
        tiers: tuple[float, float] = (EDGE_BELOW, CLOUD_FROM),
        reading: Reading | None = None,
    ) -> None:
        """`reading`: judges by meaning; without it words alone decide, and nothing is hard."""
        self._directory = directory
        self._chance = chance
        self._own = own
        self._strategy = strategy
        self._tiers = tiers
        self._reading = reading
        self._listed: dict[NodeId, _Listed] = {}
        self._cards: tuple[DomainCard, ...] = ()
        self._cards_version = -1
        self._private: dict[NodeId, tuple[DomainCard, ...]] = {}
        """Of the domains that each node keeps private, by its last word: who is gone has not taken
        it back, and what is of them is still to be recognised."""
        self._secret: frozenset[str] = frozenset()
        """All of these domains."""
        self._record = TrackRecord()
        self._conversations = Conversations()
        self._verdicts: dict[tuple[NodeId, str], tuple[TaskRequest, Verdict]] = {}
        """Of the present event: what a `RouteChosen` among its effects came of."""
        self.now = Instant(0)
        self._learners: dict[type, Callable[..., None]] = {
            RouteChosen: self._on_chosen,
            EmitChunk: lambda e: self._record.item(e, self.now),
            FinishTask: lambda e: self._record.ended(e.task, self.now),
            FailTask: lambda e: self._record.failed(e, self.now),
        }

    # --- who is there ---------------------------------------------------------------------------
    def candidates(self, *, others: bool) -> list[Candidate]:
        """Every specialist that can be asked: this node's, and `others`."""
        own = self._own()
        loads = {load.model: load for load in own.loads}
        hardware = own.capability.hardware
        found = [
            Candidate(own.node, own.name, s, loads.get(s.model), 0.0, local=True, hardware=hardware)
            for s in own.capability.specialists
        ]
        found.extend(
            Candidate(own.node, own.name, s, loads.get(s.model), 0.0, local=True, upstream=True)
            for s in own.upstream
        )
        if others:
            for peer in self._directory.askable():
                if peer.capability is not None:
                    found.extend(self._of(peer, peer.capability))
        return found

    def _of(self, peer: Peer, capability: Capability) -> tuple[Candidate, ...]:
        known = self._listed.get(peer.node)
        if (
            known is not None
            and known.loads is peer.loads
            and known.capability is capability
            and known.rtt_ms == peer.rtt_ms
            and known.told == peer.told
        ):
            return known.candidates
        loads = {load.model: load for load in peer.loads}
        made = tuple(
            Candidate(
                peer.node,
                peer.name,
                specialist,
                loads.get(specialist.model),
                peer.rtt_ms,
                hardware=capability.hardware,
                told=peer.told,
            )
            for specialist in capability.specialists
        )
        if len(self._listed) > 2 * len(self._directory.peers) + 16:
            self._listed.clear()  # most of them are gone
        if known is None or known.capability is not capability:
            self._heed(peer.node, capability)
        self._listed[peer.node] = _Listed(capability, peer.loads, peer.rtt_ms, peer.told, made)
        return made

    # --- choosing -------------------------------------------------------------------------------
    def route(
        self, request: TaskRequest, tried: list[NodeId], candidates: list[Candidate]
    ) -> Verdict | Refusal:
        """The best of some candidates."""
        classifier, known = self._classifier(request), self._known(request)
        found = choose(request, candidates, tried, classifier, self._chance, known)
        if isinstance(found, Verdict):
            chosen = found.candidate
            self._verdicts[chosen.node, chosen.specialist.profile] = (request, found)
        return found

    def likely(self, request: TaskRequest) -> tuple[str, ...]:
        """The domain that a request's text is of, if one is recognised."""
        classifier = self._classifier(request)
        scores = classifier.classify(request_text(request))
        recognised = scores and scores[0].score >= classifier.unsure_below
        return (scores[0].domain,) if recognised else ()

    def explaining(
        self, request: TaskRequest, now: Instant
    ) -> Callable[[list[Candidate]], Decision]:
        """What `route` would do now, and why; who is drawn among equals may be another."""
        self.now = now
        classifier, known = self._classifier(request), self._known(request)
        signs = complexity_of(request).reasons if self._reading else ()

        def explain(candidates: list[Candidate]) -> Decision:
            chance = self._chance.fork("explained")
            found = decide(request, candidates, [], classifier, chance, known)
            return replace(found, signs=signs)

        return explain

    def _known(self, request: TaskRequest) -> Known:
        return Known(
            self._strategy,
            self._record.at(self.now),
            self._conversations.of(request),
            complexity_of(request).value if self._reading else None,
            self._tiers,
            self._record.lengths,
            self.now,
            self._secret,
            self._earlier(request),
        )

    def _earlier(self, request: TaskRequest) -> frozenset[str]:
        """Domains that earlier turns may well be of, by words: an upstream would read them too."""
        auto = request.selector.partition("@")[0] == AUTO
        if not self._secret or not auto or not self._own().upstream:
            return frozenset()
        turns = [turn.content for turn in request.messages if turn.role == "user"][:-1]
        found: set[str] = set()
        for text in turns[-limits.TURNS_JUDGED :]:
            judged = self._reading.in_words(text) if self._reading else classifier_for(self._cards)
            found.update(may_be(judged.classify(text), judged.unsure_below))
        return frozenset(found)

    def _classifier(self, request: TaskRequest) -> Classifies:
        self.know()
        if self._reading is not None:
            return self._reading.judged(request)
        return classifier_for(self._cards)

    def know(self) -> None:
        """Take up the cards that came since the last time."""
        if self._cards_version == self._directory.cards_version:
            return
        me = self._own()
        self._heed(me.node, me.capability)
        for peer in self._directory.alive():
            if peer.capability is not None:
                self._heed(peer.node, peer.capability)
        self._cards_version = self._directory.cards_version
        own = [card for s in me.capability.specialists for card in s.domains]
        secret = [card for cards in self._private.values() for card in cards]
        self._cards = distinct([*own, *self._directory.cards(), *secret])
        if self._reading is not None:
            self._reading.know(self._cards)

    def _heed(self, node: NodeId, capability: Capability) -> None:
        """What a node says is private."""
        before = self._private.pop(node, ())
        said = tuple(card for s in capability.specialists if s.private for card in s.domains)
        if said:
            self._private[node] = said
            if len(self._private) > limits.PRIVATE_NODES:
                del self._private[next(iter(self._private))]
        if said != before:
            known = self._private.values()
            self._secret = frozenset(card.domain for cards in known for card in cards)
            self._cards_version = -1

    # --- learning -------------------------------------------------------------------------------
    def learn(self, effects: Iterable[Effect]) -> None:
        """What clients are told, at `now`."""
        learners = self._learners
        for effect in effects:
            learner = learners.get(type(effect))
            if learner is not None:
                learner(effect)
        if self._verdicts:
            self._verdicts.clear()

    def dropped(self, task: TaskId) -> None:
        """A client went away."""
        self._record.dropped(task)

    def sent_on(self, task: TaskId, by: Candidate, wait_ms: float, now: Instant) -> None:
        """A node told how long a task would wait there: no failure, and news of its queue."""
        self._record.dropped(task)
        self._directory.waits(by.node, by.specialist.model, wait_ms, now)

    def _on_chosen(self, route: RouteChosen) -> None:
        request, verdict = self._verdicts.get((route.node, route.profile), (None, None))
        kinds: tuple[str, ...] = ()
        if request is not None and verdict is not None and not route.continued:
            kinds = (length_key(request.selector.partition("@")[0], request),)
            if verdict.domain:
                kinds = (*kinds, length_key(DOMAIN + verdict.domain, request))
            self._conversations.answered(request, route.node, route.profile, verdict.domain)
        most = (request.max_tokens if request is not None else 0) or ASSUMED_ANSWER_TOKENS
        self._record.chosen(route, verdict, kinds, self.now, most=most)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self._record.check()
        self._conversations.check()
