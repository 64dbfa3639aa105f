"""What this node hosts: from profiles to running engines.

Models are brought and prepared first, outside the loop; then the node announces its specialists
and starts one engine for each base model.

Rules:
- Several profiles on one base model share one engine.
- A model that cannot be had is told loudly and leaves its profiles out; the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import trio

from meshslm.core.events import EngineLost, EngineReady, Event, HostingChanged
from meshslm.daemon.executor import Executor
from meshslm.daemon.pump import Pump
from meshslm.errors import OurFault
from meshslm.ports import Engine, Post
from meshslm.profiles import Profile
from meshslm.wire.messages import DomainCard, Hardware, Specialist

log = logging.getLogger("meshslm.hosting")

BATCH_INVARIANT = frozenset({"Q8_0"})
"""Formats measured to give the same tokens in a batch as alone, on CPUs with AVX2."""


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
    """How an engine is to be run."""

    context: int
    slots: int


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
    ) -> None:
        """`ensure` has a model ready, blocking, in a thread; it raises `OurFault`."""
        self._profiles = profiles
        self._hardware = hardware
        self._pump = pump
        self._executor = executor
        self._ensure = ensure
        self._make_engine = make_engine
        self._states = {profile.model: "is being brought" for profile in profiles}

    def ready(self) -> tuple[bool, str]:
        """Whether every engine takes runs, and which does not."""
        waiting = [f"{model} {state}" for model, state in self._states.items() if state]
        return not waiting, "; ".join(waiting)

    async def run(self) -> None:
        """Bring the models, announce, and serve until cancelled."""
        hosted: dict[str, tuple[M, Shape]] = {}
        for model in self._states:
            try:
                hosted[model] = await trio.to_thread.run_sync(
                    self._ensure, model, abandon_on_cancel=True
                )
                self._states[model] = "is loading"
            except OurFault as fault:
                log.error("%s cannot be hosted: %s", model, fault)  # noqa: TRY400 - no bug, no trace
                self._states[model] = f"cannot be hosted: {fault}"
        engines = {model: self._make_engine(found) for model, (found, _) in hosted.items()}
        specialists = tuple(_specialists(self._profiles, hosted))
        self._executor.host(engines, {profile.name: profile for profile in self._profiles})
        self._pump.handle(HostingChanged(specialists, self._hardware))
        async with trio.open_nursery() as nursery:
            for engine in engines.values():
                nursery.start_soon(engine.run, self._watching(self._pump.post))

    def _watching(self, post: Post) -> Post:
        """`post`, remembering which engines are ready."""

        async def watched(event: Event) -> None:
            if isinstance(event, EngineReady):
                self._states[event.model] = ""
                log.info("%s is loaded and takes requests", event.model)
            elif isinstance(event, EngineLost):
                self._states[event.model] = f"was lost: {event.reason}"
                log.warning("the engine of %s was lost: %s", event.model, event.reason)
            await post(event)

        return watched


def _specialists(
    profiles: Iterable[Profile], hosted: Mapping[str, tuple[M, Shape]]
) -> Iterable[Specialist]:
    for profile in profiles:
        if profile.model not in hosted:
            continue
        model, shape = hosted[profile.model]
        yield Specialist(
            profile=profile.name,
            model=model.name,
            digest=model.digest,
            quantisation=model.quantisation,
            context=shape.context,
            slots=shape.slots,
            domains=tuple(
                DomainCard(card.domain, card.sentence, card.examples) for card in profile.domains
            ),
            price=profile.price,
            batch_invariant=model.quantisation in BATCH_INVARIANT,
        )
