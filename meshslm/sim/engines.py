"""The pretended engines below the simulated nodes, and what they must say.

Rules:
- A profile's system prompt names its node, so that no two nodes give the same answer to the same
  request: tokens of two attempts cannot be taken for those of one.
"""

from __future__ import annotations

from hashlib import blake2b

from meshslm.core.events import (
    EngineLost,
    EngineMeasured,
    EngineReady,
    Event,
    HostingChanged,
    RunEnded,
    RunProduced,
    StartRun,
    StopRun,
)
from meshslm.ids import RunId
from meshslm.sim.checkers import Answer
from meshslm.sim.corpus import topic
from meshslm.sim.scenario import Profile, Scenario
from meshslm.sim.world import SECOND, Guard, SimNode, World
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Hardware,
    Specialist,
    TaskRequest,
    Timings,
    Usage,
)


class Engines:
    """All engines of a world."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world = world
        self._profiles = {profile.name: profile for profile in scenario.profiles}
        self._dealt = {node.id: _deal(scenario, node.index) for node in world.nodes}
        self._hosted = {
            node.id: tuple(_specialist(profile) for profile in self._dealt[node.id])
            for node in world.nodes
        }
        self._runs: dict[tuple[int, RunId], Guard] = {}

    def hosted(self, node: SimNode) -> tuple[Specialist, ...]:
        return self._hosted[node.id]

    def booted(self, node: SimNode) -> None:
        world = self._world
        world.tell(node, HostingChanged(self._hosted[node.id], Hardware(cores=2, memory_mib=4096)))
        for profile in self._dealt[node.id]:
            when = world.now + int(profile.load_s * SECOND)
            world.push(when, node.life, node, EngineReady(profile.model or profile.name, profile.slots))

    def died(self, node: SimNode) -> None:
        for key in [key for key in self._runs if key[0] == node.index]:
            self._runs.pop(key).open = False

    def start(self, node: SimNode, effect: StartRun) -> None:
        world = self._world
        profile = self._profiles[effect.profile]
        request = effect.request
        guard = self._runs[node.index, effect.run] = Guard()
        when = world.now + int(SECOND * 50 / profile.prefill_tps)
        count = 0
        for choice in range(request.choices):
            answer = self.expected(node, effect.profile, request, choice)
            at = when
            for place, token in enumerate(answer.tokens):
                at += int(SECOND / profile.decode_tps)
                last = place == len(answer.tokens) - 1
                chunk = Chunk(choice, (token,), f"t{token} ", finish=answer.finish if last else "")
                world.push(at, guard, node, RunProduced(effect.run, chunk))
                count += 1
            when = at
        world.push(when + 1, guard, node, RunEnded(effect.run, Usage(10, count), Timings()))

    def stop(self, node: SimNode, effect: StopRun) -> None:
        guard = self._runs.pop((node.index, effect.run), None)
        if guard is not None:
            guard.open = False

    def domains(self, profile: str) -> tuple[str, ...]:
        return self._profiles[profile].domains

    def crash(self, node: SimNode, for_s: float) -> None:
        """x"""

    def expected(self, node: SimNode, profile: str, request: TaskRequest, choice: int) -> Answer:
        seed = blake2b(
            repr((node.name, profile, request.messages, choice)).encode(), digest_size=32
        ).digest()
        tokens = tuple(seed[i % 32] for i in range(request.max_tokens))
        return Answer(tokens, "".join(f"t{t} " for t in tokens), "length")


def _deal(scenario: Scenario, index: int) -> tuple[Profile, ...]:
    """Profiles of a node: dealt round, so that every domain has about as many hosts."""
    deck = scenario.profiles
    if not deck:
        return ()
    count = min(scenario.profiles_per_node, len(deck))
    return tuple(deck[(index + step) % len(deck)] for step in range(count))


def _specialist(profile: Profile) -> Specialist:
    return Specialist(
        profile=profile.name,
        model=profile.model or profile.name,
        digest=f"sha256:{profile.model or profile.name}",
        quantisation="Q8_0",
        context=profile.context,
        slots=profile.slots,
        domains=tuple(topic(domain).card for domain in profile.domains),
        batch_invariant=True,
    )
