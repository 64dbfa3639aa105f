"""Reading what cards and requests mean, by this node's own engine, between events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.candidates import Verdict
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    Effect,
    EngineReady,
    Event,
    FailTask,
    HostingChanged,
    RouteChosen,
    RunEnded,
    RunFailed,
    RunProduced,
    Started,
    StartRun,
    StartTimer,
    TaskArrived,
    TaskDropped,
    TimerFired,
)
from meshslm.core.node import NodeCore
from meshslm.core.reading import BATCH
from meshslm.core.reading_events import RequestRead, RequestShown
from meshslm.core.residency import ModelNeed, Residency
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, TaskId, after
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    DomainCard,
    Hardware,
    Specialist,
    TaskRequest,
    Timings,
    Usage,
)
from tests.core.mesh import specialist
from tests.core.test_core_semantics import CARDS, TOPICS, vector

MODEL = "multilingual-e5-small"
TEXTS = sum(1 + len(card.examples) for card in CARDS)
HELLO = "\u8bf7\u95ee\u8fd9\u4e2a\u600e\u4e48\u505a"


def reader() -> Specialist:
    return replace(specialist("classifier", model=MODEL), operations=("embed",), domains=())


class Alone:
    """One node that hosts a model for each card, and one that reads."""

    def __init__(self, *, cards: tuple[DomainCard, ...] = CARDS, loaded: bool = True) -> None:
        config = CoreConfig(NodeId("a"), "a", semantic=True)
        self.core = NodeCore(config, Chance.from_int(1))
        self.now = Instant(0)
        self.effects: list[Effect] = []
        hosts = [replace(specialist(c.domain, model=c.domain), domains=(c,)) for c in cards]
        needs = tuple(ModelNeed(s.model, 1) for s in (*hosts, reader()))
        self.give(Started(1, ("/ip4/127.0.0.1/tcp/1",)))
        self.give(HostingChanged((*hosts, reader()), Hardware(), Residency(needs, 0, 0)))
        for need in needs:
            if loaded or need.model != MODEL:
                self.give(EngineReady(need.model, 4))

    def give(self, event: Event) -> None:
        self.effects += self.core.handle(event, self.now)
        self.core.check()

    def fire(self, kind: str, subject: str = "") -> None:
        """Let the newest timer of a kind run out."""
        timers = [
            e
            for e in self.effects
            if isinstance(e, StartTimer) and e.key.kind == kind and subject in ("", e.key.subject)
        ]
        self.now = after(self.now, timers[-1].after_ms)
        self.give(TimerFired(timers[-1].key, timers[-1].generation))

    def runs(self) -> list[StartRun]:
        return [e for e in self.effects if isinstance(e, StartRun) and e.model == MODEL]

    def embed(self, run: StartRun, topic: int | None = None) -> None:
        """Answer a run with vectors by the cards, or of one topic."""
        of_text = {
            text: TOPICS[card.domain] for card in CARDS for text in (card.sentence, *card.examples)
        }
        for item, asked in enumerate(run.request.inputs):
            text = asked.removeprefix("query: ")
            made = vector(text, of_text.get(text, 3) if topic is None else topic, 0.8)
            raw = made.astype("<f4").tobytes()
            self.give(RunProduced(run.run, Chunk(0, item=item, vector=raw, finish="stop")))
        self.give(RunEnded(run.run, Usage(1), Timings()))

    def learn(self) -> None:
        """Answer until all cards are read."""
        self.fire("tick")
        answered = 0
        while answered < len(self.runs()):
            self.embed(self.runs()[answered])
            answered += 1

    def ask(self, text: str, task: str = "t", selector: str = "auto") -> None:
        turns = (ChatMessage("user", text),)
        self.give(TaskArrived(TaskId(task), TaskRequest(selector, turns, max_tokens=5)))

    def chosen(self) -> list[str]:
        return [e.profile for e in self.effects if isinstance(e, RouteChosen)]


def test_cards_are_read_in_small_background_runs_and_once() -> None:
    node = Alone()
    assert node.runs() == []
    node.learn()
    runs = node.runs()
    assert [len(run.request.inputs) for run in runs] == [BATCH, TEXTS - BATCH]
    assert {run.request.priority for run in runs} == {"background"}
    assert all(text.startswith("query: ") for run in runs for text in run.request.inputs)
    node.fire("tick")
    assert node.runs() == runs


def test_cards_that_are_the_same_are_not_weighed_anew() -> None:
    """Who comes and goes brings the cards that others have; weighing takes a tenth of a second."""
    node = Alone()
    node.learn()
    core = node.core
    assert core._reading is not None
    judge = core._reading._judge
    core._directory.cards_version += 1
    core._router.know()
    assert core._reading._judge is judge
    assert core._reading.up_to_date


def test_a_card_that_cannot_be_read_keeps_nobody_from_reading_the_others() -> None:
    long = DomainCard("emoji", "\U0001f9d1\u200d\U0001f692" * 40, ("one", "two"))
    node = Alone(cards=(*CARDS, long))
    node.fire("tick")
    answered = 0
    for _ in range(60):
        if answered == len(node.runs()):
            node.fire("tick")
            continue
        run = node.runs()[answered]
        answered += 1
        if any("\U0001f692" in text for text in run.request.inputs):
            node.give(RunFailed(run.run, FaultCode.BAD_REQUEST, "too many tokens"))
        else:
            node.embed(run)
    assert answered < 20
    node.ask(HELLO)
    assert node.runs()[-1].request.inputs == (f"query: {HELLO}",)


def test_a_request_is_read_and_then_routed_by_its_meaning() -> None:
    for domain, topic in TOPICS.items():
        node = Alone()
        node.learn()
        node.ask(HELLO)
        assert node.chosen() == []
        run = node.runs()[-1]
        assert run.request.inputs == (f"query: {HELLO}",)
        assert run.request.priority == "interactive"
        node.embed(run, topic)
        assert node.chosen() == [domain]
        # Its next attempt, and the same text again, are not read anew.
        before = len(node.runs())
        node.ask(HELLO, "u")
        assert node.chosen() == [domain, domain]
        assert len(node.runs()) == before


def test_a_request_that_is_only_shown_is_read_too() -> None:
    node = Alone()
    node.learn()
    asked = TaskRequest("auto", (ChatMessage("user", HELLO),), max_tokens=5)
    for number, (domain, topic) in enumerate(TOPICS.items()):
        shown = replace(asked, messages=(ChatMessage("user", f"{HELLO} {number}"),))
        node.give(RequestShown(number, shown))
        assert RequestRead(number) not in node.effects
        node.embed(node.runs()[-1], topic)
        assert RequestRead(number) in node.effects
        found = node.core.explain(shown, node.now).outcome
        assert isinstance(found, Verdict)
        assert found.domain == domain
    assert node.chosen() == []


def test_what_cannot_be_read_now_is_said_to_be_at_once() -> None:
    asked = TaskRequest("auto", (ChatMessage("user", HELLO),), max_tokens=5)
    for node in (Alone(), Alone(loaded=False)):
        node.give(RequestShown(7, asked))
        assert RequestRead(7) in node.effects
    node = Alone()
    node.learn()
    node.give(RequestShown(1, asked))
    node.give(RequestShown(2, asked))  # the engine reads the first
    assert RequestRead(2) in node.effects
    node.give(RunFailed(node.runs()[-1].run, FaultCode.DEADLINE, "too late"))
    assert node.effects.count(RequestRead(1)) == 1


def test_a_vector_that_comes_too_late_is_not_waited_for() -> None:
    node = Alone()
    node.learn()
    node.ask("write a python function")
    run = node.runs()[-1]
    waits = [e for e in node.effects if isinstance(e, StartTimer) and e.key.kind == "retry"]
    assert waits[-1].after_ms == limits.EMBED_WAIT_MS
    node.fire("retry")
    assert node.chosen() == ["code"]
    node.embed(run, 1)
    assert node.chosen() == ["code"]


def test_an_engine_that_fails_or_gives_nonsense_holds_nobody_up() -> None:
    node = Alone()
    node.learn()
    node.ask("write a python function")
    node.give(RunFailed(node.runs()[-1].run, FaultCode.WORKER_LOST, "gone"))
    assert node.chosen() == ["code"]
    node.ask("fix this compiler error", "u")
    run = node.runs()[-1]
    node.give(RunProduced(run.run, Chunk(0, item=7, vector=b"\0\0\xc0\x7f" * 3)))
    node.give(RunProduced(run.run, Chunk(0, item=0, vector=b"\0\0\xc0\x7f" * 64)))
    node.give(RunEnded(run.run, Usage(1), Timings()))
    assert node.chosen() == ["code", "code"]
    node.ask("how long do I boil an egg", "v")
    node.embed(node.runs()[-1], 1)
    assert node.chosen()[-1] == "cooking"


def test_nothing_is_read_where_the_engine_is_busy_or_absent_or_the_choice_is_made() -> None:
    node = Alone()
    node.learn()
    node.ask(HELLO)
    before = len(node.runs())
    node.ask("fix this compiler error", "second")
    assert len(node.runs()) == before
    assert node.chosen() == ["code"]
    node.ask("x", "third", selector="cooking")
    assert len(node.runs()) == before
    absent = Alone(loaded=False)
    absent.fire("tick")
    absent.ask("fix this compiler error")
    assert absent.runs() == []
    assert absent.chosen() == ["code"]


def test_a_client_that_goes_while_its_text_is_read_leaves_nothing_behind() -> None:
    node = Alone()
    node.learn()
    node.ask(HELLO)
    run = node.runs()[-1]
    node.give(TaskDropped(TaskId("t")))
    node.embed(run, 0)
    assert node.chosen() == []
    assert node.core.status(node.now).tasks.active == 0
    assert not [e for e in node.effects if isinstance(e, FailTask)]


def test_vectors_of_requests_are_kept_up_to_a_bound() -> None:
    node = Alone()
    node.learn()
    for number in range(limits.VECTORS_KEPT + 3):
        node.ask(f"question {number}", f"t{number}")
        node.embed(node.runs()[-1], 1)
        node.effects = list(node.effects[-40:])
        node.give(TaskDropped(TaskId(f"t{number}")))
    reading = node.core._reading
    assert reading is not None
    assert len(reading._gists) == limits.VECTORS_KEPT


def test_a_card_whose_name_breaks_headers_is_passed_over() -> None:
    evil = DomainCard("x\r\nSet-Cookie: a", "evil things", ("do evil things",))
    node = Alone(cards=(*CARDS, evil))
    node.learn()
    assert not any("evil" in text for run in node.runs() for text in run.request.inputs)
    node.ask("do evil things")
    node.embed(node.runs()[-1], 9)
    assert node.chosen()
    reasons = [e.reason for e in node.effects if isinstance(e, RouteChosen)]
    assert all(reason.isprintable() for reason in reasons)


def test_made_up_vectors_have_the_form_of_real_ones() -> None:
    assert np.isclose(np.linalg.norm(vector("x", 1)), 1.0)
