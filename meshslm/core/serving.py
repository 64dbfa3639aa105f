"""Runs on this node's engines, for local clients and for peers.

A run is admitted or refused at once, waits in a bounded queue, is given to its engine, and leaves
a numbered stream of items: chunks, then one end. A peer may ask for items again until it says that
it has them all.

Events: submissions, cancels, engine events, peers that go.
Effects: `StartRun`, `StopRun`, `Send`, timers.

Rules:
- The same (origin, task, attempt) runs once, however often it is submitted, and stays known for
  `LINGER_MS` after its end.
- Whoever is refused learns why and when to come again.
- Who waits is next as `core.line` has it. Background work fills what interactive runs leave: these
  go to the engine as if it were not there, and it gives way to them there.
- Every run has a deadline here too, so that one whose origin vanished does not stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from meshslm import limits
from meshslm.core.events import Lane, RunEnded, RunFailed, RunProduced, StartRun, StopRun
from meshslm.core.models import Models
from meshslm.core.outbox import Outbox
from meshslm.core.overload import full, place_ms, turned_away
from meshslm.core.prefix import marks
from meshslm.core.runs import EngineState, Key, Run, RunState, clipped, prompt_bytes
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, RunId, after, ms_between
from meshslm.wire.codec import encode
from meshslm.wire.messages import (
    DETAIL_BYTES,
    EngineLoad,
    Specialist,
    TaskAccepted,
    TaskCancel,
    TaskChunk,
    TaskDone,
    TaskEnded,
    TaskFailed,
    TaskRefused,
    TaskResend,
    TaskSubmit,
)

DEADLINE = "run-deadline"
BYTES_PER_TOKEN = 4
"""Of prompts, about, for sharing fairly before anything was counted."""

Item = TaskChunk | TaskEnded | TaskFailed
Reply = TaskAccepted | TaskRefused | Item


class Serving:
    """All runs of this node."""

    def __init__(
        self,
        node: NodeId,
        queue_bound: int,
        out: Outbox,
        models: Models,
        deliver: Callable[[NodeId, Reply, Instant], None],
    ) -> None:
        self._node = node
        self._queue_bound = queue_bound
        self._out = out
        self._models = models
        self._deliver = deliver
        """Hands a reply to the local origin, without the wire between."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a run comes or ends."""
        self._engines: dict[str, EngineState] = {}
        self._profiles: dict[str, Specialist] = {}
        self._known: dict[Key, Run] = {}
        self._by_run: dict[RunId, Run] = {}
        self._of_peer: dict[NodeId, int] = {}
        self._over: deque[tuple[Instant, Key]] = deque()
        self._next_run = 0
        self.served = 0
        self.refused = 0
        self.leaving = False
        self.draining = False
        """Takes runs of this node's own clients alone."""

    # --- what this node hosts -------------------------------------------------------------------
    def host(self, specialists: tuple[Specialist, ...]) -> None:
        """The specialists of this node from now on."""
        self._profiles = {specialist.profile: specialist for specialist in specialists}
        for specialist in specialists:
            self._engines.setdefault(specialist.model, EngineState(specialist.model))

    def usage(self, model: str) -> tuple[int, int]:
        """Runs on the engine of a model, and runs that wait for it."""
        engine = self._engines.get(model)
        return (len(engine.running), len(engine.queue)) if engine else (0, 0)

    def origins(self) -> dict[NodeId, int]:
        """Who has runs here, and how many."""
        return dict(self._of_peer)

    def engine_ready(self, model: str, slots: int, now: Instant) -> None:
        """An engine takes runs."""
        engine = self._engines.get(model)
        if engine is not None:
            engine.slots = max(1, slots)
            self._dispatch(engine, now)

    def engine_lost(self, model: str, reason: str, now: Instant) -> None:
        """An engine is gone with every run on it; those that wait go elsewhere too."""
        engine = self._engines.get(model)
        if engine is None:
            return
        engine.warm, engine.marks = [], {}
        for run in [*engine.running.values(), *engine.queue]:
            self._fail(run, FaultCode.WORKER_LOST, f"the engine of {model} died: {reason}", now)

    def engine_measured(
        self, model: str, prefill_tps: float, decode_tps: float, warm: tuple[int, ...]
    ) -> None:
        """An engine's speeds, and the runs whose prompts it still has."""
        engine = self._engines.get(model)
        if engine is not None:
            engine.measured(prefill_tps, decode_tps, warm)

    def loads(self) -> tuple[EngineLoad, ...]:
        """How busy every engine is."""
        return tuple(
            engine.load(
                ready=self._models.takes_runs(engine.model),
                load_ms=self._models.load_ms(engine.model),
            )
            for engine in self._engines.values()
        )

    # --- what origins say -----------------------------------------------------------------------
    def submit(self, origin: NodeId, submit: TaskSubmit, now: Instant) -> None:
        """Admit or refuse a run."""
        key = (origin, submit.task, submit.attempt)
        known = self._known.get(key)
        if known is not None:
            if origin != self._node:
                self._send(origin, self._accepted(known))
            return
        refusal = self._refusal(origin, submit, now)
        if refusal is not None:
            self.refused += 1
            self._reply(origin, refusal, now)
            return
        specialist = self._profiles[submit.profile]
        engine = self._engines[specialist.model]
        if full(engine, submit, self._queue_bound):
            self._shed(engine, now)
        self._next_run += 1
        weight = min(submit.request.choices, engine.slots)
        run = Run(RunId(self._next_run), key, submit, engine.model, weight, arrived=now)
        self._known[key] = run
        self._by_run[run.run] = run
        self._of_peer[origin] = self._of_peer.get(origin, 0) + 1
        engine.queue.add(run, submit.request.tenant, background=run.background)
        self.changed()
        self._out.start_timer(DEADLINE, str(run.run), max(1, submit.remaining_ms))
        if origin != self._node:
            self._send(origin, self._accepted(run))
        self._models.want(engine.model, now)
        self._dispatch(engine, now)

    def resend(self, origin: NodeId, ask: TaskResend, now: Instant) -> None:
        """The origin misses items, or wants to know whether we are still at it."""
        run = self._known.get((origin, ask.task, ask.attempt))
        if run is None or run.forgotten:
            gone = f"task {ask.task} is not known here"
            self._reply(origin, TaskRefused(ask.task, ask.attempt, FaultCode.PEER_LOST, gone), now)
            return
        # First how many there are: an item that is lost again is then missed within `GAP_MS`.
        self._send(origin, self._accepted(run))
        for item in run.log[ask.seq : ask.seq + limits.RESEND_ITEMS]:
            self._out.send_encoded(origin, Lane.INTERACTIVE, item)

    def done(self, origin: NodeId, done: TaskDone) -> None:
        """The origin has everything."""
        run = self._known.get((origin, done.task, done.attempt))
        if run is not None and run.state is RunState.OVER:
            run.log = []

    def cancel(self, origin: NodeId, cancel: TaskCancel, now: Instant) -> None:
        """Nobody wants the answer any more."""
        run = self._known.get((origin, cancel.task, cancel.attempt))
        if run is not None:
            self._stop(run, now)

    def peer_gone(self, peer: NodeId, now: Instant) -> None:
        """A peer's runs have no receiver any more."""
        for run in [r for r in self._by_run.values() if r.key[0] == peer]:
            self._stop(run, now)

    # --- what the engine says -------------------------------------------------------------------
    def produced(self, event: RunProduced, now: Instant) -> None:
        """New tokens of a run."""
        run = self._by_run.get(event.run)
        if run is not None:
            _, task, attempt = run.key
            chunk = event.chunk
            tenant = run.submit.request.tenant
            self._engines[run.model].queue.charge(tenant, len(chunk.tokens))
            run.said += len(chunk.tokens)
            if run.seq == 0:
                chunk = replace(chunk, queue_ms=chunk.queue_ms + run.waited_ms)
            self._item(run, TaskChunk(task, attempt, run.seq, chunk), now)

    def ended(self, event: RunEnded, now: Instant) -> None:
        """A run is complete."""
        run = self._by_run.get(event.run)
        if run is None:
            return
        engine = self._engines[run.model]
        engine.took(run, event.timings, ms_between(run.started, now))
        _, task, attempt = run.key
        timings = replace(event.timings, queue_ms=event.timings.queue_ms + run.waited_ms)
        self._item(run, TaskEnded(task, attempt, run.seq, event.usage, timings), now)
        self._over_with(run, now)

    def failed(self, event: RunFailed, now: Instant) -> None:
        """A run broke off."""
        run = self._by_run.get(event.run)
        if run is not None:
            self._fail(run, event.code, event.detail, now, event.param, event.retry_after_ms)

    def deadline(self, run_id: RunId, now: Instant) -> None:
        """A run's time is up."""
        run = self._by_run.get(run_id)
        if run is not None:
            self._stop_engine(run)
            self._fail(run, FaultCode.DEADLINE, "the time allowed ran out", now)

    def leave(self, now: Instant) -> None:
        """Hand every run back and take no more."""
        self.leaving = True
        self.hand_back(None, "the node is shutting down", now, running=True)

    def hand_back(self, model: str | None, why: str, now: Instant, *, running: bool) -> None:
        """Give back what waits for a model (None: for any), and what runs too if asked."""
        for run in list(self._by_run.values()):
            if model in (None, run.model) and (running or run.state is RunState.QUEUED):
                self._stop_engine(run)
                self._fail(run, FaultCode.NOT_READY, why, now)

    def sweep(self, now: Instant) -> None:
        """Forget what has been over for long enough."""
        while self._over and self._over[0][0] <= now:
            _, key = self._over.popleft()
            self._known.pop(key, None)

    # --- steps ----------------------------------------------------------------------------------
    def _refusal(self, origin: NodeId, submit: TaskSubmit, now: Instant) -> TaskRefused | None:
        def refuse(code: FaultCode, detail: str, retry_after_ms: float = 0) -> TaskRefused:
            return TaskRefused(submit.task, submit.attempt, code, detail, int(retry_after_ms))

        if self.leaving:
            return refuse(FaultCode.NOT_READY, "the node is shutting down")
        if self.draining and origin != self._node:
            return refuse(FaultCode.NOT_READY, "the node is about to leave")
        specialist = self._profiles.get(submit.profile)
        if specialist is None:
            return refuse(FaultCode.UNKNOWN_MODEL, f"no profile {submit.profile!r} on this node")
        engine = self._engines[specialist.model]
        why = self._models.refusal(engine.model, now)
        if why:
            return refuse(FaultCode.NOT_READY, why, 1000)
        if len(self._known) >= limits.KNOWN_RUNS:
            return refuse(FaultCode.OVERLOADED, "too many tasks of late", limits.LINGER_MS)
        if origin != self._node and self._of_peer.get(origin, 0) >= limits.TASKS_PER_PEER:
            return refuse(FaultCode.OVERLOADED, "too many tasks of one peer", engine.run_ms)
        return turned_away(engine, submit, self._queue_bound)

    def _shed(self, engine: EngineState, now: Instant) -> None:
        """Give the place of the background run that came last to an interactive one."""
        run = engine.queue.last_background()
        assert run is not None, "it was admitted for that"
        self.refused += 1
        why, wait = f"{engine.model} is full: interactive work goes first", int(place_ms(engine))
        told = TaskFailed(*run.key[1:], run.seq, FaultCode.OVERLOADED, why, wait)
        self._end(run, told, now)

    def _accepted(self, run: Run) -> TaskAccepted:
        _, task, attempt = run.key
        ahead = 0
        if run.state is RunState.QUEUED:
            ahead = list(self._engines[run.model].queue).index(run)
        return TaskAccepted(task, attempt, ahead, run.seq)

    def _dispatch(self, engine: EngineState, now: Instant) -> None:
        while engine.queue and self._models.takes_runs(engine.model):
            run = engine.queue.next()
            assert run is not None
            taken = engine.weight - (0 if run.background else engine.yielding)
            if engine.running and taken + run.weight > engine.slots + limits.RUN_AHEAD:
                return
            engine.queue.take()
            run.state, run.started = RunState.RUNNING, now
            engine.running[run.run] = run
            engine.weight += run.weight
            engine.yielding += run.weight if run.background else 0
            engine.marks[run.run] = marks(run.submit.request)
            if len(engine.marks) > limits.KNOWN_RUNS:
                del engine.marks[next(iter(engine.marks))]
            self.served += 1
            submit = run.submit
            left = max(1, submit.remaining_ms - int(run.waited_ms))
            request = replace(submit.request, deadline_ms=left)
            engine.queue.charge(request.tenant, prompt_bytes(request) // BYTES_PER_TOKEN)
            away = run.key[0] != self._node
            self._out.put(StartRun(run.run, run.model, submit.profile, request, coalesce=away))

    def _item(self, run: Run, item: Item, now: Instant) -> None:
        run.seq += 1
        origin = run.key[0]
        if origin == self._node:
            self._deliver(origin, item, now)
            return
        encoded = encode(item)
        run.log.append(encoded)
        self._out.send_encoded(origin, Lane.INTERACTIVE, encoded)

    def _fail(
        self, run: Run, code: FaultCode, detail: str, now: Instant, param: str = "", wait: int = 0
    ) -> None:
        """End a run with a fault; the engine has let go of it already, or never had it."""
        _, task, attempt = run.key
        detail, param = clipped(detail, DETAIL_BYTES), clipped(param, limits.NAME_BYTES)
        self._end(run, TaskFailed(task, attempt, run.seq, code, detail, wait, param), now)

    def _end(self, run: Run, told: TaskFailed, now: Instant) -> None:
        self._over_with(run, now)
        self._item(run, told, now)

    def _stop(self, run: Run, now: Instant) -> None:
        """End a run that nobody waits for."""
        if run.state is not RunState.OVER:
            self._stop_engine(run)
            self._over_with(run, now)
        run.log = []

    def _stop_engine(self, run: Run) -> None:
        if run.state is RunState.RUNNING:
            self._out.put(StopRun(run.run, run.model))

    def _over_with(self, run: Run, now: Instant) -> None:
        engine = self._engines[run.model]
        if run.state is RunState.QUEUED:
            engine.queue.remove(lambda waiting: waiting is run)
        elif engine.running.pop(run.run, None) is not None:
            engine.weight -= run.weight
            engine.yielding -= run.weight if run.background else 0
        run.state = RunState.OVER
        self.changed()
        del self._by_run[run.run]
        self._out.stop_timer(DEADLINE, str(run.run))
        origin = run.key[0]
        left = self._of_peer[origin] - 1
        if left:
            self._of_peer[origin] = left
        else:
            del self._of_peer[origin]
        self._over.append((after(now, limits.LINGER_MS), run.key))
        self._dispatch(engine, now)
        if not engine.running:
            self._models.released(engine.model, now)

    def _reply(self, origin: NodeId, reply: Reply, now: Instant) -> None:
        if origin == self._node:
            self._deliver(origin, reply, now)
        else:
            self._send(origin, reply)

    def _send(self, origin: NodeId, reply: Reply) -> None:
        self._out.send(origin, Lane.INTERACTIVE, reply)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for engine in self._engines.values():
            assert len(engine.queue) <= max(self._queue_bound, engine.slots)
            assert engine.weight == sum(run.weight for run in engine.running.values())
            background = [run.weight for run in engine.running.values() if run.background]
            assert engine.yielding == sum(background)
            ready = self._models.takes_runs(engine.model)
            assert not (ready and engine.queue and not engine.running)
        for run in self._by_run.values():
            assert run.state is not RunState.OVER
            assert self._known[run.key] is run
            assert self._out.timer_runs(DEADLINE, str(run.run))
