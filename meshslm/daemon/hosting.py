"""What this node hosts: from profiles to engines that can be loaded.

Models are brought and prepared first, outside the loop; then the node announces its specialists,
and the core decides which of their models are loaded.

Rules:
- Several profiles on one base model share one engine.
- A model that cannot be had is told loudly and leaves its profiles out; the others go on.
- Adapters come and go while it runs; each change is announced.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import trio

from meshslm import limits
from meshslm.core.events import HostingChanged
from meshslm.core.residency import Keep, ModelNeed, Residency
from meshslm.daemon.engine_room import EngineRoom
from meshslm.daemon.executor import Executor
from meshslm.daemon.pump import Pump
from meshslm.errors import OurFault
from meshslm.ports import Engine
from meshslm.profiles import Profile
from meshslm.wire.messages import DomainCard, Hardware, Specialist, TaskRequest

log = logging.getLogger("meshslm.hosting")

BATCH_INVARIANT = frozenset({"Q8_0"})
"""Formats measured to give the same tokens in a batch as alone, on CPUs with AVX2."""

ADAPTER_DIGITS = 32
"""Of an adapter's digest, put behind the model's."""

ADAPTERS_LOOK_S = 1.0
"""Between two looks at which adapters there are: one `stat` while nothing changes."""

POWER_LOOKS = 30
"""Of these looks, each so manieth is at the power supply and the temperature, too."""

_EAGERNESS = (Keep.DEMAND, Keep.START, Keep.ALWAYS)


class Hosted(Protocol):
    """A base model that is ready to be loaded."""

    @property
    def name(self) -> str:
        """Its name in the store."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its file."""
        ...

    @property
    def quantisation(self) -> str:
        """Such as `Q8_0`."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """How an engine is to be run, and what it will take."""

    context: int
    slots: int
    need_mib: float
    """Memory, estimated."""
    unknown: str = ""
    """Why the estimate lacks something; empty where it does not."""
    operations: tuple[str, ...] = ("generate",)
    """What the model can be asked for."""
    weights_mib: float = 0.0
    """Of its file; 0 where nobody knows."""


@dataclass(frozen=True, slots=True)
class Room:
    """Memory for models."""

    budget_mib: int
    """Of all models together; 0: without bound."""
    idle_ms: int
    """A model without requests for so long is unloaded; 0: never."""
    available_mib: Callable[[], int]
    """What the machine has left now; 0 where it does not tell."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An endpoint outside the mesh, as one more engine of this node's own clients."""

    engine: Engine
    profile: Profile
    specialist: Specialist
    refuses: Callable[[TaskRequest], str] = lambda _: ""
    """Why it would refuse a request now, by its bounds; empty where it would not."""

    def refused(self, request: TaskRequest) -> dict[str, str]:
        """The same by its model, if it would."""
        why = self.refuses(request)
        return {self.specialist.model: why} if why else {}


M = TypeVar("M", bound=Hosted)


class Hosting(Generic[M]):
    """The specialists of one node."""

    def __init__(
        self,
        profiles: Sequence[Profile],
        hardware: Hardware,
        pump: Pump,
        executor: Executor,
        *,
        ensure: Callable[[str], tuple[M, Shape]],
        make_engine: Callable[[M], Engine],
        room: Room,
        upstream: Upstream | None = None,
        look: Callable[[Hardware], Hardware] = lambda hardware: hardware,
        adapters: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """`ensure` has a model ready, blocking, in a thread; it raises `OurFault`.

        `adapters` are those that are there of a model, digests by name; it is asked every
        `ADAPTERS_LOOK_S`.
        """
        self._adapters = adapters
        self._upstream = upstream
        self._look = look
        """Says how the hardware is powered now."""
        self._profiles = profiles
        self._hardware = hardware
        self._pump = pump
        self._executor = executor
        self._ensure = ensure
        self._make_engine = make_engine
        self._room = room
        self._states = {profile.model: "is being brought" for profile in profiles}
        self._shapes: dict[str, Shape] = {}

    def unready(self) -> tuple[str, ...]:
        """Models that are not on this node's disk yet, and why."""
        return tuple(f"{model} {state}" for model, state in self._states.items() if state)

    async def run(self) -> None:
        """Bring the models, announce, and serve until cancelled."""
        hosted: dict[str, tuple[M, Shape]] = {}
        for model in self._states:
            try:
                hosted[model] = await trio.to_thread.run_sync(
                    self._ensure, model, abandon_on_cancel=True
                )
            except OurFault as fault:
                log.error("%s cannot be hosted: %s", model, fault)  # noqa: TRY400 - no bug, no trace
                self._states[model] = f"cannot be hosted: {fault}"
        self._shapes = {model: shape for model, (_, shape) in hosted.items()}
        for model, shape in self._shapes.items():
            if shape.unknown:
                log.warning("%s needs more memory than can be foreseen: %s", model, shape.unknown)
        engines = {model: self._make_engine(found) for model, (found, _) in hosted.items()}
        if self._upstream is not None:
            engines[self._upstream.engine.model] = self._upstream.engine
        engine_room = EngineRoom(engines, self._pump.post, self._refusal)
        profiles = {profile.name: profile for profile in self._profiles}
        if self._upstream is not None:
            profiles[self._upstream.profile.name] = self._upstream.profile
        self._executor.host(engines, profiles, engine_room)
        announced = tuple(self._specialists(hosted))

        def announce() -> None:
            for model in hosted:
                self._states[model] = ""
            self._pump.handle(self._hosting(announced))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine_room.run, announce)
            looks = 0
            while True:
                await trio.sleep(ADAPTERS_LOOK_S)
                looks += 1
                now, before = tuple(self._specialists(hosted)), self._hardware
                if looks % POWER_LOOKS == 0:
                    self._hardware = self._look(before)
                if now != announced or self._hardware != before:
                    announced = now
                    self._pump.handle(self._hosting(now))

    def _hosting(self, announced: tuple[Specialist, ...]) -> HostingChanged:
        outside = () if self._upstream is None else (self._upstream.specialist,)
        return HostingChanged(announced, self._hardware, self._residency(), outside)

    def _residency(self) -> Residency:
        needs = tuple(
            ModelNeed(model, math.ceil(shape.need_mib), self._keep(model))
            for model, shape in self._shapes.items()
        )
        return Residency(needs, self._room.budget_mib, self._room.idle_ms)

    def _keep(self, model: str) -> Keep:
        """What the most eager of a model's profiles asks for."""
        asked = [Keep(profile.load) for profile in self._profiles if profile.model == model]
        return max(asked, key=_EAGERNESS.index)

    def _refusal(self, model: str) -> str:
        """Why a model cannot be loaded now; empty where it can."""
        if model not in self._shapes:
            return ""
        need, left = self._shapes[model].need_mib, self._room.available_mib()
        if not left or need <= left:
            return ""
        return (
            f"it needs {need:.0f} MiB and this machine has {left} MiB left; stop something, or "
            "choose a shorter context or fewer slots"
        )

    def _specialists(self, hosted: Mapping[str, tuple[M, Shape]]) -> Iterable[Specialist]:
        for profile in self._profiles:
            if profile.model not in hosted:
                continue
            model, shape = hosted[profile.model]
            digest = model.digest
            adapters = self._adapters(model.name)
            if profile.adapter:
                adapter = adapters.get(profile.adapter, "")
                self._tell_missing(profile, missing=not adapter)
                if not adapter:
                    continue
                # Another adapter gives another text, so it is part of what is served.
                digest = f"{digest}+{adapter[:ADAPTER_DIGITS]}"
            yield Specialist(
                profile=profile.name,
                model=model.name,
                digest=digest,
                quantisation=model.quantisation,
                context=shape.context,
                slots=shape.slots,
                domains=tuple(
                    DomainCard(card.domain, card.sentence, card.examples)
                    for card in profile.domains
                ),
                price=profile.price,
                batch_invariant=model.quantisation in BATCH_INVARIANT,
                operations=shape.operations,
                adapters=tuple(sorted(adapters))[: limits.ADAPTERS_ANNOUNCED],
                size_mib=math.ceil(shape.weights_mib),
                private=profile.private,
            )

    def _tell_missing(self, profile: Profile, *, missing: bool) -> None:
        """Say, once, that a profile waits for its adapter."""
        key = f"profile {profile.name}"
        if not missing:
            self._states.pop(key, None)
        elif key not in self._states:
            why = f"there is no adapter {profile.adapter!r} for {profile.model} on this node"
            log.error("%s cannot be hosted: %s", key, why)
            self._states[key] = f"cannot be hosted: {why}"
