"""What a peer is answered that lacks parts of a document: signed deltas, read from the journal.

Rules:
- An answer has at most `STATE_SYNC_BYTES` and `STATE_SYNC_DELTAS`; whoever lacks more asks again.
- What the asker has given up for ever is not sent.
- No more peers than there may be are answered at a time; the others hear that nothing came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshslm import limits, state_limits
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import DeltasRead, ReadDeltas
from meshslm.core.state_forgetting import covered
from meshslm.core.state_packing import packed
from meshslm.ids import NodeId
from meshslm.state.document import Document
from meshslm.state.part import PartKey
from meshslm.wire.state import SignedDelta, StateDeltas, StateVector


@dataclass(slots=True)
class Answer:
    """What one peer asked for, while its deltas are being read."""

    peer: NodeId
    document: str
    parts: list[tuple[PartKey, int]]
    deltas: list[SignedDelta] = field(default_factory=list)
    size: int = 0


class StateAnswering:
    """Answers on their way."""

    def __init__(self, out: Outbox, is_partner: Callable[[NodeId], bool]) -> None:
        """`is_partner`: whether a peer is still there to be answered."""
        self._out = out
        self._is_partner = is_partner
        self._answers: dict[int, Answer] = {}
        self._request = 0

    def answer(
        self,
        node: NodeId,
        message: StateVector,
        document: Document | None,
        theirs: dict[tuple[NodeId, int], int],
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
        self._read(Answer(node, message.document, missing))

    def _read(self, answer: Answer) -> None:
        self._request += 1
        self._answers[self._request] = answer
        part, clock = answer.parts[0]
        room = state_limits.STATE_SYNC_BYTES - answer.size
        self._out.put(ReadDeltas(self._request, part, clock, room))

    def read(self, event: DeltasRead) -> None:
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
        more = bool(answer.parts)
        self._send(answer.peer, packed(answer.deltas, answer.document, more=more))

    def _send(self, node: NodeId, message: StateDeltas) -> None:
        self._out.send(node, Lane.BACKGROUND, message)
