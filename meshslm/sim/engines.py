"""The scripted engines below the simulated nodes: one for each base model that a node hosts.

Why scripted: what an engine must say is known beforehand, so every token can be checked.

Rules:
- A profile's system prompt names its node, so that no two nodes give the same answer to the same
  request: tokens of two attempts can never pass for those of one.
- An engine is a process of its own: it goes on while its daemon is stopped, and dies with it.
"""

from __future__ import annotations

from dataclasses import replace

from meshslm.adapters.scripted_engine import ScriptedEngine, Speed, answer
from meshslm.core.events import (
    EngineLost,
    EngineUnloaded,
    HostingChanged,
    LoadModel,
    StartRun,
    StopRun,
    UnloadModel,
)
from meshslm.core.residency import ModelNeed, Residency
from meshslm.sim.checkers import Answer, Violations
from meshslm.sim.corpus import topic
from meshslm.sim.node import SECOND, Guard, SimNode
from meshslm.sim.scenario import Profile, Scenario
from meshslm.sim.topology import Topology
from meshslm.sim.world import World
from meshslm.wire.messages import ChatMessage, Hardware, Specialist, TaskRequest

_HARDWARE = Hardware(cores=2, memory_mib=4096)
LEAVE_US = SECOND // 20
"""Time that an engine process takes to leave."""


class _Station:
    """One engine on one node."""

    __slots__ = ("alarm", "alarm_at", "engine", "life", "load_us", "need", "ready", "resident")

    def __init__(self, profile: Profile, times: float) -> None:
        speed = Speed(
            profile.prefill_tps * times, profile.decode_tps * times, profile.slots, profile.context
        )
        self.engine = ScriptedEngine(model_of(profile), speed)
        self.load_us = int(profile.load_s * SECOND)
        self.need = ModelNeed(model_of(profile), int(profile.memory_mib))
        self.life = Guard()
        """Closes when its process ends."""
        self.resident = False
        self.ready = False
        self.alarm = Guard()
        """Closes when the engine is asked at another time instead."""
        self.alarm_at: int | None = None


class Engines:
    """All engines of a world."""

    def __init__(self, world: World, scenario: Scenario, violations: Violations) -> None:
        self._world = world
        self._violations = violations
        self._topology = Topology(scenario.groups, scenario.nodes)
        self._budget_mib = int(scenario.memory_mib)
        self._domains = {profile.name: profile.domains for profile in scenario.profiles}
        self._dealt = tuple(dealt(scenario, node.index) for node in world.nodes)
        self._hosted = tuple(tuple(map(_specialist, profiles)) for profiles in self._dealt)
        self._stations: tuple[dict[str, _Station], ...] = tuple({} for _ in world.nodes)

    def hosted(self, node: SimNode) -> tuple[Specialist, ...]:
        """What a node announces."""
        return self._hosted[node.index]

    def domains(self, profile: str) -> tuple[str, ...]:
        """What a profile is for."""
        return self._domains[profile]

    def expected(self, node: SimNode, profile: str, request: TaskRequest, choice: int) -> Answer:
        """What a node must say, by a profile, to a request, in one choice."""
        said = answer(_filled(node, profile, request), choice)
        return Answer(said.tokens, said.pieces, said.finish)

    # --- processes ------------------------------------------------------------------------------
    def booted(self, node: SimNode) -> None:
        """A daemon starts: it says what it hosts, and loads what the core wants loaded."""
        stations = self._stations[node.index]
        for profile in self._dealt[node.index]:
            stations.setdefault(model_of(profile), _Station(profile, self._speed(node)))
        needs = tuple(station.need for station in stations.values())
        residency = Residency(needs, self._budget_mib)
        self._world.tell(node, HostingChanged(self._hosted[node.index], _HARDWARE, residency))

    def _speed(self, node: SimNode) -> float:
        group = self._topology.group(node.index)
        return group.speed if group is not None else 1.0

    def died(self, node: SimNode) -> None:
        """A daemon is gone, and its engines with it."""
        for station in self._stations[node.index].values():
            self._end(station)
        self._stations[node.index].clear()

    def load(self, node: SimNode, effect: LoadModel) -> None:
        """An engine process starts."""
        stations = self._stations[node.index]
        station = stations[effect.model]
        if station.resident:
            self._wrong(f"{effect.model} was loaded twice on {node.name}")
        station.resident = True
        resident = sum(s.need.mib for s in stations.values() if s.resident)
        if self._budget_mib and resident > self._budget_mib:
            self._wrong(f"{resident} MiB of {self._budget_mib} taken on {node.name}")
        self._load(node, station, int(station.load_us * node.disk_times))

    def unload(self, node: SimNode, effect: UnloadModel) -> None:
        """An engine process is told to leave, which takes it a moment."""
        station = self._stations[node.index][effect.model]
        if station.engine.next_at() is not None:
            self._wrong(f"{effect.model} was unloaded while in use on {node.name}")
        self._end(station)

        def left() -> None:
            station.resident = False
            self._world.tell(node, EngineUnloaded(effect.model))

        self._world.call(self._world.now + LEAVE_US, left, node.life)

    def _end(self, station: _Station) -> None:
        station.life.open = station.alarm.open = False
        station.alarm_at = None
        station.ready = False
        station.engine.reset()

    def _wrong(self, detail: str) -> None:
        self._violations.note("memory", self._world.now, detail)

    def crash(self, node: SimNode, for_s: float) -> None:
        """The engine processes of a node die, and are ready again after so many seconds."""
        for station in self._stations[node.index].values():
            if station.ready:
                self._end(station)
                self._world.tell(node, EngineLost(station.engine.model, "the scenario says so"))
                self._load(node, station, int(for_s * SECOND))

    def _load(self, node: SimNode, station: _Station, wait_us: int) -> None:
        def loaded() -> None:
            station.ready = True
            self._world.tell(node, station.engine.loaded())

        station.life = Guard()
        self._world.call(self._world.now + wait_us, loaded, station.life)

    # --- runs -----------------------------------------------------------------------------------
    def start(self, node: SimNode, effect: StartRun) -> None:
        """Begin a run; on an engine that has just died it is lost with the others."""
        station = self._stations[node.index][effect.model]
        if station.ready:
            request = _filled(node, effect.profile, effect.request)
            station.engine.start_run(effect.run, request, self._world.now)
            self._set_alarm(node, station)

    def stop(self, node: SimNode, effect: StopRun) -> None:
        """Stop a run."""
        station = self._stations[node.index][effect.model]
        station.engine.stop_run(effect.run, self._world.now)
        self._set_alarm(node, station)

    def _set_alarm(self, node: SimNode, station: _Station) -> None:
        """Ask the engine when it has something to say; not again if that time is set already."""
        when = station.engine.next_at()
        if when == station.alarm_at:
            return
        station.alarm.open = False
        station.alarm_at = when
        if when is not None:
            station.alarm = Guard()
            self._world.call(when, lambda: self._advance(node, station), station.alarm)

    def _advance(self, node: SimNode, station: _Station) -> None:
        station.alarm_at = None
        for event in station.engine.advance(self._world.now):
            self._world.tell(node, event)
        self._set_alarm(node, station)


def model_of(profile: Profile) -> str:
    """The base model below a profile."""
    return profile.model or profile.name


def dealt(scenario: Scenario, index: int) -> tuple[Profile, ...]:
    """Profiles of a node: dealt round, so that every domain has about as many hosts."""
    deck = scenario.profiles
    count = min(scenario.profiles_per_node, len(deck))
    return tuple(deck[(index + step) % len(deck)] for step in range(count))


def _filled(node: SimNode, profile: str, request: TaskRequest) -> TaskRequest:
    """A request as the engine gets it, with the profile's system prompt before the user's words."""
    system = ChatMessage("system", f"You are {profile} on {node.name}.")
    return replace(request, messages=(system, *request.messages))


def _specialist(profile: Profile) -> Specialist:
    return Specialist(
        profile=profile.name,
        model=model_of(profile),
        digest=f"sha256:{model_of(profile)}",
        quantisation="Q8_0",
        context=profile.context,
        slots=profile.slots,
        domains=tuple(topic(domain).card for domain in profile.domains),
        batch_invariant=True,
    )
