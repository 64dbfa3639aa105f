"""What there is to say about models in memory: what each needs, where it stands, what is ordered.

Values alone; the decisions are in `core.models`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from meshslm.errors import FaultCode
from meshslm.ids import Instant, ms_between


class Keep(Enum):
    """When a model is in memory."""

    DEMAND = "demand"
    """From its first request on, until another needs the memory."""
    START = "start"
    """The same, but from the start on where it fits."""
    ALWAYS = "always"
    """Never unloaded."""


@dataclass(frozen=True, slots=True)
class ModelNeed:
    """What a base model takes."""

    model: str
    mib: int
    keep: Keep = Keep.START


@dataclass(frozen=True, slots=True)
class Residency:
    """How much may be loaded, and for how long."""

    needs: tuple[ModelNeed, ...] = ()
    """A model that is not named here takes nothing."""
    budget_mib: int = 0
    """Memory for all models together; 0: without bound."""
    idle_ms: int = 0
    """A model without requests for so long is unloaded; 0: never."""


UNBOUNDED: Final = Residency()


class Order(StrEnum):
    """What an operator may want of a model."""

    LOAD = "load"
    UNLOAD = "unload"
    PIN = "pin"
    """Load it, and unload it for nobody until `UNPIN`."""
    UNPIN = "unpin"


@dataclass(frozen=True, slots=True)
class ModelOrdered:
    """Event: an operator gives an order; `OrderAnswered` of the same number answers it at once."""

    number: int
    model: str
    order: Order
    at_once: bool = False
    """Of `UNLOAD`: do not wait for what runs on it."""


@dataclass(frozen=True, slots=True)
class OrderAnswered:
    """Effect: the order is being carried out, or refused."""

    number: int
    refusal: FaultCode | None = None
    detail: str = ""


class Stage(StrEnum):
    """Where a model stands."""

    ABSENT = "absent"
    WAITING = "waiting"
    """Wanted, until there is memory for it."""
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    """Its worker died and is started again."""
    UNLOADING = "unloading"
    FAILED = "failed"


RESIDENT = (Stage.LOADING, Stage.READY, Stage.RESTARTING, Stage.UNLOADING)
"""Stages that take memory."""


@dataclass(slots=True, eq=False)
class HostedModel:
    """One base model on this node; `core.models` alone changes it."""

    name: str
    need_mib: int = 0
    keep: Keep = Keep.DEMAND
    stage: Stage = Stage.ABSENT
    fraction: float = 0.0
    reason: str = ""
    first: bool = False
    """It is loaded for the first time since the start."""
    draining: bool = False
    """It takes no new runs, so that another can have its memory."""
    hosted: bool = True
    ordered: bool = False
    """An operator wants it loaded, and it is not yet."""
    held: bool = False
    """Pinned by order."""
    leaving: bool = False
    """To be unloaded by order, as soon as nothing runs on it."""
    turn: int = 0
    """Place among those that wait."""
    since: Instant = Instant(0)
    """When it became ready."""
    used: Instant = Instant(0)
    """When its last run ended, or it became ready."""
    retry: Instant = Instant(0)
    """A failed one is not tried again before that."""
    failures: int = 0
    began: Instant | None = None
    """When its load began; None while none is under way."""
    load_ms: float = 0.0
    """How long the last one took; 0 while there was none."""

    def loaded(self, now: Instant) -> None:
        """Its engine is ready; a worker that was only started again loaded nothing that is told."""
        if self.began is not None:
            self.load_ms = ms_between(self.began, now)
        self.stage, self.reason, self.first, self.began = Stage.READY, "", False, None
        self.failures, self.ordered = 0, False
        self.since = self.used = now

    @property
    def pinned(self) -> bool:
        """It is unloaded for nobody."""
        return self.hosted and (self.held or self.keep is Keep.ALWAYS)


def oldest_first(models: list[HostedModel]) -> list[HostedModel]:
    """By when they were used last."""
    return sorted(models, key=lambda model: model.used)
