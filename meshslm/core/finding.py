"""Tasks of local clients in a large mesh: somebody is looked for before they are routed.

Rules:
- What was answered a moment ago is not asked again.
- A task waits for answers, or for their failing to come, and never for longer.
- A client that goes away while its task waits is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshslm import mesh_limits
from meshslm.core.coordinators import Coordinators, Need
from meshslm.core.members import Members
from meshslm.core.route import AUTO, DOMAIN, GENERAL, GENERATE
from meshslm.core.route_facts import ASSUMED_ANSWER_TOKENS
from meshslm.ids import Instant, TaskId
from meshslm.wire.messages import TaskRequest

Arrive = Callable[[TaskId, TaskRequest, Instant], None]


def likely_tokens(request: TaskRequest) -> int:
    """Tokens that an answer may have, as a power of two: questions that are alike are put once."""
    most = min(request.max_tokens or ASSUMED_ANSWER_TOKENS, ASSUMED_ANSWER_TOKENS)
    return 1 << (most - 1).bit_length() if request.operation == GENERATE else 0


@dataclass(slots=True)
class Waiting:
    """A task that is not routed yet."""

    request: TaskRequest
    open: int
    """Answers that it waits for."""


class Finding:
    """What comes before routing."""

    def __init__(
        self,
        members: Members,
        coordinators: Coordinators,
        arrive: Arrive,
        likely: Callable[[TaskRequest], tuple[str, ...]],
    ) -> None:
        self._members = members
        self._coordinators = coordinators
        self._arrive = arrive
        self._likely = likely
        self._waiting: dict[TaskId, Waiting] = {}

    def arrive(self, task: TaskId, request: TaskRequest, now: Instant) -> None:
        """A client asks: find out who can, then route."""
        unknown = [n for n in self._needs(request, now) if not self._coordinators.fresh(n, now)]
        if not unknown or len(self._waiting) >= mesh_limits.QUESTIONS:
            self._arrive(task, request, now)
            return
        self._waiting[task] = Waiting(request, len(unknown))
        for need in unknown:
            self._coordinators.inquire(need, lambda at: self._answered(task, at), now)

    def _answered(self, task: TaskId, now: Instant) -> None:
        waiting = self._waiting.get(task)
        if waiting is None:
            return
        waiting.open -= 1
        if waiting.open <= 0:
            del self._waiting[task]
            self._arrive(task, waiting.request, now)

    def drop(self, task: TaskId) -> bool:
        """A client went away; true where its task was not routed yet."""
        return self._waiting.pop(task, None) is not None

    def release(self, now: Instant) -> None:
        """Route everything that waits."""
        for task, waiting in list(self._waiting.items()):
            del self._waiting[task]
            self._arrive(task, waiting.request, now)

    def _needs(self, request: TaskRequest, now: Instant) -> list[Need]:
        """What is to be asked for; nothing where no other member has it."""
        selector, _, node = request.selector.partition("@")
        operation, adapter = request.operation, request.adapter
        if node:
            self._coordinators.name(node, now)
            return []
        topics: tuple[str, ...]
        if selector == AUTO and operation != GENERATE:
            topics, name = (f"operation:{operation}",), ""
        elif selector == AUTO:
            topics, name = (*self._likely(request), GENERAL), ""
        elif selector.startswith(DOMAIN):
            topics, name = (selector.removeprefix(DOMAIN),), ""
        else:
            topics, name = self._members.topics_of_name(selector)[:1], selector
        return [
            Need(topic, name, adapter, operation, likely_tokens(request))
            for topic in dict.fromkeys(topics)
            if self._members.providers(topic)
        ]

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._waiting) <= mesh_limits.QUESTIONS
