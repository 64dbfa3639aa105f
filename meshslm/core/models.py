"""Which models are in memory: loaded when wanted, unloaded when idle or in another's way.

Memory has a budget. A model that is wanted and does not fit waits until enough of the others, the
least recently used first, have been unloaded. One that runs something is never unloaded; where all
are busy those that had their turn take no new runs until they are idle.

Events: hosting, what engines report, an operator's orders, the timer; and from `Serving` who is
wanted and who has become idle.
Effects: `LoadModel`, `UnloadModel`, `Tell`, a timer.

Rules:
- Memory counts from `LoadModel` until `EngineUnloaded` or a final `EngineLost`, and never exceeds
  the budget.
- Models get memory in the order in which they asked: a small one does not overtake a large one.
- A pinned model is unloaded for nobody. Nothing is pinned that would make another wait in vain.
- What can never fit is refused at once, with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits
from meshslm.core.events import LoadModel, UnloadModel
from meshslm.core.outbox import Outbox
from meshslm.core.residency import (
    RESIDENT,
    HostedModel,
    Keep,
    ModelOrdered,
    Order,
    Residency,
    Stage,
    oldest_first,
)
from meshslm.core.views import ModelView
from meshslm.errors import FaultCode
from meshslm.ids import Instant, after

TIMER = "models"

Busy = Callable[[str], tuple[int, int]]
"""Runs of a model on its engine, and in its queue."""


class Models:
    """All base models of this node."""

    def __init__(self, out: Outbox, busy: Busy) -> None:
        self._out = out
        self._busy = busy
        self._models: dict[str, HostedModel] = {}
        self.budget_mib = 0
        """Memory for all models together; 0: without bound."""
        self._idle_ms = 0
        self._turns = 0
        self._due: Instant | None = None

    # --- what is known of them ------------------------------------------------------------------
    def takes_runs(self, name: str) -> bool:
        """Whether runs may be given to its engine now."""
        model = self._models.get(name)
        if model is None or model.stage is not Stage.READY:
            return False
        return not (model.draining or model.leaving)

    def load_ms(self, name: str) -> float:
        """How long its last load took; 0 while there was none."""
        model = self._models.get(name)
        return model.load_ms if model is not None else 0.0

    def refusal(self, name: str, now: Instant) -> str:
        """Why a run of it would wait in vain; empty where it may be queued."""
        model = self._models.get(name)
        if model is None:
            return f"the engine of {name} is not there"
        if model.stage is Stage.FAILED and now < model.retry:
            return f"the engine of {name} failed: {model.reason}"
        if model.leaving:
            return f"{name} is being unloaded by order"
        # Even of one that is loaded: a pinned one that waits may be about to take its place.
        return self._too_large(model)

    def unready(self) -> tuple[str, ...]:
        """What still has to happen before this node is as its settings want it."""
        found = []
        for model in self._models.values():
            if model.stage is Stage.LOADING and model.first:
                found.append(f"{model.name} is loading ({model.fraction:.0%})")
            elif model.stage is Stage.RESTARTING:
                found.append(f"{model.name} was lost: {model.reason}")
            elif model.stage is Stage.FAILED:
                found.append(f"{model.name} failed: {model.reason}")
        return tuple(found)

    def views(self) -> tuple[ModelView, ...]:
        """What a person may see."""
        return tuple(
            ModelView(
                m.name,
                "draining" if m.draining or m.leaving else str(m.stage),
                1.0 if m.stage is Stage.READY else m.fraction,
                m.need_mib,
                m.pinned,
                m.reason,
            )
            for m in self._models.values()
        )

    # --- what this node hosts -------------------------------------------------------------------
    def host(self, names: tuple[str, ...], residency: Residency, now: Instant) -> None:
        """Models of this node from now on; loads new ones that are to be loaded, if they fit."""
        self.budget_mib, self._idle_ms = residency.budget_mib, residency.idle_ms
        needs = {need.model: need for need in residency.needs}
        known = {model.name for model in self._models.values() if model.hosted}
        for model in self._models.values():
            model.hosted = model.name in names
        self._models = {
            name: model
            for name, model in self._models.items()
            if model.hosted or model.stage not in (Stage.ABSENT, Stage.FAILED)
        }
        for name in dict.fromkeys(names):
            model = self._models.setdefault(name, HostedModel(name))
            need = needs.get(name)
            if model.stage not in RESIDENT:
                model.need_mib = need.mib if need else 0
            model.keep = need.keep if need else Keep.START
        new = [m for m in self._models.values() if m.hosted and m.name not in known]
        wanted = [m for m in new if m.keep is not Keep.DEMAND]
        for model in sorted(wanted, key=lambda m: not m.pinned):
            if model.stage is not Stage.ABSENT:
                continue
            if self._fits(model):
                self._load(model, now, first=True)
            else:
                self._out.tell("model.not-preloaded", f"{model.name}: {self._no_room(model)}")
        self._plan(now)

    # --- who is wanted --------------------------------------------------------------------------
    def want(self, name: str, now: Instant) -> None:
        """A model is wanted, for a run in its queue."""
        model = self._models[name]
        if model.stage in (Stage.ABSENT, Stage.FAILED):
            self._turns += 1
            model.stage, model.turn = Stage.WAITING, self._turns
            model.fraction = 0.0
            self._plan(now)

    def released(self, name: str, now: Instant) -> None:
        """Nothing runs on a model any more, though something may wait for it."""
        model = self._models.get(name)
        if model is None:
            return
        _, queued = self._busy(name)
        model.used = now
        if model.stage is Stage.WAITING and not (queued or model.pinned or model.ordered):
            model.stage = Stage.ABSENT
        if not queued or model.draining:
            self._plan(now)

    # --- what engines report --------------------------------------------------------------------
    def loading(self, name: str, fraction: float) -> None:
        """How far a load is."""
        model = self._models.get(name)
        if model is not None and model.stage in (Stage.LOADING, Stage.RESTARTING):
            model.fraction = fraction

    def ready(self, name: str, now: Instant) -> bool:
        """An engine takes runs; false where it is on its way out."""
        model = self._models.get(name)
        if model is None or model.stage is Stage.UNLOADING:
            return False
        model.loaded(now)
        self._plan(now)
        return True

    def lost(self, name: str, reason: str, *, final: bool, now: Instant) -> None:
        """An engine died. `final`: nobody starts it again, and its memory is free."""
        model = self._models.get(name)
        if model is None or model.stage is Stage.UNLOADING:
            return
        model.reason, model.fraction, model.draining = reason, 0.0, False
        model.began = None
        if not final:
            model.stage = Stage.RESTARTING
            return
        wait = limits.MODEL_RETRY_MS * 2 ** min(model.failures, 10)
        model.failures += 1
        model.retry = after(now, min(wait, limits.MODEL_RETRY_MOST_MS))
        model.stage = Stage.FAILED
        model.ordered = model.held = model.leaving = False
        self._plan(now)

    def unloaded(self, name: str, now: Instant) -> None:
        """An engine has left, and its memory is free."""
        model = self._models[name]
        model.stage, model.fraction = Stage.ABSENT, 0.0
        model.draining = model.leaving = False
        if not model.hosted:
            del self._models[name]
        elif model.ordered or any(self._busy(name)):
            self.want(name, now)
        self._plan(now)

    # --- what an operator orders ----------------------------------------------------------------
    def order(self, event: ModelOrdered, now: Instant) -> tuple[FaultCode, str] | None:
        """Begin to carry an order out, or say why not.

        Of an unload `settle` is the second half: in between its runs are handed back.
        """
        model = self._models.get(event.model)
        if model is None or not model.hosted:
            known = ", ".join(name for name, m in self._models.items() if m.hosted)
            there = f"known are {known}" if known else "it hosts none"
            return FaultCode.UNKNOWN_MODEL, f"this node hosts no model {event.model!r}; {there}"
        carry_out = {
            Order.LOAD: self._order_load,
            Order.UNLOAD: self._order_unload,
            Order.PIN: self._order_pin,
            Order.UNPIN: self._order_unpin,
        }[event.order]
        why = carry_out(model, now)
        return (FaultCode.BAD_REQUEST, why) if why else None

    def _order_load(self, model: HostedModel, now: Instant) -> str:
        model.leaving = False
        model.used = now
        if model.stage in RESIDENT and model.stage is not Stage.UNLOADING:
            return ""
        why = self._too_large(model)
        if not why:
            model.ordered = True
            self.want(model.name, now)
        return why

    def _order_unload(self, model: HostedModel, _now: Instant) -> str:
        if model.keep is Keep.ALWAYS:
            return f'{model.name} is pinned by a profile (load = "always"), until that is changed'
        if model.held:
            return f"{model.name} is pinned by order; unpin it first"
        model.ordered = False
        if model.stage is Stage.WAITING:
            model.stage = Stage.ABSENT
        elif model.stage is Stage.LOADING:
            self._unload(model)
        elif model.stage is not Stage.UNLOADING:
            model.leaving = model.stage in RESIDENT
        return ""

    def _order_pin(self, model: HostedModel, now: Instant) -> str:
        before, model.held = model.held, True
        why = self._too_large(model)
        for other in self._models.values():
            waits = other.stage is Stage.WAITING or self._busy(other.name)[1]
            if other is not model and (other.pinned or waits):
                lack = self._too_large(other)
                why = why or (lack and f"{other.name} could not be loaded beside it: {lack}")
        if why:
            model.held = before
            return why
        return self._order_load(model, now)

    def _order_unpin(self, model: HostedModel, now: Instant) -> str:
        model.held = False
        if model.keep is Keep.ALWAYS:
            return f'{model.name} is pinned by a profile (load = "always"), until that is changed'
        self.settle(now)
        return ""

    def settle(self, now: Instant) -> None:
        """An order, or the runs that it handed back, may have changed what is possible."""
        self._plan(now)

    def timer(self, now: Instant) -> None:
        """Something may be due."""
        self._due = None
        self._plan(now)

    # --- decisions ------------------------------------------------------------------------------
    def _plan(self, now: Instant) -> None:
        """Give memory to those that wait, in their order; unload what has been idle for long."""
        for model in self._models.values():
            model.draining = False
        waiting = [m for m in self._models.values() if m.stage is Stage.WAITING]
        for model in sorted(waiting, key=lambda m: m.turn):
            if not self._fits(model):
                self._make_room(model, now)
                break
            self._load(model, now)
        for model in list(self._models.values()):
            due = model.leaving or not model.hosted or self._idle_too_long(model, now)
            if due and self._evictable(model):
                self._unload(model)
        self._set_timer(now)

    def _make_room(self, model: HostedModel, now: Instant) -> None:
        """Unload idle models until `model` will fit; stop new runs on busy ones where it must."""
        missing = self._resident_mib() + model.need_mib - self.budget_mib
        missing -= sum(m.need_mib for m in self._models.values() if m.stage is Stage.UNLOADING)
        idle = [m for m in self._models.values() if self._evictable(m)]
        busy = [
            m
            for m in self._models.values()
            if m.stage is Stage.READY and not m.pinned and self._had_its_turn(m, now)
        ]
        victims = []
        for victim in [*oldest_first(idle), *oldest_first(busy)]:
            if missing <= 0:
                break
            if victim not in victims:
                victims.append(victim)
                missing -= victim.need_mib
        if missing > 0:
            return
        for victim in victims:
            running, _ = self._busy(victim.name)
            if running:
                victim.draining = True
            else:
                self._unload(victim)

    def _load(self, model: HostedModel, now: Instant, *, first: bool = False) -> None:
        model.began = now
        model.stage, model.fraction, model.reason, model.first = Stage.LOADING, 0.0, "", first
        self._out.put(LoadModel(model.name))

    def _unload(self, model: HostedModel) -> None:
        model.stage = Stage.UNLOADING
        self._out.put(UnloadModel(model.name))

    def _resident_mib(self) -> int:
        return sum(m.need_mib for m in self._models.values() if m.stage in RESIDENT)

    def _fits(self, model: HostedModel) -> bool:
        return not self.budget_mib or self._resident_mib() + model.need_mib <= self.budget_mib

    def _too_large(self, model: HostedModel) -> str:
        """Why it would not fit even if everything but pinned models were unloaded."""
        pinned = self._pinned_mib(model)
        if not self.budget_mib or pinned + model.need_mib <= self.budget_mib:
            return ""
        return self._no_room(model)

    def _no_room(self, model: HostedModel) -> str:
        pinned = self._pinned_mib(model)
        kept = f", {pinned} MiB of it kept by pinned models" if pinned else ""
        return (
            f"{model.name} needs {model.need_mib} MiB and the budget for models is "
            f"{self.budget_mib} MiB{kept}; a shorter context or fewer slots need less"
        )

    def _pinned_mib(self, model: HostedModel) -> int:
        return sum(m.need_mib for m in self._models.values() if m.pinned and m is not model)

    def _in_use(self, model: HostedModel) -> bool:
        return any(self._busy(model.name))

    def _evictable(self, model: HostedModel) -> bool:
        loaded = model.stage in (Stage.READY, Stage.RESTARTING)
        return loaded and not model.pinned and not self._in_use(model)

    def _idle_too_long(self, model: HostedModel, now: Instant) -> bool:
        return bool(self._idle_ms) and now >= after(model.used, self._idle_ms)

    def _had_its_turn(self, model: HostedModel, now: Instant) -> bool:
        return now >= after(model.since, limits.MODEL_TURN_MS)

    def _set_timer(self, now: Instant) -> None:
        """Look again when the next turn is over, or the next model idle for long enough."""
        waits = any(m.stage is Stage.WAITING for m in self._models.values())
        dues = []
        for model in self._models.values():
            if model.stage is not Stage.READY or model.pinned:
                continue
            if waits and not self._had_its_turn(model, now):
                dues.append(after(model.since, limits.MODEL_TURN_MS))
            if self._idle_ms and not self._in_use(model):
                dues.append(after(model.used, self._idle_ms))
        due = min(dues, default=None)
        if due is None:
            self._due = None
            self._out.stop_timer(TIMER, "")
        elif self._due is None or due < self._due:
            self._due = due
            # A millisecond more: a timer counts whole ones, and one too early would look in vain.
            self._out.start_timer(TIMER, "", max(0, due - now) / 1000 + 1)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert not self.budget_mib or self._resident_mib() <= self.budget_mib
        stages = [model.stage for model in self._models.values()]
        moving = any(s in (Stage.LOADING, Stage.RESTARTING, Stage.UNLOADING) for s in stages)
        for model in self._models.values():
            assert not model.draining or Stage.WAITING in stages
            assert model.stage is not Stage.UNLOADING or not self._busy(model.name)[0]
            if model.stage is Stage.WAITING:
                used = any(self._busy(m.name)[0] for m in self._models.values())
                assert moving or used or self._out.timer_runs(TIMER, ""), f"{model.name} waits"
