"""The flight recorder: the last events of this node's core, ready to be replayed.

Why in two halves: a core cannot be rebuilt in the middle of its life, so only what begins with its
start replays. The first half of the room keeps the start; the rest is a ring of the newest. While
everything fits, a recording is whole; later its beginning still replays, and its end can be read.

Rules:
- Bounded: never more than `most_bytes` of packed steps, and one segment that is being filled.
- It never raises into the pump: the recorder must not be what ends a node.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec

from meshslm import __version__, limits
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    Effect,
    Event,
    RouteChosen,
    RunProduced,
    TaskArrived,
    TimerFired,
)
from meshslm.daemon.recording import (
    GONE,
    Start,
    Step,
    checksum,
    config_json,
    event_json,
    event_of,
    kinds,
    line,
    write_recording,
)
from meshslm.daemon.redaction import without_texts
from meshslm.ids import Instant, TaskId

_ARRIVED = b'"kind":"TaskArrived"'

_NOTED = 64
"""Steps that are written down at a time, at most: about a millisecond."""

_FREQUENT = frozenset((BytesReceived, RunProduced, TimerFired))
"""Events that may wait to be written down. Others do not: they are few, and some are large."""


class _Segment:
    """Some hundred steps, packed."""

    __slots__ = ("count", "packed")

    def __init__(self, lines: list[bytes]) -> None:
        self.count = len(lines)
        self.packed = zlib.compress(b"".join(lines), level=1)

    def lines(self) -> Iterator[bytes]:
        yield from zlib.decompress(self.packed).splitlines(keepends=True)


class _Noted(NamedTuple):
    """A step as it happened, not written down yet."""

    event: Event
    now: Instant
    did: str
    sum: int | None
    route: tuple[str, str, str] | None


class Recorder:
    """Notes what happens to one core.

    A step is written down with the next few dozen: in the midst of an answer, with the caches full
    of a model's weights, one by itself costs several times as much.
    """

    def __init__(self, config: CoreConfig, seed: bytes, *, most_bytes: int, texts: bool) -> None:
        self._config = config
        self._seed = seed
        self._texts = texts
        self._half = most_bytes // 2
        self._head: list[_Segment] = []
        self._head_bytes = 0
        self._tail: deque[_Segment] = deque()
        self._tail_bytes = 0
        self._noted: list[_Noted] = []
        self._noted_bytes = 0
        self._filling: list[bytes] = []
        self._filling_bytes = 0
        self._missing = 0

    def note(self, event: Event, now: Instant, effects: list[Effect] | None) -> None:
        """An event was handled; `effects` is None where the core raised."""
        self._noted.append(
            _Noted(
                event,
                now,
                GONE if effects is None else kinds(effects),
                checksum(effects) if self._texts and effects is not None else None,
                None if self._texts or not effects else _route(effects),
            )
        )
        if type(event) is BytesReceived:
            self._noted_bytes += len(event.message)
        full = len(self._noted) >= _NOTED or self._noted_bytes >= limits.RECORDING_SEGMENT_BYTES
        if full or type(event) not in _FREQUENT:
            self._write_down()

    def _write_down(self) -> None:
        noted, self._noted, self._noted_bytes = self._noted, [], 0
        for event, now, did, total, route in noted:
            kept = event if self._texts else without_texts(event)
            kind = type(event).__name__
            body = event_json(kept)
            text = line(Step(now=now, kind=kind, event=body, did=did, sum=total, route=route))
            self._filling.append(text)
            self._filling_bytes += len(text)
            if self._filling_bytes >= limits.RECORDING_SEGMENT_BYTES:
                self._pack()

    def dump(self, reason: str) -> bytes:
        """The recording as a file."""
        self._write_down()
        head = sum(segment.count for segment in self._head)
        rest = sum(segment.count for segment in self._tail) + len(self._filling)
        start = Start(
            program=__version__,
            seed=self._seed,
            config=config_json(self._config),
            texts=self._texts,
            missing=self._missing,
            whole=head if self._missing else head + rest,
            reason=reason,
        )
        return write_recording(start, self._steps())

    def _pack(self) -> None:
        segment = _Segment(self._filling)
        self._filling, self._filling_bytes = [], 0
        size = len(segment.packed)
        if not self._tail and self._head_bytes + size <= self._half:
            self._head.append(segment)
            self._head_bytes += size
            return
        self._tail.append(segment)
        self._tail_bytes += size
        while self._tail_bytes > self._half:
            oldest = self._tail.popleft()
            self._tail_bytes -= len(oldest.packed)
            self._missing += oldest.count

    def _lines(self) -> Iterator[bytes]:
        for segment in (*self._head, *self._tail):
            yield from segment.lines()
        yield from self._filling

    def _steps(self) -> Iterator[bytes]:
        """The lines as they are written: where texts were replaced, tasks ask for what they got."""
        if self._texts:
            yield from self._lines()
            return
        chosen = self._chosen()
        for text in self._lines():
            if _ARRIVED not in text:
                yield text
                continue
            step = msgspec.json.decode(text, type=Step)
            event = event_of(step)
            if isinstance(event, TaskArrived) and event.task in chosen:
                request = replace(event.request, selector=chosen[event.task])
                step = msgspec.structs.replace(
                    step, event=event_json(replace(event, request=request))
                )
            yield line(step)

    def _chosen(self) -> dict[TaskId, str]:
        """The selector that leaves each task no other choice than the one that was made for it.

        A task that moved must be able to move again: it asks for the profile, where all were one.
        """
        routes: dict[TaskId, dict[tuple[str, str], None]] = {}
        for text in self._lines():
            route = msgspec.json.decode(text, type=_Routed).route
            if route is not None:
                task, profile, node = route
                routes.setdefault(TaskId(task), {})[profile, node] = None
        chosen = {}
        for task, taken in routes.items():
            profiles = dict.fromkeys(profile for profile, _ in taken)
            if len(taken) == 1:
                chosen[task] = "@".join(*taken)
            elif len(profiles) == 1:
                chosen[task] = next(iter(profiles))
        return chosen


class _Routed(msgspec.Struct, frozen=True):
    """What of a step is needed to know the route."""

    route: tuple[str, str, str] | None = None


def _route(effects: list[Effect]) -> tuple[str, str, str] | None:
    for effect in effects:
        if type(effect) is RouteChosen:
            return effect.task, effect.profile, effect.node
    return None
