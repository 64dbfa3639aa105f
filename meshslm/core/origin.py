"""Tasks that entered at this node, from the client's question to the last character.

Each task is routed, sent, followed item by item, and ends exactly once: finished, failed or
dropped by its client. The link may lose, double and reorder; the items' numbers mend that.

Events: clients come and go, replies arrive, peers vanish, timers fire.
Effects: `RouteChosen`, `EmitChunk`, `FinishTask`, `FailTask`, `Send`, timers.

Rules:
- Items are handed on in order, each once, and only those of the present attempt.
- A retryable fault moves the task to another node within its deadline: before the first item as a
  new attempt, after it behind what the client has (`core.continuation`) where that can be.
- A stream that flowed and stopped is taken from its node as soon as another can go on with it, and
  not before.
- A stream nobody here follows is cancelled where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits
from meshslm.core.calls import Calls
from meshslm.core.choosing import Choosing, Router, SentOn
from meshslm.core.events import EmitChunk, FailTask, FinishTask
from meshslm.core.hedging import Hedging
from meshslm.core.outbox import Outbox
from meshslm.core.route import Candidate, Refusal, Verdict
from meshslm.core.serving import Item, Reply, Serving
from meshslm.core.task import Counts, Fault, Task, fault_of, route_chosen, submission
from meshslm.errors import RETRYABLE, FaultCode, PeerFault
from meshslm.ids import MICROSECONDS_PER_MS, Instant, NodeId, TaskId, after, ms_between
from meshslm.wire.messages import (
    Chunk,
    TaskAccepted,
    TaskChunk,
    TaskEnded,
    TaskRefused,
    TaskRequest,
    Timings,
    Usage,
)

DEADLINE = "deadline"
WATCH = "watch"
GAP = "gap"
RETRY = "retry"

WAITING_IS_VAIN = (FaultCode.OVERLOADED, FaultCode.UNKNOWN_MODEL)
"""Faults of every node that was asked, which will not be gone a moment later."""


Reads = Callable[[TaskId, TaskRequest, Instant], bool]
"""Begins to read what a request is about; whether its task is to wait for that."""


class Origin:
    """All tasks of this node's clients."""

    def __init__(
        self,
        node: NodeId,
        serving: Serving,
        out: Outbox,
        candidates: Callable[[], list[Candidate]],
        route: Router,
        sent_on: SentOn,
        hedge: float = 0.0,
        reads: Reads | None = None,
    ) -> None:
        self._node = node
        self._reads = reads
        self._calls = Calls(node, serving, out)
        self._out = out
        self.choosing = self._choosing = Choosing(candidates, route, sent_on)
        self.cooling = self._choosing.cooling
        self._tasks: dict[TaskId, Task] = {}
        self.counts = Counts()
        self._hedging = Hedging(
            hedge, out, self._calls, self._choosing, self.counts, watch=self._start_watch
        )
        self.leaving = False
        self.draining = False

    @property
    def active(self) -> int:
        """Tasks that have not ended."""
        return len(self._tasks)

    # --- local clients --------------------------------------------------------------------------
    def arrive(self, task_id: TaskId, request: TaskRequest, now: Instant) -> None:
        """A client asks."""
        self.counts.arrived += 1
        task = Task(task_id, request, after(now, request.deadline_ms))
        leaving = self.leaving or self.draining
        if leaving or len(self._tasks) >= limits.TASKS_PER_NODE:
            self.counts.failed += 1
            code = FaultCode.NOT_READY if leaving else FaultCode.OVERLOADED
            detail = "the node is shutting down" if leaving else "too many tasks on this node"
            self._out.put(FailTask(task_id, code, detail, 1000))
            return
        self._tasks[task_id] = task
        self._out.start_timer(DEADLINE, task_id, request.deadline_ms)
        if self._reads is not None and self._reads(task_id, request, now):
            self._out.start_timer(RETRY, task_id, limits.EMBED_WAIT_MS)
            return
        self._try(task, now)

    def was_read(self, task_id: TaskId, now: Instant) -> None:
        """A task that waited until its text was read can be routed now, if it still waits."""
        task = self._tasks.get(task_id)
        if task is not None and task.attempt == 0 and self._out.timer_runs(RETRY, task_id):
            self._out.stop_timer(RETRY, task_id)
            self._try(task, now)

    def drop(self, task_id: TaskId, now: Instant) -> None:
        """A client went away."""
        task = self._tasks.get(task_id)
        if task is not None:
            self._abandon(task, now)
            self.counts.cancelled += 1
            self._forget(task, now)

    def leave(self, now: Instant) -> None:
        """Take no more tasks, and end those that run."""
        self.leaving = True
        for task in list(self._tasks.values()):
            self._abandon(task, now)
            self._end_failed(task, Fault(FaultCode.NOT_READY, "the node is shutting down"), now)

    # --- timers ---------------------------------------------------------------------------------
    def deadline(self, task_id: TaskId, now: Instant) -> None:
        """A task's time is up."""
        task = self._tasks[task_id]
        self._abandon(task, now)
        because = f"; last: {task.fault.detail}" if task.fault else ""
        spent = f"no answer within {task.request.deadline_ms} ms{because}"
        self._end_failed(task, Fault(FaultCode.DEADLINE, spent), now)

    def watch(self, task_id: TaskId, now: Instant) -> None:
        """Look after a task that waits for its node."""
        task = self._tasks[task_id]
        if task.node is None or task.submit is None:
            return
        silent = ms_between(task.heard, now)
        if not task.accepted and silent >= limits.ACCEPT_MS:
            self._move_on(task, Fault(FaultCode.PEER_LOST, "the node does not answer"), now)
            return
        if task.begun and self._leave_stalled(task, silent, now):
            return
        if task.node == self._node:
            self._start_watch(task, now)
            return
        if silent >= limits.SILENCE_MS:
            self._abandon(task, now)
            self._move_on(task, Fault(FaultCode.PEER_LOST, "the node fell silent"), now)
            return
        if not task.accepted:
            self._calls.submit(task.node, task.submit, now)
        elif ms_between(task.flowed, now) >= task.probe_ms / 2:
            self._ask_again(task)
        self._start_watch(task, now)

    def gap(self, task_id: TaskId, now: Instant) -> None:
        """An item is still missing."""
        task = self._tasks[task_id]
        if task.known_items > task.next_seq:
            if not task.comes(now):
                self._ask_again(task)
            self._out.start_timer(GAP, task_id, limits.GAP_MS)

    def late(self, task_id: TaskId, now: Instant) -> None:
        """Its first token takes long."""
        self._hedging.late(self._tasks[task_id], now)

    def retry(self, task_id: TaskId, now: Instant) -> None:
        """Ask the nodes that failed once more."""
        self._try(self._tasks[task_id], now)

    # --- replies --------------------------------------------------------------------------------
    def reply(self, node: NodeId, reply: Reply, now: Instant) -> None:
        """A serving node says something about a task."""
        task = self._tasks.get(reply.task)
        if task is not None and self._hedging.heard(task, node, reply, now):
            return
        if task is None or node != task.node or reply.attempt != task.attempt:
            self._calls.stale(node, reply, now)
            return
        task.heard = now
        if isinstance(reply, TaskRefused):
            if task.next_seq == 0 or reply.code == FaultCode.PEER_LOST:
                self._move_on(task, fault_of(reply), now)
            return
        task.accepted = True
        if isinstance(reply, TaskAccepted):
            if reply.items > task.next_seq:
                self._missing(task, reply.items)
            return
        if task.fills(reply.seq, now):
            self._deliver(task, node, reply, now)
        elif reply.seq > task.next_seq and len(task.held) < limits.REORDER_ITEMS:
            task.held[reply.seq] = reply
            self._missing(task, reply.seq)

    def peer_gone(self, peer: NodeId, reason: str, now: Instant) -> None:
        """A serving node is gone."""
        self._hedging.lost(self._tasks.values(), peer)
        for task in [t for t in self._tasks.values() if t.node == peer]:
            self._move_on(task, Fault(FaultCode.PEER_LOST, f"the node is gone: {reason}"), now)

    def move_from(self, peer: NodeId, now: Instant) -> None:
        """A serving node wants to leave: go on elsewhere with what can go on there."""
        for task in [t for t in self._tasks.values() if t.node == peer]:
            if self._choosing.another(task, peer, now):
                self._abandon(task, now)
                self._move_on(task, Fault(FaultCode.NOT_READY, "the node is about to leave"), now)

    def peer_back(self, peer: NodeId, now: Instant) -> None:
        """A serving node has a new link: ask it for what was lost with the old one."""
        for task in [t for t in self._tasks.values() if t.node == peer]:
            task.heard = now
            if task.accepted:
                self._ask_again(task)
            elif task.submit is not None:
                self._calls.submit(peer, task.submit, now)

    # --- steps ----------------------------------------------------------------------------------
    def _try(self, task: Task, now: Instant) -> None:
        """Begin an attempt on the best node that was not tried in this round."""
        request, way = task.request, ""
        if task.begun:
            next_one = self._choosing.successor(task, now)
            if isinstance(next_one, Refusal):
                self._none_left(task, next_one, now)
                return
            verdict, way = next_one.verdict, next_one.way
            request = task.delivered.rest(request, next_one.way)
            task.delivered.goes_on(next_one.way)
            self.counts.continued += 1
        else:
            found = self._choosing.best(task, now)
            if isinstance(found, Refusal):
                self._none_left(task, found, now)
                return
            verdict = found
        self._begin(task, verdict, request, way, now)

    def _begin(
        self, task: Task, verdict: Verdict, request: TaskRequest, way: str, now: Instant
    ) -> None:
        candidate = verdict.candidate
        task.attempt = max(task.attempt, task.numbers) + 1
        if task.attempt > 1:
            self.counts.retried += 1
        submit = submission(task, verdict, request, now, fresh=not way)
        task.turn_to(candidate, submit, now)
        self._out.put(route_chosen(candidate, submit, verdict.reason, way))
        self.cooling.chosen(candidate.node, candidate.specialist.model, now)
        self._hedging.begun(task, now)
        self._calls.submit(candidate.node, submit, now)
        if not candidate.local:
            self._start_watch(task, now)

    def _leave_stalled(self, task: Task, silent: float, now: Instant) -> bool:
        """Take a stream that stopped from its node, if another can go on with it."""
        assert task.node is not None
        idle = ms_between(task.flowed, now)
        hung = task.node != self._node and task.pace.silent(min(silent, idle))
        if not task.next_seq or not (hung or task.pace.stalled(idle)):
            return False
        if not self._choosing.another(task, task.node, now):
            return False
        self._abandon(task, now)
        what = "the node fell silent" if hung else "the stream stopped"
        self._move_on(task, Fault(FaultCode.PEER_LOST, f"{what} for {idle:.0f} ms"), now)
        return True

    def _none_left(self, task: Task, refusal: Refusal, now: Instant) -> None:
        """Nobody is left in this round: wait for those that may recover, or give up."""
        fault = task.fault
        if fault is None or not refusal.exhausted:
            fault = fault or Fault(refusal.code, refusal.detail, 1000, "model")
            self._end_failed(task, fault, now)
        elif (
            fault.code in WAITING_IS_VAIN or task.attempt >= limits.ATTEMPTS or task.in_vain(fault)
        ):
            self._end_failed(task, fault, now)
        else:
            task.tried = []
            wait = limits.RETRY_WAIT_MS * 2**task.rounds
            task.rounds += 1
            self._out.start_timer(RETRY, task.task, wait)

    def _move_on(self, task: Task, fault: Fault, now: Instant) -> None:
        """The attempt is over without an end of the answer: another node, or the end."""
        self._choosing.over(task, fault, now)
        fault = task.fault = task.reason(fault)
        task.node, task.held = None, {}
        for kind in (WATCH, GAP):
            self._out.stop_timer(kind, task.task)
        if task.delivered.whole:
            self._finish(task, task.delivered.usage(), Timings(), now)
        elif (
            (task.begun and not task.delivered.ways)
            or fault.code not in RETRYABLE
            or task.attempt >= limits.ATTEMPTS
        ):
            self._end_failed(task, fault, now)
        elif not self._hedging.promote(task, now):
            self._out.tell("task.moved", fault.detail, task=task.task)
            self._try(task, now)

    def _deliver(self, task: Task, node: NodeId, item: Item, now: Instant) -> None:
        """Hand on the next item, and those that waited for it."""
        current: Item | None = item
        while current is not None:
            if isinstance(current, TaskChunk):
                if current.chunk.choice >= task.request.choices:
                    raise PeerFault(
                        f"chunk of choice {current.chunk.choice}, which nobody asked for"
                    )
                self._emit(task, current.chunk, now)
                current = task.held.pop(task.next_seq, None) if task.held else None
                continue
            self._calls.done(node, task.task, task.attempt)
            if isinstance(current, TaskEnded):
                self._finish(task, current.usage, current.timings, now)
            else:
                self._move_on(task, fault_of(current), now)
            return
        if task.known_items and task.known_items <= task.next_seq:
            task.known_items = 0
            self._out.stop_timer(GAP, task.task)

    def _emit(self, task: Task, chunk: Chunk, now: Instant) -> None:
        first, task.next_seq = not task.next_seq, task.next_seq + 1
        if first:
            assert task.former is not None
            self.cooling.worked(task.former.node, task.former.specialist.model)
            self._hedging.flows(task, now)
            self._start_watch(task, now)  # it is watched more closely from now on
        else:
            task.pace.item(ms_between(task.flowed, now))
        task.flowed = now
        task.begun = True
        task.delivered.add(chunk)
        self._out.put(EmitChunk(task.task, chunk))

    def _finish(self, task: Task, usage: Usage, timings: Timings, now: Instant) -> None:
        self.counts.finished += 1
        self._out.put(FinishTask(task.task, usage, timings))
        self._forget(task, now)

    def _abandon(self, task: Task, now: Instant) -> None:
        """Tell the serving node that the answer is not wanted."""
        if task.node is not None:
            self._calls.cancel(task.node, task.task, task.attempt, now)

    def _missing(self, task: Task, items: int) -> None:
        """The stream has more items than arrived: give reordering a moment, then ask."""
        task.known_items = max(task.known_items, items)
        if not self._out.timer_runs(GAP, task.task):
            self._out.start_timer(GAP, task.task, limits.GAP_MS)

    def _ask_again(self, task: Task) -> None:
        if task.node is not None:
            self._calls.ask_again(task.node, task.task, task.attempt, task.next_seq)
            task.asked_to = task.next_seq + limits.RESEND_ITEMS

    def _start_watch(self, task: Task, now: Instant) -> None:
        # Of those that are watched alike the times fall together, and the node is woken once.
        apart = task.probe_ms * MICROSECONDS_PER_MS
        wait = (apart - now % apart) / MICROSECONDS_PER_MS
        self._out.start_timer(WATCH, task.task, wait if task.accepted else limits.SUBMIT_RETRY_MS)

    def _end_failed(self, task: Task, fault: Fault, now: Instant) -> None:
        self.counts.failed += 1
        told = FailTask(task.task, fault.code, fault.detail, fault.retry_after_ms, fault.param)
        self._out.put(told)
        self._forget(task, now)

    def _forget(self, task: Task, now: Instant) -> None:
        self._hedging.drop(task, now)
        for kind in (DEADLINE, WATCH, GAP, RETRY):
            self._out.stop_timer(kind, task.task)
        del self._tasks[task.task]

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        self.cooling.check()
        assert len(self._tasks) <= limits.TASKS_PER_NODE
        for task in self._tasks.values():
            assert self._out.timer_runs(DEADLINE, task.task), "a task without a deadline"
            assert len(task.held) <= limits.REORDER_ITEMS
            assert task.attempt <= limits.ATTEMPTS
            if task.node is None:
                assert self._out.timer_runs(RETRY, task.task), "a task that nobody looks after"
            elif task.node != self._node:
                assert self._out.timer_runs(WATCH, task.task), "a remote task unwatched"
