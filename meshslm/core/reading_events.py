"""A request is shown, so that what is explained of it is judged by its meaning."""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.wire.messages import TaskRequest


@dataclass(frozen=True, slots=True)
class RequestShown:
    """Event: somebody is about to ask how this would be routed."""

    number: int
    request: TaskRequest


@dataclass(frozen=True, slots=True)
class RequestRead:
    """Effect: it was read, or cannot be now. Each `RequestShown` gets one, in bounded time."""

    number: int
