"""A recording of a real node, replayed: a fresh core is given the same events at the same times.

Rules:
- What is compared is what the core did: kinds and number of effects, and all of them by checksum
  where the recording kept texts.
- It ends where the recording parts from the replay, or where events are missing: a core that
  lacks one is another core.
- Without texts the entries of shared documents are fillers, and sums over them are others. Where a
  peer held the same as the node did, it holds the same as the fresh core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from meshslm import __version__
from meshslm.adapters.signing import verify
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import BytesReceived, Effect, Event
from meshslm.core.node import NodeCore
from meshslm.daemon.recording import (
    GONE,
    Start,
    Step,
    checksum,
    config_of,
    event_of,
    kinds,
    read_recording,
)
from meshslm.errors import PeerFault
from meshslm.ids import MICROSECONDS_PER_MS, Instant
from meshslm.sim.node import Core
from meshslm.state.document import total
from meshslm.wire.codec import decode, encode
from meshslm.wire.state import StateDigests, StateSummary

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "decode": decode,
    "verify": verify,
    "sign_as_node": lambda _data: bytes(64),
    "signed_by": lambda _node, _data, _signature: True,
}
"""What a configuration may hold that is code, by name."""

_SUMS = (bytes((StateSummary.KIND,)), bytes((StateDigests.KIND,)))
"""How messages with sums over documents begin, after the mark of a pair."""

OnStep = Callable[[int, Step, Event, list[Effect]], None]
"""Told after each event: its number from 1, what was recorded, and what the fresh core did."""


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a replay does otherwise than what was recorded."""

    number: int
    """Of the event, counted from 1."""
    at_ms: float
    """Since the first event."""
    event: str
    recorded: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay."""

    recorded_by: str
    replayed_by: str
    reason: str
    texts: bool
    events: int
    """Replayed, with the same effects."""
    seconds: float
    """From the first of them to the last."""
    effects: int
    missing: int
    """Events that the recorder had no room for, after the replayed ones."""
    after_gap: int
    """Events after those, which can only be read."""
    crash: str
    """What the core raised, as it did when it was recorded."""
    parting: Parting | None

    @property
    def ok(self) -> bool:
        """Whether the core did the same throughout."""
        return self.parting is None

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"ok": self.ok, **asdict(self)}


def as_compared(event: Event, did: str, core: Core) -> Event:
    """The event with a peer's sums over its documents as they were, compared with those here.

    A sum at which nothing was done was this node's own. A peer that had heard of the same writes
    held the same: that it did not is so rare that it is worth a parting.
    """
    if type(event) is not BytesReceived or event.message[1:2] not in _SUMS:
        return event
    if not isinstance(core, NodeCore):
        return event
    try:
        said = decode(event.message)
    except PeerFault:
        return event
    own = core.state.digests(event.peer)
    if isinstance(said, StateSummary) and not did:
        return replace(event, message=encode(StateSummary(total(own))))
    if isinstance(said, StateDigests):
        held = {(digest.document, digest.vector): digest for digest in own}
        same = tuple(held.get((d.document, d.vector), d) for d in said.digests)
        return replace(event, message=encode(replace(said, digests=same)))
    return event


def fresh_core(config: CoreConfig, chance: Chance) -> Core:
    """Production's core."""
    return NodeCore(config, chance)


def replay(
    data: bytes,
    name: str = "recording",
    *,
    make_core: Callable[[CoreConfig, Chance], Core] = fresh_core,
    on_step: OnStep | None = None,
) -> Replay:
    """Replay a recording. Raises `OurFault` where it is none."""
    start, steps = read_recording(data, name)
    return _Replay(start, make_core, on_step).run(steps)


class _Replay:
    def __init__(
        self,
        start: Start,
        make_core: Callable[[CoreConfig, Chance], Core],
        on_step: OnStep | None,
    ) -> None:
        self._start = start
        self._core = make_core(config_of(start, FUNCTIONS), Chance(start.seed))
        self._on_step = on_step
        self._first: int | None = None
        self._last = 0
        self._events = 0
        self._effects = 0
        self._crash = ""

    def run(self, steps: Iterator[Step]) -> Replay:
        parting = None
        for step in steps:
            if self._events == self._start.whole:
                return self._result(None, after_gap=1 + sum(1 for _ in steps))
            parting = self._step(step)
            if parting is not None:
                break
        return self._result(parting)

    def _step(self, step: Step) -> Parting | None:
        self._first = step.now if self._first is None else self._first
        event = event_of(step)
        if not self._start.texts:
            event = as_compared(event, step.did, self._core)
        effects: list[Effect] = []
        try:
            effects = self._core.handle(event, Instant(step.now))
            did = kinds(effects)
        except Exception as error:  # noqa: BLE001 - whatever it raises is what is compared
            did = GONE
            self._crash = f"{type(error).__name__}: {error}"
        if did == step.did and step.sum is not None and checksum(effects) != step.sum:
            did += " with other contents"
        if did != step.did:
            at_ms = (step.now - self._first) / MICROSECONDS_PER_MS
            return Parting(self._events + 1, at_ms, step.kind, step.did, did)
        self._events += 1
        self._effects += len(effects)
        self._last = step.now
        if self._on_step is not None:
            self._on_step(self._events, step, event, effects)
        return None

    def _result(self, parting: Parting | None, after_gap: int = 0) -> Replay:
        start = self._start
        return Replay(
            recorded_by=start.program,
            replayed_by=__version__,
            reason=start.reason,
            texts=start.texts,
            events=self._events,
            seconds=max(0, self._last - (self._first or 0)) / MICROSECONDS_PER_MS / 1000,
            effects=self._effects,
            missing=start.missing,
            after_gap=after_gap,
            crash="" if parting else self._crash,
            parting=parting,
        )
