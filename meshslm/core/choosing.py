"""Who is asked next for a task: the best that does not cool, or who goes on behind what was said.

Rules:
- Who cools is asked where nobody else will do.
- A task that has begun moves only in a way that `core.continuation` knows.
- Who sends a task on as it would wait there has not failed: it tells how long its queue is, and may
  be asked once more if that turns out to be the shortest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from meshslm import limits
from meshslm.core.candidates import Assessment, Decision
from meshslm.core.continuation import Successor, successor
from meshslm.core.cooling import Cooling
from meshslm.core.route import Candidate, Refusal, Verdict
from meshslm.core.task import Fault, Task
from meshslm.ids import Instant, NodeId, TaskId, ms_between
from meshslm.wire.messages import TaskRequest

Router = Callable[[TaskRequest, list[NodeId], list[Candidate]], Verdict | Refusal]
"""The best of some candidates for a request, on none of some nodes."""
SentOn = Callable[[TaskId, Candidate, float, Instant], None]
"""A node sends a task on, which would wait there for so many milliseconds."""


class Choosing:
    """The origin's way to the router."""

    __slots__ = ("_candidates", "_route", "_sent_on", "cooling")

    def __init__(
        self, candidates: Callable[[], list[Candidate]], route: Router, sent_on: SentOn
    ) -> None:
        self._candidates = candidates
        self._route = route
        self._sent_on = sent_on
        self.cooling = Cooling()

    def best(
        self, task: Task, now: Instant, *, without: Sequence[NodeId] = ()
    ) -> Verdict | Refusal:
        """Whom to ask from the beginning."""
        return self._pick(task, [*task.tried, *without], self._candidates(), now)

    def successor(
        self, task: Task, now: Instant, *, without: Sequence[NodeId] = ()
    ) -> Successor | Refusal:
        """Who can go on with what the client has of the answer."""
        assert task.former is not None
        tried = [*task.tried, *without]
        return successor(
            task.delivered,
            task.former,
            self._candidates(),
            lambda fit: self._pick(task, tried, fit, now),
        )

    def over(self, task: Task, fault: Fault, now: Instant) -> None:
        """An attempt has brought no answer: who is not asked again, or what is known now."""
        former = task.former
        if task.node is None or former is None:
            return
        patience_ms = task.submit.patience_ms if task.submit is not None else 0
        sent_on = 0 < patience_ms < fault.wait_ms and not former.local
        if sent_on and former.node not in task.sent_on:
            task.sent_on.append(former.node)
            self._sent_on(task.task, former, fault.wait_ms, now)
            return
        task.tried.append(former.tried_as)
        self.cooling.failed(task.node, former.specialist.model, fault.code, now)

    def another(self, task: Task, node: NodeId, now: Instant) -> bool:
        """Whether somebody else could take a task over from a node."""
        if task.attempt >= limits.ATTEMPTS:
            return False
        if not task.begun:
            return isinstance(self.best(task, now, without=(node,)), Verdict)
        if not task.delivered.ways:
            return False
        return isinstance(self.successor(task, now, without=(node,)), Successor)

    def explain(
        self,
        refused: Mapping[str, str],
        now: Instant,
        decide: Callable[[list[Candidate]], Decision],
    ) -> Decision:
        """What `decide` would come to for a new task, with those who are left out before it.

        `refused`: models that would refuse it at once, and why.
        """
        dropped: list[Assessment] = []
        left: list[Candidate] = []
        for candidate in self._candidates():
            why = refused.get(candidate.specialist.model, "")
            if why:
                dropped.append(Assessment(candidate, why, None, 0))
            else:
                left.append(candidate)
        warm = self.cooling.warm(left, now)
        decision = decide(warm) if warm else None
        if decision is None or not isinstance(decision.outcome, Verdict):
            decision = decide(left)
        else:
            dropped += [self._cools(c, now) for c in left if c not in warm]
        return replace(decision, assessments=(*decision.assessments, *dropped))

    def _cools(self, candidate: Candidate, now: Instant) -> Assessment:
        left_ms = self.cooling.left_ms(candidate.node, candidate.specialist.model, now)
        why = f"it failed, and is left alone for {left_ms / 1000:.1f} s"
        return Assessment(candidate, why, None, 0)

    def _pick(
        self, task: Task, tried: list[NodeId], candidates: list[Candidate], now: Instant
    ) -> Verdict | Refusal:
        warm, request = self.cooling.warm(candidates, now), task.request
        if task.attempt:  # part of its time is gone
            left_ms = max(1, int(ms_between(now, task.deadline)))
            request = replace(request, deadline_ms=left_ms)
        found = self._route(request, tried, warm) if warm else None
        if isinstance(found, Verdict):
            return found
        return self._route(request, tried, candidates)
