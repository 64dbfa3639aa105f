"""What became of tasks that entered at other members: asked for, as journals stay where they are.

A journal is its author's, and kept by nobody else unless somebody wants it; so a task is looked
for by asking those that are linked. Who has it answers from memory.

Events: `HistoryAsked`. Effects: `HistoryFound`. Messages: 125 and 126. Timer: `state.history`.

Rules:
- Every question ends within `HISTORY_MS`; one for a single task as soon as somebody has it.
- Only what entered here is told, and never the text of a prompt.
- Looking through a whole journal takes tens of milliseconds: it is done once in
  `HISTORY_LIST_MS`, whoever asks; others are told that this node is busy. So is who is told more
  of single tasks than `HISTORY_TOLD_PER_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from meshslm import state_limits
from meshslm.core.allowance import Allowance
from meshslm.core.chronicle import history, latest, without_text
from meshslm.core.directory import Peer
from meshslm.core.documents import Documents
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import HistoryAsked, HistoryFound, PastTaskAt
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, after
from meshslm.wire.histories import HistoryTold, HistoryWanted, PastTask

TIMER = "state.history"


@dataclass(slots=True)
class _Question:
    asked: HistoryAsked
    waiting: dict[NodeId, None]
    silent: list[NodeId] = field(default_factory=list)
    found: list[PastTaskAt] = field(default_factory=list)


class Histories:
    """Questions of this node, and answers to those of others."""

    def __init__(
        self, documents: Documents, out: Outbox, partners: Callable[[], Iterable[NodeId]]
    ) -> None:
        """`partners` are the members that have documents and a link to this node."""
        self._documents = documents
        self._out = out
        self._partners = partners
        self._questions: dict[int, _Question] = {}
        self._list_after = Instant(0)
        self._singly = Allowance(state_limits.HISTORY_TOLD_PER_S, state_limits.HISTORY_TOLD_BURST)

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """For messages of members."""
        return {HistoryWanted: self.on_wanted, HistoryTold: self.on_told}

    # --- asking ---------------------------------------------------------------------------------
    def ask(self, event: HistoryAsked, _now: Instant) -> None:
        """Somebody here wants to know."""
        nodes = dict.fromkeys(self._partners())
        if not nodes or len(self._questions) >= state_limits.HISTORY_QUESTIONS:
            self._out.put(HistoryFound(event.number, (), tuple(nodes)))
            return
        self._questions[event.number] = _Question(event, nodes)
        wanted = HistoryWanted(event.number, event.task, event.limit, event.state)
        for node in nodes:
            self._out.send(node, Lane.BACKGROUND, wanted)
        self._out.start_timer(TIMER, str(event.number), state_limits.HISTORY_MS)

    def on_told(self, peer: Peer, message: HistoryTold, _now: Instant) -> None:
        """A member answers."""
        question = self._questions.get(message.number)
        if question is None or peer.node not in question.waiting:
            return
        asked = question.asked
        if len(message.tasks) > (1 if asked.task else asked.limit):
            raise PeerFault(f"told of {len(message.tasks)} tasks, which is more than was asked for")
        del question.waiting[peer.node]
        for past in message.tasks:
            if asked.task and past.task != asked.task:
                raise PeerFault("told of another task than was asked for")
            question.found.append(PastTaskAt(peer.node, past.task, past.events))
        if message.busy:
            question.silent.append(peer.node)
        if not question.waiting or (asked.task and question.found):
            self._out.stop_timer(TIMER, str(message.number))
            self._end(message.number)

    def timer(self, subject: str, _now: Instant) -> None:
        """Who has not answered by now is not waited for."""
        self._end(int(subject))

    def _end(self, number: int) -> None:
        question = self._questions.pop(number)
        late = question.waiting if not (question.asked.task and question.found) else ()
        silent = tuple(sorted((*question.silent, *late)))
        self._out.put(HistoryFound(number, tuple(question.found), silent))

    # --- answering ------------------------------------------------------------------------------
    def on_wanted(self, peer: Peer, message: HistoryWanted, now: Instant) -> None:
        """A member asks."""
        documents, number = self._documents, message.number
        if message.task and self._singly.empty(peer.node, now):
            self._out.send(peer.node, Lane.BACKGROUND, HistoryTold(number, busy=True))
            return
        if message.task:
            events = history(documents, message.task, documents.node)
            found = [(message.task, events)] if events else []
        elif now < self._list_after:
            self._out.send(peer.node, Lane.BACKGROUND, HistoryTold(number, busy=True))
            return
        else:
            self._list_after = after(now, state_limits.HISTORY_LIST_MS)
            found = latest(documents, documents.node, message.limit, message.state)
        told: list[PastTask] = []
        room = state_limits.HISTORY_BYTES
        for task, events in found:
            encoded = without_text(events)
            room -= len(encoded)
            if told and room < 0:
                break
            told.append(PastTask(task, encoded))
        if message.task:
            self._singly.spend(peer.node, state_limits.HISTORY_BYTES - room, now)
        self._out.send(peer.node, Lane.BACKGROUND, HistoryTold(number, tuple(told)))

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for number in self._questions:
            assert self._out.timer_runs(TIMER, str(number)), "a question that may never end"
