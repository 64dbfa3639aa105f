"""A stand-in for an engine whose answers can be known beforehand, for simulation and quick tests.

Two layers: `answer` says what an engine would say to a request, a function of the request alone;
`ScriptedEngine` says when, as a machine without clock or tasks that a simulator drives from its
heap. `scripted_port` has the `Engine` port around it.

Rules:
- The same calls give the same events; time is handed in.
- It refuses what the real engine refuses, with the same codes and numbers.
- Runs wait in one queue; one that waits is overtaken by nobody.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from meshslm.core.events import EngineMeasured, EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.errors import FaultCode
from meshslm.ids import Instant, RunId
from meshslm.wire.messages import Chunk, TaskRequest, Timings, Usage

VOCABULARY: Final = 32_000
LONGEST: Final = 96
"""Tokens of the longest answer that ends by itself."""
_SECOND: Final = 1_000_000

_WORDS: Final = (
    *("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "haven", "iris", "juniper"),
    *("kelp", "larch", "maple", "nectar", "ocean", "pebble", "quartz", "raven", "sable", "tundra"),
    *("umber", "violet", "willow", "xenon", "yarrow", "zephyr"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says to one choice of a request."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    """The text of each token."""
    finish: str

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@lru_cache(maxsize=4096)
def answer(request: TaskRequest, choice: int) -> Answer:
    """The answer to a choice of a request: always the same.

    Where a part of it was delivered it has at least one token more.
    """
    asked = (request.messages, request.prompt, request.sampling, choice)
    digest = blake2b(repr(asked).encode(), digest_size=32).digest()
    natural = 8 + int.from_bytes(digest[:2], "big") % (LONGEST - 7)
    natural = max(natural, resumed(request, choice) + 1)
    count = min(natural, request.max_tokens or natural)
    block = b""
    tokens: list[int] = []
    pieces: list[str] = []
    for place in range(count):
        if place % 16 == 0:
            block = blake2b(digest, digest_size=32, salt=place.to_bytes(8, "big")).digest()
        number = int.from_bytes(block[place % 16 * 2 : place % 16 * 2 + 2], "big") % VOCABULARY
        tokens.append(number)
        pieces.append(f"{_WORDS[number % len(_WORDS)]}{number} ")
    return Answer(tuple(tokens), tuple(pieces), "length" if count < natural else "stop")


def resumed(request: TaskRequest, choice: int) -> int:
    """Tokens of a choice that were delivered already, by another engine."""
    tokens, text = request.delivered, request.begun
    if request.shares is not None:
        parts = request.shares.parts
        tokens, text = (parts(tokens)[choice], "") if tokens else (b"", parts(text)[choice])
    return len(tokens) // 4 or text.count(" ")


def going(request: TaskRequest) -> dict[int, int]:
    """The choices that have not ended, and the tokens of each that were delivered already."""
    ends = request.shares.finishes if request.shares is not None else ("",) * request.choices
    return {choice: resumed(request, choice) for choice, end in enumerate(ends) if not end}


def expected_text(request: TaskRequest, choice: int = 0) -> str:
    """The text that a client must get for a choice of a request."""
    return answer(request, choice).text


def prompt_tokens(request: TaskRequest) -> int:
    """Tokens of a request's prompt: one for four characters, and four for each turn."""
    turns = [message.content for message in request.messages] or [request.prompt]
    return sum(4 + len(turn) // 4 for turn in turns)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a scripted engine is, and how much room it has."""

    prefill_tps: float = 400.0
    decode_tps: float = 30.0
    """Tokens a second of one stream."""
    slots: int = 8
    context: int = 2048


@dataclass(slots=True)
class _Run:
    id: RunId
    request: TaskRequest
    prompt: int
    answers: tuple[Answer, ...]
    arrived: Instant
    places: dict[int, int]
    """Tokens that each choice that goes on has said."""
    ended: int
    """Tokens of those that do not."""
    admitted: Instant = Instant(0)
    first: Instant = Instant(0)
    at: Instant = Instant(0)
    """When the next token is due."""

    @property
    def said(self) -> int:
        """Tokens of all choices."""
        return self.ended + sum(self.places.values())


class ScriptedEngine:
    """The machine: runs in, events out at their times."""

    def __init__(self, model: str, speed: Speed | None = None) -> None:
        self.model = model
        self.speed = speed or Speed()
        self._waiting: deque[_Run] = deque()
        self._running: dict[RunId, _Run] = {}
        self._due: deque[Event] = deque()
        self._due_at = Instant(0)
        self._measured = False

    @property
    def running(self) -> int:
        """Sequences that are generated now."""
        return sum(len(run.answers) for run in self._running.values())

    @property
    def waiting(self) -> int:
        """Runs without a slot."""
        return len(self._waiting)

    def loaded(self) -> Event:
        """The event that says it is ready; whoever drives it decides when."""
        return EngineReady(self.model, self.speed.slots)

    def start_run(self, run: RunId, request: TaskRequest, now: Instant) -> None:
        """Begin a run; its events come out of `advance`."""
        fault = self._refusal(run, request)
        if fault is not None:
            self._tell(fault, now)
            return
        answers = tuple(answer(request, choice) for choice in range(request.choices))
        places = going(request)
        ended = sum(resumed(request, c) for c in range(request.choices) if c not in places)
        prompt = prompt_tokens(request)
        self._waiting.append(_Run(run, request, prompt, answers, now, places, ended))
        self._admit(now)

    def stop_run(self, run: RunId, now: Instant) -> None:
        """Stop a run; unknown ones are ignored."""
        self._running.pop(run, None)
        self._waiting = deque(held for held in self._waiting if held.id != run)
        self._admit(now)

    def reset(self) -> None:
        """It crashed: every run is gone."""
        self._running.clear()
        self._waiting.clear()
        self._due.clear()

    def next_at(self) -> Instant | None:
        """When `advance` has something to say next; None while nothing runs."""
        times = [run.at for run in self._running.values()]
        if self._due:
            times.append(self._due_at)
        return min(times, default=None)

    def advance(self, now: Instant) -> list[Event]:
        """Everything that has happened until `now`, in order."""
        events: list[Event] = list(self._due)
        self._due.clear()
        while True:
            run = min(self._running.values(), key=lambda held: (held.at, held.id), default=None)
            if run is None or run.at > now:
                return events
            self._say(run, events)

    # --- inside -----------------------------------------------------------------------------------
    def _tell(self, event: Event, now: Instant) -> None:
        self._due.append(event)
        self._due_at = now

    def _refusal(self, run: RunId, request: TaskRequest) -> RunFailed | None:
        room = self.speed.context
        prompt = prompt_tokens(request)
        if request.choices > self.speed.slots:
            detail = f"{request.choices} choices, but this engine runs {self.speed.slots} at a time"
            return RunFailed(run, FaultCode.BAD_REQUEST, detail, "n")
        if prompt + max(request.max_tokens, 1) > room:
            total = prompt + request.max_tokens
            detail = (
                f"{prompt} prompt tokens and {request.max_tokens} to generate are {total}, "
                f"but the context has {room}"
            )
            return RunFailed(run, FaultCode.CONTEXT_OVERFLOW, detail, "max_tokens")
        for bias in request.sampling.logit_bias:
            if not 0 <= bias.token < VOCABULARY:
                detail = (
                    f"logit_bias for token {bias.token}, but the vocabulary has tokens 0 to "
                    f"{VOCABULARY - 1}"
                )
                return RunFailed(run, FaultCode.BAD_REQUEST, detail, "logit_bias")
        return None

    def _admit(self, now: Instant) -> None:
        free = self.speed.slots - self.running
        while self._waiting and len(self._waiting[0].answers) <= free:
            run = self._waiting.popleft()
            free -= len(run.answers)
            run.admitted = now
            rows = run.prompt + max(run.places.values(), default=0)
            run.at = Instant(now + int(_SECOND * rows / self.speed.prefill_tps))
            self._running[run.id] = run

    def _say(self, run: _Run, events: list[Event]) -> None:
        """One token of each choice of a run."""
        now = run.at
        beginning = not run.first
        if beginning:
            run.first = now
            if not self._measured:
                self._measured = True
                events.append(
                    EngineMeasured(self.model, self.speed.prefill_tps, self.speed.decode_tps)
                )
        for choice, place in run.places.items():
            said = run.answers[choice]
            if place < len(said.tokens):
                last = place == len(said.tokens) - 1
                chunk = Chunk(
                    choice,
                    (said.tokens[place],),
                    said.pieces[place],
                    finish=said.finish if last else "",
                    prompt_tokens=run.prompt if beginning else 0,
                )
                events.append(RunProduced(run.id, chunk))
                run.places[choice] = place + 1
        run.at = Instant(now + int(_SECOND / self.speed.decode_tps))
        if all(place >= len(run.answers[choice].tokens) for choice, place in run.places.items()):
            del self._running[run.id]
            events.append(_ended(run, now))
            self._admit(now)


def _ended(run: _Run, now: Instant) -> RunEnded:
    return RunEnded(
        run.id,
        Usage(run.prompt, run.said),
        Timings(
            queue_ms=(run.admitted - run.arrived) / 1000,
            prefill_ms=(run.first - run.admitted) / 1000,
            decode_ms=(now - run.first) / 1000,
        ),
    )
