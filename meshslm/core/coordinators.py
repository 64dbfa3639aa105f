"""Who keeps the loads of a large mesh, and who asks them.

For each share of each topic some members are coordinators. Nodes that host something of the topic
keep a link to them and tell them their loads; a node that looks for somebody asks one of them, and
talks to whom it named directly.

Events: presences, questions and answers arrive, tasks that need somebody, timers.
Effects: `Send`, timers; the tasks that waited go on.

Rules:
- Coordinators hold nothing that is not told to them anew within seconds: when one dies, the next in
  order hears of the same nodes, and the others go on meanwhile.
- An answer is short, and drawn among equals, so that not all who ask go to the same node.
- A task never waits for long: where nobody answers, records alone have to do, without loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.certificates import Act, may, stated
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.events import Lane
from meshslm.core.members import Members
from meshslm.core.offers import card_in, fits, soonest_first
from meshslm.core.outbox import Outbox
from meshslm.core.records import COORDINATOR, Fact, mark_of, services_of, topics_of
from meshslm.core.rendezvous import Rendezvous, key_of, shares
from meshslm.core.telling import Telling
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.admission import Certificate, Credential
from meshslm.wire.codec import decode, encode
from meshslm.wire.growth import Answer, Ask, Offer, Service
from meshslm.wire.messages import Capability, EngineLoad, Presence

TIMER = "question"
DIAL_MS = 1_500
"""Time for an answer where the coordinator has to be dialled first: a handshake round the world."""
TRIES = 3
UNREACHED_MS = 10_000
"""A coordinator that could not be dialled is not dialled again for so long."""
SWEEP_MS = 5_000
"""Between two looks for answers that are too old to be kept."""
CARD_TRY_MS = 5_000
"""Between two questions for the texts of one domain."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a task looks for."""

    topic: str
    name: str = ""
    adapter: str = ""
    operation: str = ""
    tokens: int = 0
    """That the answer may have, about."""


@dataclass(slots=True)
class Question:
    """One that was put, and what waits for its answer."""

    need: Need
    cards: bool
    then: list[Callable[[Instant], None]] = field(default_factory=list)
    asked: list[NodeId] = field(default_factory=list)


@dataclass(slots=True)
class Remembered:
    """An answer."""

    at: Instant
    nodes: tuple[NodeId, ...]


class Coordinators:
    """Both sides of the registry on one node."""

    def __init__(
        self,
        node: NodeId,
        directory: Directory,
        members: Members,
        out: Outbox,
        chance: Chance,
        *,
        own: Callable[[], tuple[Capability, Presence]],
    ) -> None:
        self._node = node
        self._directory = directory
        self._members = members
        self._out = out
        self._chance = chance
        self._own = own
        self._eligible: dict[NodeId, None] = {}
        """Members that may coordinate."""
        self._rendezvous = Rendezvous(lambda: self._eligible)
        self._questions: dict[int, Question] = {}
        self._number = 0
        self._answers: dict[Need, Remembered] = {}
        self.telling = Telling(directory, out, own)
        self._cards_asked: dict[str, Instant] = {}
        self._unreached: dict[NodeId, Instant] = {}
        """Who could not be dialled a moment ago."""
        self._swept: Instant | None = None
        self._mine: tuple[Capability, int, dict[NodeId, None]] | None = None
        """Of a capability and a sum of all members: whom this node tells."""

    def came(self, fact: Fact) -> None:
        """A member is new, or says something new of itself."""
        node = fact.record.node
        if may_coordinate(fact):
            if node not in self._eligible:
                self._eligible[node] = None
                self._rendezvous.came(node)
        else:
            self._eligible.pop(node, None)
            self._rendezvous.gone(node)

    def gone(self, fact: Fact) -> None:
        """A member is gone."""
        self._eligible.pop(fact.record.node, None)
        self._rendezvous.gone(fact.record.node)

    def of(self, topic: str, share: int = 0, parts: int = 1) -> tuple[NodeId, ...]:
        """The coordinators of a share of a topic."""
        return self._rendezvous.of(key_of(topic, share, parts))

    def adopt(self, known: Rendezvous) -> None:
        """Know who coordinates, as it was found for the same members."""
        self._rendezvous.adopt(known)

    # --- those who host something ---------------------------------------------------------------
    def mine(self, capability: Capability) -> dict[NodeId, None]:
        """Whom to tell how busy this node is, that can do this. Not to be changed."""
        known, root = self._mine, self._members.root
        if known is None or known[0] is not capability or known[1] != root:
            known = (capability, root, self._seek(services_of(capability.specialists)))
            self._mine = known
        return known[2]

    def _seek(self, services: tuple[Service, ...]) -> dict[NodeId, None]:
        found: dict[NodeId, None] = {}
        for topic in topics_of(services):
            parts = shares(len(self._members.providers(topic)))
            share = (mark_of(self._node) >> 32) % parts
            found.update(dict.fromkeys(self.of(topic, share, parts)))
        found.pop(self._node, None)
        return found

    def worth_a_dial(self, node: NodeId) -> bool:
        """Whether a coordinator that is not linked may be dialled."""
        return self._directory.get_alive(node) is None and node not in self._unreached

    # --- those who are asked --------------------------------------------------------------------
    def on_ask(self, peer: Peer, ask: Ask, now: Instant) -> None:
        """A node looks for somebody."""
        offers, card = self._found(ask, now)
        self._out.send(peer.node, Lane.INTERACTIVE, Answer(ask.number, offers, card))

    def _found(self, ask: Ask, now: Instant) -> tuple[tuple[Offer, ...], bytes]:
        def able(capability: Capability) -> bool:
            return any(fits(s, ask) for s in capability.specialists)

        capability, presence = self._own()
        fitting = [(self._node, capability, presence, now)] if able(capability) else []
        for peer in self._directory.alive():
            if peer.capability is not None and able(peer.capability):
                told = Presence(peer.boot, max(0, peer.seq), peer.loads, peer.next_ms)
                fitting.append((peer.node, peer.capability, told, peer.told))
        drawn = soonest_first(self._chance.shuffled(fitting), ask.tokens, now)
        offers = tuple(
            Offer(node, encode(told), max(0, int(ms_between(at, now))))
            for node, _, told, at in drawn[: mesh_limits.OFFERS]
        )
        card = card_in(ask.topic, (c for _, c, _, _ in fitting)) if ask.cards else None
        return offers, b"" if card is None else encode(card)

    # --- those who ask --------------------------------------------------------------------------
    def fresh(self, need: Need, now: Instant) -> bool:
        """Whether who can is known from a moment ago."""
        known = self._answers.get(need)
        return known is not None and ms_between(known.at, now) < mesh_limits.ANSWER_MS

    def inquire(self, need: Need, then: Callable[[Instant], None], now: Instant) -> None:
        """Ask who can, and go on with `then` when that is known, or nobody answers in time."""
        for question in self._questions.values():
            if question.need == need:
                question.then.append(then)
                return
        if len(self._questions) >= mesh_limits.QUESTIONS:
            then(now)
            return
        self._put(Question(need, self._lacks_card(need.topic), [then]), now)

    def learn_cards(self, now: Instant) -> None:
        """Ask for the texts of one domain that somebody hosts and nobody here can recognise."""
        for topic in self._members.topics:
            if not self._lacks_card(topic):
                continue
            asked = self._cards_asked.get(topic)
            if asked is None or ms_between(asked, now) >= CARD_TRY_MS:
                self._cards_asked[topic] = now
                self._put(Question(Need(topic), cards=True), now)
                return

    def _lacks_card(self, topic: str) -> bool:
        return ":" not in topic and topic not in self._directory.learned_cards

    def _put(self, question: Question, now: Instant) -> None:
        self._number += 1
        self._questions[self._number] = question
        self._ask_next(self._number, now)

    def _ask_next(self, number: int, now: Instant) -> None:
        question = self._questions[number]
        need = question.need
        parts = shares(len(self._members.providers(need.topic)))
        share = self._chance.below(parts)
        left = [n for n in self.of(need.topic, share, parts) if n not in question.asked]
        if not left or len(question.asked) >= TRIES:
            self._without(number, now)
            return
        linked = [n for n in left if n == self._node or self._directory.get_alive(n) is not None]
        node = linked[0] if linked else left[0]
        question.asked.append(node)
        ask = Ask(number, *_words(need), question.cards, need.tokens)
        if node == self._node:
            offers, card = self._found(ask, now)
            self._heard(Answer(number, offers, card), now)
            return
        self._out.send(node, Lane.INTERACTIVE, ask)
        self._out.start_timer(TIMER, str(number), mesh_limits.QUESTION_MS if linked else DIAL_MS)

    def timer(self, subject: str, now: Instant) -> None:
        """A coordinator has not answered in time."""
        if int(subject) in self._questions:
            self._ask_next(int(subject), now)

    def unreachable(self, node: NodeId, now: Instant) -> None:
        """A coordinator could not be dialled."""
        self._unreached[node] = now
        for number, question in list(self._questions.items()):
            if question.asked and question.asked[-1] == node:
                self._ask_next(number, now)

    def on_answer(self, peer: Peer, answer: Answer, now: Instant) -> None:
        """A coordinator answers."""
        question = self._questions.get(answer.number)
        if question is not None and peer.node in question.asked:
            self._heard(answer, now)

    def _heard(self, answer: Answer, now: Instant) -> None:
        question = self._questions[answer.number]
        if answer.card:
            self._learn(question.need.topic, answer.card)
        nodes = []
        for offer in answer.offers:
            presence = decode(offer.presence)
            if not isinstance(presence, Presence):
                raise PeerFault(f"an offer holds a {type(presence).__name__}")
            told = Instant(max(0, now - 1000 * min(offer.age_ms, mesh_limits.ANSWER_KEPT_MS)))
            if self._report(offer.node, presence.loads, told):
                nodes.append(offer.node)
        if not nodes and question.then:
            self._ask_next(answer.number, now)
            return
        self._conclude(answer.number, tuple(nodes), now)

    def _learn(self, topic: str, encoded: bytes) -> None:
        capability = decode(encoded)
        if not isinstance(capability, Capability):
            raise PeerFault(f"a card within a {type(capability).__name__}")
        cards = [c for s in capability.specialists for c in s.domains if c.domain == topic]
        if cards and len(self._directory.learned_cards) < mesh_limits.MEMBERS:
            self._directory.learned_cards[topic] = cards[0]
            self._directory.cards_version += 1

    def _without(self, number: int, now: Instant) -> None:
        """Nobody answers: some of those who can by their records, without loads."""
        question = self._questions[number]
        found = []
        if question.then:
            ask = Ask(number, *_words(question.need))
            able = [
                node
                for node in self._members.providers(question.need.topic)
                if node != self._node and self._able(node, ask)
            ]
            found = self._chance.some(able, min(len(able), mesh_limits.OFFERS))
            for node in found:
                self._report(node, (), now)
        self._conclude(number, tuple(found), now)

    def _able(self, node: NodeId, ask: Ask) -> bool:
        fact = self._members.get(node)
        return fact is not None and any(fits(s, ask) for s in fact.capability.specialists)

    def _conclude(self, number: int, nodes: tuple[NodeId, ...], now: Instant) -> None:
        question = self._questions.pop(number)
        self._out.stop_timer(TIMER, str(number))
        if question.then:
            if len(self._answers) >= mesh_limits.ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers.pop(question.need, None)
            self._answers[question.need] = Remembered(now, nodes)
        for then in question.then:
            then(now)

    def _report(self, node: NodeId, loads: tuple[EngineLoad, ...], told: Instant) -> bool:
        """Make a member known to routing as somebody who can be asked."""
        fact = self._members.get(node)
        if fact is None or node == self._node:
            return fact is not None
        known = self._directory.reported.get(node)
        if known is not None and known.told > told:
            return True  # it has said something newer to us
        peer = self.stand_in(fact)
        peer.loads, peer.told = loads, told
        self._directory.reported[node] = peer
        return True

    def stand_in(self, fact: Fact) -> Peer:
        """A member as routing sees it, linked or not."""
        record = fact.record
        linked = self._directory.get_alive(record.node)
        return Peer(
            record.node,
            PeerState.ALIVE,
            name=record.name,
            addresses=fact.view.addresses,
            boot=record.boot,
            rtt_ms=linked.rtt_ms if linked is not None else None,
            capability=fact.capability,
        )

    def name(self, wanted: str, now: Instant) -> None:
        """Somebody asks for a node by id or name: let routing see it."""
        for fact in self._members.all():
            if wanted in (fact.record.node, fact.record.name):
                self._report(fact.record.node, (), now)

    def sweep(self, now: Instant) -> None:
        """Forget what is too old; who is reported and gone is forgotten at once elsewhere."""
        for node, at in list(self._unreached.items()):
            if ms_between(at, now) >= UNREACHED_MS:
                del self._unreached[node]
        if self._swept is not None and 0 <= ms_between(self._swept, now) < SWEEP_MS:
            return
        self._swept = now
        old = [
            need
            for need, known in self._answers.items()
            if ms_between(known.at, now) >= mesh_limits.ANSWER_KEPT_MS
        ]
        for need in old:
            del self._answers[need]
        reported = self._directory.reported
        kept_ms = 2 * mesh_limits.ANSWER_KEPT_MS
        for node in [n for n, peer in reported.items() if ms_between(peer.told, now) >= kept_ms]:
            del reported[node]

    def release(self, now: Instant) -> None:
        """Ask nobody any more: what waits goes on without."""
        for number in list(self._questions):
            self._conclude(number, (), now)
        self._answers.clear()
        self.telling.release()

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._questions) <= mesh_limits.QUESTIONS + 1
        assert len(self._answers) <= mesh_limits.ANSWERS
        for number in self._questions:
            assert self._out.timer_runs(TIMER, str(number)), "a question that nobody looks after"


def _words(need: Need) -> tuple[str, str, str, str]:
    return need.topic, need.name, need.adapter, need.operation


@lru_cache(maxsize=4_096)
def _rights(credential: Credential) -> tuple[str, ...]:
    certificate = stated(credential.certificate, Certificate)
    return tuple(act for act in Act if may(certificate, act))


def may_coordinate(fact: Fact) -> bool:
    """Whether a member offers to coordinate, and may, where there are certificates."""
    record = fact.record
    if COORDINATOR not in record.roles:
        return False
    return record.credential is None or Act.COORDINATE in _rights(record.credential)
