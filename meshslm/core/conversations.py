"""Where conversations were answered last, so that their next turn goes where their beginning is.

A conversation is known by the name that its client gives it, or by the marks of its turns: the
last one's of a request is the beginning of the next request's.

Rules:
- Only what goes on stays: the same request once more is no next turn.
- It is advice: who stays saves time that is counted in the choice, and leaves when waiting costs
  more.
- Bounded: of `limits.CONVERSATIONS` conversations, those last heard of.
"""

from __future__ import annotations

from meshslm import limits
from meshslm.core.prefix import marks
from meshslm.core.route_facts import GENERATE, Stay, parts_of
from meshslm.wire.messages import TaskRequest


class Conversations:
    """The conversations of this origin's clients."""

    __slots__ = ("_stays",)

    def __init__(self) -> None:
        self._stays: dict[bytes, Stay] = {}

    def __len__(self) -> int:
        return len(self._stays)

    def of(self, request: TaskRequest) -> Stay | None:
        """Where the conversation that a request continues was answered last."""
        if not self._stays or request.operation != GENERATE:
            return None
        for mark in reversed(marks(request)[:-1]):
            stay = self._stays.get(mark)
            if stay is not None:
                return stay
        name = request.routing.conversation
        return self._stays.get(_named(name)) if name else None

    def answered(self, request: TaskRequest, node: str, profile: str, domain: str) -> None:
        """A request is being answered there."""
        if request.operation != GENERATE:
            return
        parts, rest = parts_of(request)
        found = marks(request)
        if found:
            self._put(found[-1], Stay(node, profile, sum(parts) + rest, domain))
        if request.routing.conversation:
            key = _named(request.routing.conversation)
            self._put(key, Stay(node, profile, 0, domain))

    def _put(self, key: bytes, stay: Stay) -> None:
        self._stays.pop(key, None)
        self._stays[key] = stay
        if len(self._stays) > limits.CONVERSATIONS:
            del self._stays[next(iter(self._stays))]

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._stays) <= limits.CONVERSATIONS


def _named(conversation: str) -> bytes:
    """A key that is no mark's: those have `limits.PREFIX_MARK_BYTES` bytes."""
    return b"name:" + conversation.encode(errors="replace")
