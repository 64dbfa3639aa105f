"""A request that was read and found good: the tasks that it means, and how its answer is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshslm.api.openai_responses import RouteInfo
from meshslm.api.recall import RecallShape
from meshslm.errors import RequestFault
from meshslm.wire.messages import Chunk, TaskRequest, Usage


@dataclass(frozen=True, slots=True)
class Head:
    """What all events of an answer, or the whole answer, begin with."""

    id: str
    created: int
    model: str
    fingerprint: str | None
    private: bool = False
    """What was asked is not to leave the mesh."""


class Collector(Protocol):
    """Gathers what tasks produce, for an answer that is told at once."""

    def add(self, chunk: Chunk) -> None:
        """Add a chunk; choices are numbered through all tasks."""
        ...

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> object:
        """The answer, to be written as JSON.

        Raises `RequestFault` where what was produced is not what was asked for.
        """
        ...


class EventWriter(Protocol):
    """Turns what tasks produce into the events of a stream."""

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of a chunk; none where it has nothing to show yet."""
        ...

    def end(self, usage: Usage, info: RouteInfo | None) -> bytes:
        """The last events of a stream that is whole."""
        ...

    def fail(self, fault: RequestFault) -> bytes:
        """The last event of a stream that broke off."""
        ...


class Reader(Protocol):
    """Makes a job of a body; raises `RequestFault` where it makes no sense."""

    def __call__(self, body: bytes, *, deadline_ms: int) -> Job:
        """`deadline_ms` is for requests that name none."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One request to be answered."""

    requests: tuple[TaskRequest, ...]
    id_prefix: str
    whole: Callable[[], Collector]
    events: Callable[[Head], EventWriter] | None = None
    """Makes the writer of its stream; None where it does not stream."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What its fields are called, where nodes have other names for them."""

    recall: RecallShape | None = None
    """What of shared memory goes into its prompt."""
    conversation: str = ""
    """Which it goes on with; empty for none."""

    @property
    def generates(self) -> bool:
        """Whether the tasks write text."""
        return self.requests[0].operation == "generate"
