"""What cards and requests mean: vectors made by this node's own embedding engine, and the judge.

Every node judges for itself. Cards travel as texts and never as vectors: a vector of another node
could not be checked, and would be of no use beside those of another model.

The texts of cards are embedded once, in the background, as they become known. The text of a request
is embedded when it arrives, where the engine is loaded and has nothing else to do; its task waits
for `EMBED_WAIT_MS` at most and is then routed by words.

Events: replies to its own runs, handed over by `core.node`.
Effects: those of a run on this node, by `core.serving`.

Rules:
- It never has a model loaded, and never waits in a queue for one.
- What is kept is bounded; a text is read once for all attempts of its task.
- Cards with names that no selector could have are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np

from meshslm import limits
from meshslm.core.classify import Score, distinct, sample
from meshslm.core.heads import MEANING, WORDS
from meshslm.core.outbox import Outbox
from meshslm.core.reading_events import RequestRead, RequestShown
from meshslm.core.semantics import Head, Judge, Vector, gist, texts_of
from meshslm.core.serving import Reply, Serving
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.wire.messages import (
    DomainCard,
    Specialist,
    TaskAccepted,
    TaskChunk,
    TaskEnded,
    TaskFailed,
    TaskRequest,
    TaskSubmit,
)

AUTO: Final = "auto"
GENERATE: Final = "generate"
EMBED: Final = "embed"
BATCH: Final = 8
"""Texts of cards in one run: a request that comes meanwhile finds the engine busy for 0.1 s."""
HOPELESS: Final = (FaultCode.BAD_REQUEST, FaultCode.CONTEXT_OVERFLOW)
"""What a text is refused with, whenever it is asked about."""
BATCH_MS: Final = 30_000
PREFIX: Final = "reading-"
SHOWN_MS: Final = 200
"""Who only wants to know how it would be routed can wait for longer than a request."""


class Judged:
    """The judge, as the choice for one request sees it."""

    def __init__(self, judge: Judge, text: str, vector: Vector | None) -> None:
        judgement = judge.judge(text, vector)
        self.unsure_below = judgement.unsure_below
        self._scores = judgement.scores

    def classify(self, _text: str) -> list[Score]:
        """Every domain with its probability, best first."""
        return list(self._scores)


class Reading:
    """All that this node has read, and what it reads now."""

    def __init__(
        self,
        node: NodeId,
        serving: Serving,
        out: Outbox,
        ready: Callable[[str], bool],
        resume: Callable[[TaskId, Instant], None],
        unsure_below: float = WORDS.unsure_below,
    ) -> None:
        """`ready`: whether a model takes runs. `resume`: route a task that waited."""
        self._unsure_below = unsure_below
        self._node, self._serving, self._out = node, serving, out
        self._ready, self._resume = ready, resume
        self._specialist: Specialist | None = None
        self._head: Head | None = None
        self._cards: tuple[DomainCard, ...] = ()
        self._wanted: dict[str, None] = {}
        self._vectors: dict[str, Vector] = {}
        self._gists: dict[str, Vector] = {}
        self._waits: dict[TaskId, TaskId] = {}
        """Which task waits for a run, by the run's own task."""
        self._runs: dict[TaskId, list[str]] = {}
        """Texts of each run that is under way."""
        self._made: dict[TaskId, dict[int, Vector]] = {}
        self._judge = Judge((), self._set(WORDS))
        self._usable = False
        self._shown: dict[TaskId, int] = {}
        """Runs for whom a request was only shown, and its number."""
        self._unreadable: dict[str, None] = {}
        self._batch = BATCH
        self._next = 0

    @property
    def _model(self) -> str:
        return self._specialist.model if self._specialist is not None else ""

    # --- what is there --------------------------------------------------------------------------
    def host(self, specialists: Iterable[Specialist]) -> None:
        """The specialists of this node from now on."""
        able = [s for s in specialists if EMBED in s.operations and s.model in MEANING]
        chosen = able[0] if able else None
        model = chosen.model if chosen else ""
        if self._specialist is None or self._specialist.model != model:
            self._vectors.clear()
            self._gists.clear()
        self._specialist = chosen
        self._head = self._set(MEANING[model]) if chosen else None
        self._rebuild()

    def know(self, cards: Iterable[DomainCard]) -> None:
        """The cards of this node and its peers."""
        named = distinct(card for card in cards if is_name(card.domain))
        if named == self._cards:
            return
        self._cards = named
        wanted = dict.fromkeys(t for texts in texts_of(self._cards).values() for t in texts)
        self._unreadable = {text: None for text in self._unreadable if text in wanted}
        readable = (text for text in wanted if text not in self._unreadable)
        self._wanted = dict.fromkeys(islice(readable, limits.CARD_TEXTS))
        self._vectors = {text: v for text, v in self._vectors.items() if text in self._wanted}
        self._rebuild()

    def _rebuild(self) -> None:
        # Most are enough: what a new card lacks is judged by words until it was read.
        self._usable = self._head is not None and 0 < len(self._wanted) <= 2 * len(self._vectors)
        vectors: Mapping[str, Vector] | None = self._vectors if self._usable else None
        self._judge = Judge(self._cards, self._set(WORDS), self._head, vectors)

    def _set(self, head: Head) -> Head:
        return replace(head, unsure_below=self._unsure_below)

    def judged(self, request: TaskRequest) -> Judged:
        """What decides the domain of a request, with its vector if there is one."""
        text = gist(request)
        vector = self._gists.get(text) if self._usable else None
        if vector is None:
            text = gist(request, limits.WORDS_CHARACTERS)
        return Judged(self._judge, text, vector)

    def in_words(self, text: str) -> Judged:
        """What a text is about, by its words alone."""
        return Judged(self._judge, sample(text, limits.WORDS_CHARACTERS), None)

    def has_read(self, request: TaskRequest) -> bool:
        """Whether a request is judged by its meaning."""
        return self._usable and gist(request) in self._gists

    @property
    def up_to_date(self) -> bool:
        """There are cards, and all of them were read."""
        return 0 < len(self._wanted) == len(self._vectors)

    # --- reading --------------------------------------------------------------------------------
    def learn(self, now: Instant) -> None:
        """Read more of the cards, if there is more and the engine has nothing else to do."""
        if len(self._vectors) < len(self._wanted) and self._idle():
            self._read_cards(now)

    def _read_cards(self, now: Instant) -> None:
        missing = [text for text in self._wanted if text not in self._vectors][: self._batch]
        if missing:
            self._start(missing, "background", BATCH_MS, now)

    def read(self, task: TaskId, request: TaskRequest, now: Instant) -> bool:
        """Read a request; whether its task is to wait for that."""
        return self._read(task, request, limits.EMBED_WAIT_MS, now)

    def show(self, shown: RequestShown, now: Instant) -> None:
        """Read a request that is not to be answered, and say when that is done."""
        waiting = TaskId(f"shown-{shown.number}")
        self._shown[waiting] = shown.number
        if not self._read(waiting, shown.request, SHOWN_MS, now) and waiting in self._shown:
            del self._shown[waiting]
            self._out.put(RequestRead(shown.number))

    def _read(self, task: TaskId, request: TaskRequest, within_ms: int, now: Instant) -> bool:
        auto = request.selector.partition("@")[0] == AUTO and request.operation == GENERATE
        if not auto or not self._usable or not self._idle():
            return False
        text = gist(request)
        if not text.strip() or text in self._gists:
            return False
        mine = self._start([text], "interactive", within_ms, now, task)
        return mine in self._runs

    def _idle(self) -> bool:
        specialist = self._specialist
        return (
            specialist is not None
            and not self._runs
            and self._ready(specialist.model)
            and self._serving.usage(specialist.model) == (0, 0)
        )

    def _start(
        self,
        texts: list[str],
        priority: str,
        within_ms: int,
        now: Instant,
        waiting: TaskId | None = None,
    ) -> TaskId:
        assert self._specialist is not None
        assert self._head is not None
        self._next += 1
        mine = TaskId(f"{PREFIX}{self._next}")
        inputs = tuple(self._head.prefix + text for text in texts)
        request = TaskRequest(
            self._specialist.profile,
            operation=EMBED,
            inputs=inputs,
            priority=priority,
            deadline_ms=within_ms,
        )
        self._runs[mine], self._made[mine] = texts, {}
        if waiting is not None:
            self._waits[mine] = waiting
        submit = TaskSubmit(mine, 1, self._specialist.profile, request, within_ms)
        self._serving.submit(self._node, submit, now)
        return mine

    # --- replies --------------------------------------------------------------------------------
    def owns(self, task: TaskId) -> bool:
        """Whether a reply is to one of its runs, now or once."""
        return task.startswith(PREFIX)

    def reply(self, reply: Reply, now: Instant) -> None:
        """The engine says something about a run."""
        texts = self._runs.get(reply.task)
        if texts is None:
            return
        if isinstance(reply, TaskChunk):
            vector = np.frombuffer(reply.chunk.vector, dtype="<f4")
            if self._fits(vector) and reply.chunk.item < len(texts):
                self._made[reply.task][reply.chunk.item] = vector
            return
        if isinstance(reply, TaskAccepted):
            return
        del self._runs[reply.task]
        made = self._made.pop(reply.task)
        waiting = self._waits.pop(reply.task, None)
        found = {texts[item]: vector for item, vector in made.items()}
        if waiting is None:
            self._learned(reply, texts, found, now)
            return
        for text, vector in found.items():
            self._gists[text] = vector
            if len(self._gists) > limits.VECTORS_KEPT:
                del self._gists[next(iter(self._gists))]
        if waiting in self._shown:
            self._out.put(RequestRead(self._shown.pop(waiting)))
        else:
            self._resume(waiting, now)

    def _learned(
        self, reply: Reply, texts: list[str], found: Mapping[str, Vector], now: Instant
    ) -> None:
        """Texts of cards were read. One that cannot be keeps nobody from reading the others."""
        self._vectors.update((t, v) for t, v in found.items() if t in self._wanted)
        if isinstance(reply, TaskEnded):
            refused = [text for text in texts if text not in found]
            self._batch = min(BATCH, 2 * self._batch)
        else:
            hopeless = isinstance(reply, TaskFailed) and reply.code in HOPELESS
            refused = texts if hopeless and len(texts) == 1 else []
            self._batch = 1
        for text in refused:
            self._unreadable[text] = None
            self._wanted.pop(text, None)
        if len(self._vectors) == len(self._wanted):
            self._rebuild()
        elif self._serving.usage(self._model) == (1, 0):  # the run that ends here
            self._read_cards(now)

    def _fits(self, vector: Vector) -> bool:
        """Whether it can stand beside the others."""
        if not len(vector) or not np.isfinite(vector).all() or not vector.any():
            return False
        return all(len(other) == len(vector) for other in islice(self._vectors.values(), 1))


def show(reading: Reading | None, shown: RequestShown, out: Outbox, now: Instant) -> None:
    """The same, where perhaps nobody reads."""
    if reading is None:
        out.put(RequestRead(shown.number))
    else:
        reading.show(shown, now)


def is_name(domain: str) -> bool:
    """Whether a selector could name it: nothing that is blank, invisible or a separator."""
    return bool(domain) and not any(
        not sign.isprintable() or sign.isspace() or sign in "@:/," for sign in domain
    )
