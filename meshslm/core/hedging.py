"""Asking a second node where the first is late, so that one slow node is not everybody's tail.

When a first token has not come after a time in which 95 of 100 of its kind have, another node is
asked for the same; whoever brings an item first goes on, and the other is told to stop. The idea,
and that a small budget is enough, are Dean and Barroso's (The Tail at Scale, CACM 2013).

Rules:
- Off unless there is a budget: the share of requests that may be asked for twice. Credit grows with
  each request, and never beyond `HEDGE_BURST`.
- Only the first attempt of an interactive answer is hedged, once, and only at another node
  or between this one and its upstream.
- A kind is a profile and a size of prompt, and says nothing before `HEDGE_LEAST` first tokens.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from meshslm import limits
from meshslm.core.calls import Calls
from meshslm.core.candidates import Verdict
from meshslm.core.choosing import Choosing
from meshslm.core.outbox import Outbox
from meshslm.core.route import GENERATE
from meshslm.core.runs import prompt_bytes
from meshslm.core.serving import Reply
from meshslm.core.task import Counts, Hedge, Task, route_chosen
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.messages import TaskAccepted, TaskFailed, TaskRefused, TaskSubmit

TIMER = "late"
LATE = 0.95

Kind = tuple[str, int]
"""Profile, and the power of two of its prompt's size."""


class Latencies:
    """How long first tokens of late took, by kind, in milliseconds."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: OrderedDict[Kind, deque[float]] = OrderedDict()

    def add(self, kind: Kind, ms: float) -> None:
        """One came."""
        self._kinds.setdefault(kind, deque(maxlen=limits.HEDGE_SAMPLES)).append(ms)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > limits.HEDGE_KINDS:
            self._kinds.popitem(last=False)

    def late(self, kind: Kind) -> float | None:
        """By when 95 of 100 had come; None where too few have."""
        known = self._kinds.get(kind, ())
        if len(known) < limits.HEDGE_LEAST:
            return None
        return sorted(known)[int(LATE * (len(known) - 1))]


def kind_of(task: Task) -> Kind:
    """What first token of late to compare a task's with."""
    assert task.former is not None
    return task.former.specialist.profile, prompt_bytes(task.request).bit_length()


class Hedging:
    """The second nodes of all tasks of this origin."""

    def __init__(
        self,
        budget: float,
        out: Outbox,
        calls: Calls,
        choosing: Choosing,
        counts: Counts,
        *,
        watch: Callable[[Task, Instant], None],
    ) -> None:
        self._budget = budget
        self._watch = watch
        """Looks after a task from now on."""
        self._out = out
        self._calls = calls
        self._choosing = choosing
        self._latencies = Latencies()
        self._credit = 0.0
        self._counts = counts

    def begun(self, task: Task, now: Instant) -> None:
        """The first node was asked."""
        request, task.asked = task.request, None  # a failure's time is none of a first token
        if not self._budget or task.attempt > 1 or request.operation != GENERATE:
            return
        task.asked = now
        self._credit = min(limits.HEDGE_BURST, self._credit + self._budget)
        late = self._latencies.late(kind_of(task))
        if late is not None and request.priority != "background":
            self._out.start_timer(TIMER, task.task, late)

    def flows(self, task: Task, now: Instant) -> None:
        """The first item is here: nobody else is wanted."""
        if task.asked is not None:
            self._latencies.add(kind_of(task), ms_between(task.asked, now))
            task.asked = None
        self.drop(task, now)

    def late(self, task: Task, now: Instant) -> None:
        """A first token is later than those of its kind: ask another, if one is to be had."""
        if task.begun or task.node is None or task.attempt > 1 or self._credit < 1.0:
            return
        assert task.former is not None
        verdict = self._choosing.best(task, now, without=(task.former.tried_as,))
        if not isinstance(verdict, Verdict):
            return
        self._credit -= 1.0
        self._counts.hedged += 1
        candidate = verdict.candidate
        task.numbers = task.attempt + 1
        remaining = max(1, int(ms_between(now, task.deadline)))
        profile = candidate.specialist.profile
        submit = TaskSubmit(task.task, task.numbers, profile, task.request, remaining)
        task.hedge = Hedge(candidate, submit, f"{verdict.reason}; asked too, as the first was late")
        self._calls.submit(candidate.node, submit, now)

    def heard(self, task: Task, node: NodeId, reply: Reply, now: Instant) -> bool:
        """A reply came; whether it was the second node's and there is nothing more to it."""
        hedge = task.hedge
        if hedge is None or (node, reply.attempt) != (hedge.candidate.node, hedge.submit.attempt):
            return False
        if isinstance(reply, TaskAccepted):
            return True
        if isinstance(reply, TaskRefused | TaskFailed):
            task.hedge = None
            if isinstance(reply, TaskFailed):
                self._calls.done(node, task.task, reply.attempt)
            return True
        if task.node is not None:
            self._calls.cancel(task.node, task.task, task.attempt, now)
        self._counts.hedges_won += 1
        self.promote(task, now)
        return False

    def promote(self, task: Task, now: Instant) -> bool:
        """The second node is the one from now on; false where there is none."""
        hedge, task.hedge = task.hedge, None
        if hedge is None:
            return False
        task.turn_to(hedge.candidate, hedge.submit, now)
        self._out.put(route_chosen(hedge.candidate, hedge.submit, hedge.reason))
        if not hedge.candidate.local:
            self._watch(task, now)
        return True

    def lost(self, tasks: Iterable[Task], node: NodeId) -> None:
        """A node is gone: maybe the second one of some."""
        for task in tasks:
            if task.hedge is not None and task.hedge.candidate.node == node:
                task.hedge = None

    def drop(self, task: Task, now: Instant) -> None:
        """The second node is not wanted any more."""
        self._out.stop_timer(TIMER, task.task)
        hedge, task.hedge = task.hedge, None
        if hedge is not None:
            self._calls.cancel(hedge.candidate.node, task.task, hedge.submit.attempt, now)
