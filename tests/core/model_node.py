"""One node whose engines load, die and leave as a test says."""

from __future__ import annotations

from meshslm import limits
from meshslm.core.events import (
    EngineLost,
    EngineReady,
    EngineUnloaded,
    Event,
    FailTask,
    FinishTask,
    HostingChanged,
    LoadModel,
    RunEnded,
    RunFailed,
    StartRun,
    StopRun,
    TaskArrived,
    UnloadModel,
)
from meshslm.core.residency import Keep, ModelNeed, ModelOrdered, Order, OrderAnswered, Residency
from meshslm.core.views import ModelView
from meshslm.errors import FaultCode
from meshslm.ids import NodeId, RunId, TaskId
from meshslm.wire.messages import ChatMessage, Hardware, TaskRequest, Timings, Usage
from tests.core.mesh import SLOTS, Mesh, specialist

MODELS = ("a", "b", "c", "d")


class Node:
    """One node whose engines do what the test says."""

    def __init__(
        self, *needs: ModelNeed, budget_mib: int = 100, idle_ms: int = 0, warm: bool = True
    ) -> None:
        self.mesh = Mesh()
        self.core = self.mesh.add("a")
        specialists = tuple(specialist(f"p-{n.model}", model=n.model) for n in needs)
        residency = Residency(needs, budget_mib, idle_ms)
        self.tasks = 0
        self.orders = 0
        self.give(HostingChanged(specialists, Hardware(), residency))
        if warm:
            for model in self.loads():
                self.give(EngineReady(model, SLOTS))

    def give(self, event: Event) -> None:
        self.mesh.give("a", event)

    def loads(self) -> list[str]:
        return [effect.model for effect in self.mesh.effects("a", LoadModel)]

    def unloads(self) -> list[str]:
        return [effect.model for effect in self.mesh.effects("a", UnloadModel)]

    def runs(self) -> list[StartRun]:
        return self.mesh.effects("a", StartRun)

    def stopped(self) -> set[RunId]:
        return {effect.run for effect in self.mesh.effects("a", StopRun)}

    def view(self, model: str) -> ModelView:
        return next(m for m in self.core.status(self.mesh.now).models if m.model == model)

    def ask(self, model: str, deadline_ms: int = limits.DEADLINE_MS) -> TaskId:
        self.tasks += 1
        task = TaskId(f"t{self.tasks}")
        words = (ChatMessage("user", "x"),)
        self.give(TaskArrived(task, TaskRequest(model, words, deadline_ms=deadline_ms)))
        return task

    def end(self, run: StartRun) -> None:
        self.give(RunEnded(run.run, Usage(1, 1), Timings()))

    def order(self, order: Order, model: str, *, at_once: bool = False) -> OrderAnswered:
        self.orders += 1
        self.give(ModelOrdered(self.orders, model, order, at_once))
        (answer,) = (e for e in self.mesh.effects("a", OrderAnswered) if e.number == self.orders)
        return answer

    def outcome(self, task: TaskId) -> FinishTask | FailTask | None:
        done = self.mesh.boxes[NodeId("a")].done
        ends = [e for e in done if isinstance(e, FinishTask | FailTask) and e.task == task]
        assert len(ends) <= 1
        return ends[0] if ends else None


def need(model: str, mib: int = 40, keep: Keep = Keep.START) -> ModelNeed:
    return ModelNeed(model, mib, keep)


class World:
    """Engines that load, die and leave as told, and a judge of what the core asks of them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.loading: set[str] = set()
        self.ready: set[str] = set()
        self.leaving: set[str] = set()
        self.open: list[StartRun] = []
        self._seen = [0, 0, 0]
        self.look()

    def look(self) -> None:
        """Take over what the core has asked for since."""
        loads, unloads, runs = self.node.loads(), self.node.unloads(), self.node.runs()
        stopped = self.node.stopped()
        self.open = [run for run in self.open if run.run not in stopped]
        for model in loads[self._seen[0] :]:
            assert model not in self.loading | self.ready | self.leaving, "loaded twice"
            self.loading.add(model)
        for model in unloads[self._seen[1] :]:
            assert model in self.loading | self.ready
            assert all(run.model != model for run in self.open), "unloaded while in use"
            self.loading.discard(model)
            self.ready.discard(model)
            self.leaving.add(model)
        for run in runs[self._seen[2] :]:
            assert run.model in self.ready, "a run on an engine that is not there"
            if run.run not in stopped:
                self.open.append(run)
        self._seen = [len(loads), len(unloads), len(runs)]

    def step(self, what: str, number: int) -> None:
        """Something happens."""
        model = MODELS[number]
        if what == "ask":
            self.node.ask(model)
        elif what in list(Order):
            self.node.order(Order(what), model, at_once=number % 2 == 0)
        elif what == "wait":
            self.node.mesh.pass_time(3000 * number)
        elif what in ("end", "fail") and self.open:
            run = self.open.pop(number % len(self.open))
            failed = RunFailed(run.run, FaultCode.BAD_REQUEST, "no")
            self.node.give(failed if what == "fail" else RunEnded(run.run, Usage(), Timings()))
        elif what == "ready" and model in self.loading:
            self.move(model, self.loading, self.ready, EngineReady(model, SLOTS))
        elif what == "lost" and model in self.ready:
            self.open = [run for run in self.open if run.model != model]
            self.move(model, self.ready, self.loading, EngineLost(model, "crash"))
        elif what == "dead" and model in self.loading:
            self.move(model, self.loading, None, EngineLost(model, "broken", final=True))
        elif what == "left" and model in self.leaving:
            self.move(model, self.leaving, None, EngineUnloaded(model))
        self.look()

    def move(self, model: str, whence: set[str], whither: set[str] | None, event: Event) -> None:
        whence.discard(model)
        if whither is not None:
            whither.add(model)
        self.node.give(event)

    def settle(self) -> None:
        """Let everything that was begun come to its end."""
        while self.loading or self.leaving or self.open:
            for number, model in enumerate(MODELS):
                self.step("left" if model in self.leaving else "ready", number)
            for _ in list(self.open):
                self.step("end", 0)
