"""A base model in a worker process: starts it, talks to it, and starts it again.

Rules:
- It posts `EngineReady` and `EngineLost` in turns; whatever ran when a worker died is dead.
- A crash is followed by a wait that doubles, and is forgotten once the worker is ready. A worker
  that dies `LOADING_CRASHES` times in a row while loading, or says that its model cannot be
  loaded, is given up: the last `EngineLost` is final, and `run` returns.
- A worker that reports nothing for `HANG_S` while runs are active is killed, and one that reports
  nothing for `LOAD_HANG_S` while it loads.
- What a worker writes on its pipe is not trusted: nonsense ends that worker and nothing else.
- Nothing heavy is imported here: the daemon must stay small.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from meshslm.adapters.worker_process import WorkerProcess
from meshslm.core.events import (
    EngineLoading,
    EngineLost,
    EngineMeasured,
    EngineReady,
    Event,
    RunEnded,
    RunFailed,
    RunProduced,
)
from meshslm.engine.protocol import (
    Beat,
    Ended,
    Failed,
    Forget,
    FrameReader,
    Load,
    Loading,
    Measured,
    Produced,
    Ready,
    Report,
    Start,
    Stop,
    Unusable,
    decode_reports,
)
from meshslm.errors import FaultCode, OurFault
from meshslm.ids import RunId
from meshslm.ports import Post
from meshslm.wire.messages import TaskRequest

log = logging.getLogger("meshslm.engine")

BACKOFF_S: Final = 0.2
BACKOFF_MOST_S: Final = 10.0
LOADING_CRASHES: Final = 5
"""Five crashes take about six seconds: enough for a passing lack of memory."""
HANG_S: Final = 30.0
"""The longest step is a call of 512 rows; of an 8B model on two cores that takes about 15 s."""
LOAD_HANG_S: Final = 120.0
"""The longest silence of a load: progress is told every twentieth of the file (a guess at the
slowest disk: 5 MB/s with a file of 8 GB)."""
KEEP_S: Final = 1.0
"""Time for a worker to write states to disk before it leaves: some hundred megabytes."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which model to run, and how."""

    model: str
    """Name of the base model, as in `StartRun.model`."""
    path: Path
    context: int = 2048
    """Tokens of one sequence, prompt and answer."""
    slots: int = 8
    """Sequences that are generated at the same time. KV memory grows with this times `context`."""
    threads: int | None = None
    """None: chosen from free cores."""
    batch: int = 512
    """Rows of one call."""
    readable: tuple[str, ...] = ()
    """Files and folders that the worker may read beside the model."""
    writable: tuple[str, ...] = ()
    """Folders in which it may also write."""
    sandbox: str = "auto"
    """`off`, `auto` (as far as the system can) or `required`."""
    private_mib: int = 0
    """Memory of the worker that is not a mapped file, at most; 0: without bound."""
    gpu_layers: int | None = None
    """Layers to put on a GPU; None: as many as fit. Without a GPU none are."""
    states: str = ""
    """Folder in which a worker keeps computed beginnings of prompts; empty: none are kept."""
    states_mib: int = 0
    """Size of that folder, at most."""
    guesses: bool = True
    """Guess tokens, while that pays; off for measuring what it gives."""
    draft: Path | None = None
    """A small model of the same vocabulary that guesses what this one will say."""
    hang_s: float = HANG_S
    """Longest time for one step."""


FindAdapter = Callable[[str], Path | None]
"""The file of a LoRA adapter for this model, by name; None where there is none."""

WORKER: Final = (sys.executable, "-P", "-m", "meshslm.engine.worker")
"""The command of a worker; `--fd N` names the socket to its daemon."""


class EngineProcess:
    """The `Engine` port over a worker process."""

    def __init__(
        self,
        spec: EngineSpec,
        *,
        find_adapter: FindAdapter = lambda _: None,
        command: Sequence[str] = WORKER,
    ) -> None:
        """`find_adapter` is asked for each run that names an adapter, so new ones work at once."""
        self._spec = spec
        self._find_adapter = find_adapter
        self._adapters: dict[str, str] = {}
        """Files that the worker was told of, by name."""
        self._command = command
        self._worker: WorkerProcess | None = None
        self._quiet_since = 0.0
        self._hung = ""
        """When it was last heard, or its first run began; on trio's clock."""
        self._ready: Ready | None = None
        self._given_up = ""
        self._active: set[int] = set()
        self._refused: deque[RunFailed] = deque()
        self._refusal = trio.Event()

    @property
    def model(self) -> str:
        """Name of the base model."""
        return self._spec.model

    @property
    def ready(self) -> Ready | None:
        """What the loaded worker said of itself; None while it loads."""
        return self._ready

    @property
    def given_up(self) -> str:
        """Why no worker is started any more; empty while one is, or will be."""
        return self._given_up

    @property
    def pid(self) -> int | None:
        """Process id of the worker, while there is one."""
        return self._worker.process.pid if self._worker is not None else None

    def start_run(self, run: RunId, request: TaskRequest, *, coalesce: bool = False) -> None:
        """Begin a run."""
        if self._worker is None or self._ready is None:
            why = self._given_up or f"the model {self.model} is still loading"
            self._refuse(RunFailed(run, FaultCode.NOT_READY, why))
        elif not self._worker.tell(Start(run, request, self._adapter(request.adapter), coalesce)):
            self._refuse(RunFailed(run, FaultCode.OVERLOADED, "the engine does not keep up"))
        else:
            if not self._active:
                self._quiet_since = trio.current_time()
            self._active.add(run)

    def stop_run(self, run: RunId) -> None:
        """Stop a run within one step; unknown ones are ignored."""
        if run in self._active:
            self._active.discard(run)
            if self._worker is not None:
                self._worker.tell(Stop(run), always=True)

    def _adapter(self, name: str) -> str:
        """The file of an adapter; empty where there is none of that name now."""
        if not name:
            return ""
        found = self._find_adapter(name)
        file = "" if found is None else str(found)
        known = self._adapters.pop(name, file)
        if known != file and self._worker is not None:
            self._worker.tell(Forget(known), always=True)
        if file:
            self._adapters[name] = file
        return file

    async def run(self, post: Post) -> None:
        """Load, serve, and restart after a crash, until cancelled or given up."""
        self._given_up = ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._post_refusals, post)
            self._given_up = await self._lives(post)
            nursery.cancel_scope.cancel()
        await post(EngineLost(self.model, self._given_up, final=True))

    async def _lives(self, post: Post) -> str:
        """One worker after another; why there is no use in a next one."""
        wait = BACKOFF_S
        crashes = 0
        while True:
            loaded, reason, final = await self._live(post)
            crashes = 0 if loaded else crashes + 1
            if crashes >= LOADING_CRASHES:
                return f"{reason}; it died {crashes} times while loading and is given up"
            if final:
                return reason
            await post(EngineLost(self.model, reason))
            wait = BACKOFF_S if loaded else min(wait * 2, BACKOFF_MOST_S)
            await trio.sleep(wait)

    # --- one life of a worker ---------------------------------------------------------------------
    async def _live(self, post: Post) -> tuple[bool, str, bool]:
        """From start to death of a worker: whether it loaded, why it died, and for good."""
        spec = self._spec
        worker = WorkerProcess(self._command)
        self._worker = worker
        self._quiet_since = trio.current_time()
        worker.tell(
            Load(
                str(spec.path),
                spec.context,
                spec.slots,
                spec.batch,
                spec.threads,
                spec.readable,
                spec.writable,
                spec.sandbox,
                spec.private_mib,
                spec.gpu_layers,
                spec.states,
                spec.states_mib,
                spec.guesses,
                "" if spec.draft is None else str(spec.draft),
            )
        )
        unusable = ""
        reason = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.write)
                nursery.start_soon(worker.listen)
                nursery.start_soon(self._watch, nursery.cancel_scope)
                try:
                    unusable, reason = await self._read(worker, post)
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            loaded = self._ready is not None
            self._worker = self._ready = None
            self._active.clear()
            with trio.CancelScope(shield=True):
                code = await worker.end(KEEP_S if loaded and spec.states else 0.0)
        if unusable:
            return False, unusable, True
        reason, self._hung = self._hung or reason, ""
        return loaded, reason or worker.death(code, spec.private_mib), False

    async def _read(self, worker: WorkerProcess, post: Post) -> tuple[str, str]:
        """Post what the worker reports, until it ends: why it is unusable, or else broken off."""
        reader = FrameReader()
        while True:
            data = await worker.receive()
            if not data:
                return "", ""
            self._quiet_since = trio.current_time()
            events: list[Event] = []
            end = self._hear(reader, data, events)
            await post(*events)
            if end is not None:
                return end

    def _hear(
        self, reader: FrameReader, data: bytes, events: list[Event]
    ) -> tuple[str, str] | None:
        """Add what was read to `events`: what the runs of a step said comes at the same time."""
        try:
            for body in reader.feed(data):
                for report in decode_reports(body):
                    if isinstance(report, Unusable):
                        return report.detail, ""
                    event = self._event(report)
                    if event is not None:
                        events.append(event)
        except OurFault as fault:
            return "", str(fault)
        return None

    async def _watch(self, life: trio.CancelScope) -> None:
        """End a worker's life where it is waited for and says nothing.

        Not a time-out around each read: that would cost every token.
        """
        while True:
            patience = LOAD_HANG_S if self._ready is None else self._spec.hang_s
            left = self._quiet_since + patience - trio.current_time()
            if left <= 0 and (self._ready is None or self._active):
                self._hung = f"it reported nothing for {patience:g} s and was killed"
                life.cancel()
                return
            await trio.sleep(min(left, self._spec.hang_s) if left > 0 else self._spec.hang_s)

    def _event(self, report: Report) -> Event | None:
        """What a report means to the core; None for what it does not need."""
        match report:
            case Produced(run, chunk):
                return RunProduced(RunId(run), chunk) if run in self._active else None
            case Ended(run, usage, timings):
                return RunEnded(RunId(run), usage, timings) if self._over(run) else None
            case Failed(run, code, detail, param):
                return RunFailed(RunId(run), code, detail, param) if self._over(run) else None
            case Measured(prefill, decode, warm):
                return EngineMeasured(self.model, prefill, decode, warm)
            case Ready():
                self._ready = report
                for lack in report.unconfined:
                    log.warning("worker of %s: %s", self.model, lack)
                if report.undrafted:
                    log.warning("%s goes without its draft: %s", self.model, report.undrafted)
                return EngineReady(self.model, report.slots)
            case Loading(fraction):
                return EngineLoading(self.model, fraction)
            case Beat() | Unusable():
                return None

    def _over(self, run: int) -> bool:
        """Forget a run; whether it was still wanted."""
        if run not in self._active:
            return False
        self._active.discard(run)
        return True

    # --- runs that never began --------------------------------------------------------------------
    def _refuse(self, event: RunFailed) -> None:
        self._refused.append(event)
        self._refusal.set()

    async def _post_refusals(self, post: Post) -> None:
        while True:
            await self._refusal.wait()
            self._refusal = trio.Event()
            while self._refused:
                await post(self._refused.popleft())
