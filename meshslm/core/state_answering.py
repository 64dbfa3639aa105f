"""What a peer is answered that lacks parts of a document: signed deltas, read from the journal.

Rules:
- An answer has at most `STATE_SYNC_BYTES` and `STATE_SYNC_DELTAS`; whoever lacks more asks again.
- What the asker has given up for ever is not sent.
- No more peers than there may be are answered at a time; the others hear that nothing came.
- Answers of `STATE_ANSWERS_BYTES` at most are on their way to a peer. Each has a drawn number,
  which the asker says when it has come: who has not read it cannot free its place. Beyond that a
  question is dropped, and asked again. What nobody ever says has come counts no longer after
  `STATE_ANSWER_MS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshslm import limits, state_limits
from meshslm.chance import Chance
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import DeltasRead, ReadDeltas
from meshslm.core.state_forgetting import covered
from meshslm.core.state_packing import packed
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.state.document import Document
from meshslm.state.part import PartKey
from meshslm.wire.state import SignedDelta, StateDeltas, StateVector


@dataclass(slots=True)
class Answer:
    """What one peer asked for, while its deltas are being read."""

    peer: NodeId
    document: str
    parts: list[tuple[PartKey, int]]
    number: int
    deltas: list[SignedDelta] = field(default_factory=list)
    size: int = 0


class StateAnswering:
    """Answers on their way."""

    def __init__(self, out: Outbox, is_partner: Callable[[NodeId], bool], chance: Chance) -> None:
        """`is_partner`: whether a peer is still there to be answered."""
        self._out = out
        self._is_partner = is_partner
        self._chance = chance
        self._on_way: dict[NodeId, dict[int, tuple[int, Instant]]] = {}
        """By peer and number of an answer its bytes, and since when it is on its way."""
        self._answers: dict[int, Answer] = {}
        self._request = 0

    def answer(
        self,
        node: NodeId,
        message: StateVector,
        document: Document | None,
        theirs: dict[tuple[NodeId, int], int],
        now: Instant,
    ) -> None:
        """Send what a peer lacks of a document, by the clocks of `theirs`."""
        unwanted = covered(message.forgotten)
        missing = [
            (part.key, theirs.get(name, 0))
            for name, part in sorted(document.parts.items() if document is not None else ())
            if part.clock > theirs.get(name, 0)
            and (not message.partial or name in theirs)
            and name[1] > unwanted.get(name[0], -1)
        ]
        if not missing or len(self._answers) >= limits.PEERS:
            self._send(node, StateDeltas(document=message.document))
            return
        if self._has_room(node, now):
            number = 1 + self._chance.below(state_limits.STATE_ANSWER_NUMBERS - 1)
            self._on_way[node][number] = (state_limits.STATE_SYNC_BYTES, now)
            self._read(Answer(node, message.document, missing, number))

    def came(self, node: NodeId, numbers: tuple[int, ...]) -> None:
        """A peer says which answers it has."""
        on_way = self._on_way.get(node, {})
        for number in numbers:
            on_way.pop(number, None)

    def parted(self, node: NodeId) -> None:
        """A peer is gone, and with its link all that was on its way."""
        self._on_way.pop(node, None)

    def _has_room(self, node: NodeId, now: Instant) -> bool:
        on_way = {
            number: (size, since)
            for number, (size, since) in self._on_way.get(node, {}).items()
            if ms_between(since, now) < state_limits.STATE_ANSWER_MS
        }
        self._on_way[node] = on_way
        taken = sum(size for size, _ in on_way.values())
        return taken + state_limits.STATE_SYNC_BYTES <= state_limits.STATE_ANSWERS_BYTES

    def _read(self, answer: Answer) -> None:
        self._request += 1
        self._answers[self._request] = answer
        part, clock = answer.parts[0]
        room = state_limits.STATE_SYNC_BYTES - answer.size
        self._out.put(ReadDeltas(self._request, part, clock, room))

    def read(self, event: DeltasRead, now: Instant) -> None:
        """The journal has read what a peer asked for."""
        answer = self._answers.pop(event.request, None)
        if answer is None or not self._is_partner(answer.peer):
            return
        answer.deltas += [delta.signed for delta in event.deltas]
        answer.size += sum(len(delta.signed.payload) for delta in event.deltas)
        full = (
            event.more
            or answer.size >= state_limits.STATE_SYNC_BYTES
            or len(answer.deltas) >= state_limits.STATE_SYNC_DELTAS
        )
        if not event.more:
            answer.parts.pop(0)
        if answer.parts and not full:
            self._read(answer)
            return
        size = max(answer.size, state_limits.STATE_ANSWER_LEAST)
        self._on_way.setdefault(answer.peer, {})[answer.number] = (size, now)
        more = bool(answer.parts)
        message = packed(answer.deltas, answer.document, more=more, answer=answer.number)
        self._send(answer.peer, message)

    def _send(self, node: NodeId, message: StateDeltas) -> None:
        self._out.send(node, Lane.BACKGROUND, message)
