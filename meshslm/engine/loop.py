"""The worker's loop for a model that generates: many runs at a time, one step after another.

Rules:
- A step: take commands, compute one call, draw tokens, report in one write. Where all runs of a
  step allow it, tokens wait for those of the next steps; never the first, nor past `COALESCE_MS`.
- A run that cannot be computed fails alone. Whatever else goes wrong ends the process; the daemon
  starts another.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from meshslm.engine.adapters import Adapters
from meshslm.engine.cores import ThreadChoice
from meshslm.engine.echo import Echoes, check_echo
from meshslm.engine.gbnf import GrammarFault
from meshslm.engine.guessing import Guesser
from meshslm.engine.intake import Intake
from meshslm.engine.keeper import Keeper
from meshslm.engine.llama import DecodeFailed, Model
from meshslm.engine.operations import Desk
from meshslm.engine.pipe import Pipe
from meshslm.engine.prefix_cache import tile_names
from meshslm.engine.protocol import (
    Beat,
    Command,
    Ended,
    Failed,
    Forget,
    Load,
    Produced,
    Report,
    Shutdown,
    Start,
    Stop,
)
from meshslm.engine.runs import Run
from meshslm.engine.sampling import Row, best_of_each
from meshslm.engine.schedule import Scheduler
from meshslm.engine.speeds import Speeds
from meshslm.engine.states import StateStore
from meshslm.engine.steps import Piece, Sample, Shape, Step
from meshslm.errors import FaultCode, OurFault, RequestFault
from meshslm.limits import COALESCE_MS
from meshslm.wire.messages import TaskRequest, Timings, Usage

WARM_PROMPTS: Final = 1024
"""Prompts to remember until those that are in no slot are forgotten."""


@dataclass(slots=True)
class _Outcome:
    """What came of a step."""

    finished: list[int] = field(default_factory=list)
    """Slots whose sequences ended."""
    further: dict[int, int] = field(default_factory=dict)
    """Slots that got more than one token, and how many more."""
    broken: dict[int, Exception] = field(default_factory=dict)
    """Runs that cannot go on, and why."""


class Worker:
    """The loop over steps."""

    def __init__(
        self, pipe: Pipe, model: Model, intake: Intake, shape: Shape, adapters: Adapters
    ) -> None:
        self._pipe = pipe
        self._model = model
        self._intake = intake
        self._scheduler = Scheduler(replace(shape, fills=model.forgets_ends))
        self._adapters = adapters
        self._desk = Desk(model.vocabulary, intake.rendered)
        self._echoes = Echoes(model, adapters.base)
        self._runs: dict[int, Run] = {}
        self._reports: list[Report] = []
        self._held_since = 0.0
        """When the first of them could have been told; 0 where they were not held back."""
        self._slots = shape.slots
        self._speeds = Speeds()
        self.guesser = Guesser()
        self._keeper: Keeper | None = None
        self._prompts: dict[bytes, int] = {}
        """Runs by the names of their prompts' last tiles."""
        self._forgotten = 0
        """Adapters that were taken away."""

    def keep_states(self, store: StateStore) -> None:
        """Read computed beginnings from there, and write them there at the end."""
        if self._model.forgets_ends:
            self._keeper = Keeper(self._model, self._scheduler, store)

    def serve(self, threads: ThreadChoice) -> None:
        """Serve until told to leave. Raises `Gone`."""
        while True:
            idle = self._scheduler.idle and self._desk.idle and self._echoes.idle
            for command in self._commands(wait=idle):
                match command:
                    case Start(number, request, adapter, coalesce):
                        self._start(number, request, adapter, coalesce=coalesce)
                    case Stop(number):
                        self._stop(number)
                    case Forget(adapter):
                        self._adapters.forget(adapter)
                        self._forgotten += 1
                    case Shutdown(keep_s):
                        if self._keeper is not None:
                            self._keeper.keep(keep_s)
                        return
                    case Load():
                        raise OurFault("a second model for one worker")
            if idle:
                threads.begin()
                self._scheduler.check()  # a broken book ends this process; there is another soon
            self._work_aside()
            self._scheduler.beside_rows = self._speeds.beside_rows
            step = self._scheduler.schedule()
            if self._held_since and not self._scheduler.steady:
                self._send()  # a step of another kind may take long
            if step is not None:
                self._step(step, threads)
            self._report()

    def _commands(self, *, wait: bool) -> list[Command]:
        if wait and not self._intake.prepared:
            # There is time for it now, after telling that the model is ready.
            commands = self._pipe.receive(wait=False)
            if commands:
                return commands
            self._intake.prepare()
        return self._pipe.receive(wait=wait)

    def _start(self, number: int, request: TaskRequest, adapter: str, *, coalesce: bool) -> None:
        now, today = time.monotonic(), datetime.now().astimezone().date()
        try:
            if request.operation != "generate":
                self._desk.start(number, request, today)
                return
            check_echo(request)
            run = self._intake.run(number, request, now, today)
            run.coalesce = coalesce
            run.group = self._adapters.take(request.adapter, adapter)
            if self._model.forgets_ends:
                run.tiles = tile_names(self._prefix_group(run.group), run.prompt)
                self._prompts.update(dict.fromkeys(run.tiles[-1:], number))
            self._check_deadline(run, request.deadline_ms)
        except RequestFault as fault:
            self._reports.append(Failed(number, fault.code, fault.detail, fault.param or ""))
        except OurFault as fault:
            self._reports.append(Failed(number, FaultCode.INTERNAL, str(fault)))
        else:
            self._runs[number] = run
            if request.echo and not request.delivered:
                self._reports += self._echoes.text(run, request.prompt)
            if request.echo and request.logprobs is not None and not request.delivered:
                self._echoes.score(run, self._adapters.of(run.group))
            else:
                if self._keeper is not None and run.tiles and not run.group:
                    self._keeper.recall(run.tiles)
                self._scheduler.add(run.job)

    def _check_deadline(self, run: Run, deadline_ms: int) -> None:
        """Refuse a run whose first token would come too late, by what was measured here."""
        outlook = self._scheduler.outlook(run.job)
        expected_ms = self._speeds.wait_ms(outlook, self._slots)
        if expected_ms > deadline_ms:
            self._adapters.release(run.group)
            raise RequestFault(
                FaultCode.DEADLINE,
                f"the first token is expected in {expected_ms:.0f} ms, behind {outlook.runs} runs "
                f"and {outlook.rows} rows of prompts, but {deadline_ms} ms are left",
                param="deadline_ms",
            )

    def _prefix_group(self, group: str) -> str:
        """Whose prompts may be taken over: an adapter that comes again may be another."""
        return f"{group}#{self._forgotten}" if group else ""

    def _stop(self, number: int) -> None:
        self._desk.stop(number)
        if self._forget(number):
            self._echoes.stop(number)
            self._scheduler.cancel(number)

    def _forget(self, number: int) -> bool:
        """Let go of a run; whether it was there."""
        run = self._runs.pop(number, None)
        if run is None:
            return False
        self._adapters.release(run.group)
        return True

    def _work_aside(self) -> None:
        """What is not a step: a little of it between two steps."""
        self._reports += self._desk.work()
        reports, scored = self._echoes.work()
        self._reports += reports
        for report in reports:
            if isinstance(report, Failed):
                self._forget(report.run)
        for run in scored:
            self._scheduler.add(run.job)

    def _warm(self) -> tuple[int, ...]:
        """Runs whose whole prompts are in slots, the last used first."""
        cache = self._scheduler.cache
        last = [cache.held(slot)[-1] for slot in cache.recent()]
        if len(self._prompts) > WARM_PROMPTS:
            self._prompts = {name: self._prompts[name] for name in last if name in self._prompts}
        return tuple(self._prompts[name] for name in last if name in self._prompts)

    def _report(self) -> None:
        now = time.monotonic()
        self._reports += self._speeds.news(now, self._warm, idle=self._scheduler.idle)
        if self._reports and not self._may_wait(now):
            self._send()

    def _may_wait(self, now: float) -> bool:
        """Whether what there is to report can be told with the next step's, and soon enough."""
        if not self._scheduler.steady or not all(map(self._coalesces, self._reports)):
            return False
        self._held_since = self._held_since or now
        return now - self._held_since + self._speeds.pause_s <= COALESCE_MS / 1000

    def _coalesces(self, report: Report) -> bool:
        run = self._runs.get(report.run) if isinstance(report, Produced) else None
        return run is not None and run.coalesce

    def _send(self) -> None:
        self._pipe.send(self._reports)
        self._reports, self._held_since = [], 0.0

    # --- a step -----------------------------------------------------------------------------------
    def _step(self, step: Step, threads: ThreadChoice) -> None:
        began = time.monotonic()
        for number in self._scheduler.admitted():
            run = self._runs[number]
            run.admitted = run.admitted or began
        guess = self._guess(step)
        try:
            with threads.timed(step.rows + len(guess), self._model.set_threads):
                self._compute(step, guess)
        except DecodeFailed as fault:
            self._fail({piece.run for piece in step.pieces}, str(fault))
            return
        ended = time.monotonic()
        outcome = _Outcome()
        self._draw(step, guess, outcome)
        self._measure(step, guess, outcome, began, ended)
        self._scheduler.learn(step, outcome.finished, outcome.further)
        for number, why in outcome.broken.items():
            # A form that cannot be kept here cannot be kept by another node either.
            asked = isinstance(why, GrammarFault)
            code = FaultCode.BAD_REQUEST if asked else FaultCode.INTERNAL
            self._fail({number}, str(why), code)
        self._end({piece.run for piece in step.pieces})
        if not self._reports:
            self._reports.append(Beat())

    def _guess(self, step: Step) -> list[int]:
        """Tokens that are computed along with the next one of a sequence that generates alone."""
        if not step.decode or len(step.pieces) > 1 or not self._model.forgets_ends:
            return []
        piece = step.pieces[0]
        return self.guesser.guess(self._runs[piece.run], piece.choice, self._model.threads)

    def _measure(
        self, step: Step, guess: list[int], outcome: _Outcome, began: float, ended: float
    ) -> None:
        further = sum(outcome.further.values())
        self._speeds.step(step, began, ended, 1 + further)
        if step.decode and len(step.pieces) == 1:
            self.guesser.learn(ended - began, len(guess), further)
            run = self._runs[step.pieces[0].run]
            run.guessed += len(guess)
            run.accepted += further

    def _compute(self, step: Step, guess: list[int]) -> None:
        model = self._model
        self._adapters.use(step.group)
        for source, target in step.moves:
            model.copy(source, target)
        for slot, tokens in step.keep:
            model.keep(slot, tokens)
        model.begin()
        for piece in step.pieces:
            run = self._runs[piece.run]
            if run.cached < 0:
                run.cached = piece.cached
            rows = run.tokens(piece.choice, piece.start, piece.count)
            model.add(piece.slot, piece.start, rows, wanted=bool(piece.sample))
            if piece.fill:
                filling = [rows[-1]] * piece.fill
                model.add(piece.slot, piece.start + piece.count, filling, wanted=False)
            for place, token in enumerate(guess, piece.start + 1):
                model.add(piece.slot, place, (token,), wanted=True)
        model.compute()
        if step.decode:
            return  # its pieces have nothing to take back and nothing to share
        for piece in step.pieces:
            if piece.fill:
                model.keep(piece.slot, piece.start + piece.count)
            for slot in piece.share:
                model.copy(piece.slot, slot)

    def _draw(self, step: Step, guess: list[int], outcome: _Outcome) -> None:
        """Draw a token for each sample, and another behind each guess that was right."""
        sampling = [piece for piece in step.pieces if piece.sample]
        if not sampling:
            return
        rows = self._model.logits(len(sampling) + len(guess))
        likeliest = best_of_each(rows)
        for place, piece in enumerate(sampling):
            own = slice(place, place + 1 + len(guess))
            for sample in piece.sample:
                try:
                    further = self._extend(piece, sample, rows[own], likeliest[own], guess)
                except (GrammarFault, FloatingPointError) as fault:
                    outcome.broken[piece.run] = fault
                    outcome.finished.append(sample.slot)
                    continue
                if self._runs[piece.run].choices[sample.choice].finish:
                    outcome.finished.append(sample.slot)
                if guess:
                    outcome.further[sample.slot] = further
                    self._model.keep(piece.slot, piece.start + 1 + further)

    def _extend(
        self, piece: Piece, sample: Sample, rows: Row, likeliest: list[int], guess: list[int]
    ) -> int:
        """Draw a choice's next tokens; how many more than one."""
        run = self._runs[piece.run]
        for place, (row, best) in enumerate(zip(rows, likeliest, strict=True)):
            if best < 0:
                raise FloatingPointError("the model computed logits that are not finite")
            token = run.draw(sample.choice, row, best)
            chunk = run.take(sample.choice, token, row, self._model.vocabulary)
            if not run.first_token:
                waited_ms = (run.admitted - run.arrived) * 1000
                chunk = replace(chunk, queue_ms=waited_ms, prompt_tokens=len(run.prompt))
            self._reports.append(Produced(run.id, chunk))
            if chunk.finish or guess[place : place + 1] != [token]:
                return place
        return len(guess)

    def _fail(self, numbers: set[int], detail: str, code: FaultCode = FaultCode.INTERNAL) -> None:
        for number in sorted(numbers):
            if self._forget(number):
                self._scheduler.cancel(number)
                self._reports.append(Failed(number, code, detail))

    def _end(self, numbers: set[int]) -> None:
        now = time.monotonic()
        for number in sorted(numbers):
            run = self._runs.get(number)
            if run is None:
                continue
            if not run.first_token and (run.completion_tokens or run.finished):
                run.first_token = now
            if run.finished:
                self._forget(number)
                self._speeds.ended(now - run.admitted)
                self._reports.append(_ended(run, now))


def _ended(run: Run, now: float) -> Ended:
    return Ended(
        run.id,
        Usage(
            len(run.prompt), run.completion_tokens, max(0, run.cached), run.guessed, run.accepted
        ),
        Timings(
            queue_ms=(run.admitted - run.arrived) * 1000,
            prefill_ms=(run.first_token - run.admitted) * 1000,
            decode_ms=(now - run.first_token) * 1000,
        ),
    )
