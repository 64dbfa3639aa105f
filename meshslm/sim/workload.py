"""The clients: who asks what, when, and who loses patience.

Rules:
- All draws come from the workload's own `Chance`; what happens to the mesh does not shift them,
  but for which nodes live when a client picks one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from meshslm.chance import Chance
from meshslm.core.events import TaskArrived, TaskDropped
from meshslm.ids import TaskId
from meshslm.sim.checkers import TaskChecker, TaskRecord
from meshslm.sim.corpus import topic
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.scenario import Profile, Scenario
from meshslm.sim.world import World
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest

NOTICE_US = SECOND // 10
"""Time between two looks whether a stopped node goes on."""


class Clients:
    """Sends tasks to the nodes of a world, from its start until the quiet time."""

    def __init__(
        self, world: World, scenario: Scenario, tasks: TaskChecker, chance: Chance
    ) -> None:
        self._world = world
        self._workload = scenario.workload
        self._tasks = tasks
        self._chance = chance
        self._until = int((scenario.seconds - scenario.quiet_s) * SECOND)
        self._profiles = _reachable(scenario)
        self._domains = _askable(self._profiles)

    def start(self) -> None:
        """Let the first client come."""
        if self._workload.tasks_per_second > 0 and self._domains:
            self._next(int(self._workload.start_s * SECOND))

    def _next(self, earliest: int) -> None:
        """Draw the next arrival: at the busiest rate, of which quieter hours keep their part."""
        curve = self._workload.curve
        peak = max(curve, default=1.0)
        when = earliest
        while True:
            gap = -log(1.0 - self._chance.unit()) / (self._workload.tasks_per_second * peak)
            when += int(gap * SECOND)
            if when > self._until:
                return
            hour = when / SECOND / self._workload.day_s
            if not curve or self._chance.unit() * peak < factor(curve, hour):
                self._world.call(when, self._arrive)
                return

    def _arrive(self) -> None:
        self._next(self._world.now)
        chance = self._chance
        task, request, domain, named = self._draw()
        patience = chance.between(0.05, 2.0) if chance.unit() < self._workload.cancel_share else 0.0
        living = [n for n in self._world.nodes if n.living and not n.leaving and not n.hostile]
        place = chance.unit()
        if not living:
            return
        node = living[int(place * len(living))]
        world = self._world
        self._tasks.submitted(TaskRecord(task, node, request, domain, named, world.now))
        world.tell(node, TaskArrived(task, request))
        if patience:
            when = world.now + int(patience * SECOND)
            world.call(when, lambda: self._give_up(node, task), node.life)

    def _give_up(self, node: SimNode, task: TaskId) -> None:
        world = self._world
        if node.hung:  # it notices when it goes on
            world.call(world.now + NOTICE_US, lambda: self._give_up(node, task), node.life)
        elif self._tasks.dropped(task, world.now):
            world.happen(node, TaskDropped(task))

    def _draw(self) -> tuple[TaskId, TaskRequest, str, str]:
        chance, workload = self._chance, self._workload
        domain = chance.pick(self._domains)
        prompt = chance.pick(topic(domain).prompts)
        kind = chance.unit()
        if kind < workload.domain_share:
            named, selector = "domain", f"domain:{domain}"
        elif kind < workload.domain_share + workload.model_share:
            hosts = [p for p in self._profiles if domain in p.domains]
            named, selector = "model", chance.pick(hosts).name
        else:
            named, selector = "auto", "auto"
        is_long = chance.unit() < workload.long_share
        low, high = workload.tokens_long if is_long else workload.tokens_short
        request = TaskRequest(
            selector,
            (ChatMessage("user", prompt),),
            max_tokens=low + chance.below(high - low + 1),
            choices=2 if chance.unit() < workload.choices_share else 1,
            sampling=Sampling(seed=chance.below(2**31)),
            deadline_ms=int(workload.deadline_s * 1000),
        )
        return chance.task_id(), request, domain, named


def factor(curve: Sequence[float], days: float) -> float:
    """The height of a curve that repeats each day, so many days after its beginning."""
    place = days % 1.0 * len(curve)
    step = min(int(place), len(curve) - 1)
    here, there = curve[step], curve[(step + 1) % len(curve)]
    return here + (there - here) * (place - step)


def _reachable(scenario: Scenario) -> tuple[Profile, ...]:
    """Profiles that some node hosts: a small mesh may be too small for all."""
    dealt = scenario.nodes - 1 + scenario.profiles_per_node if scenario.profiles_per_node else 0
    return scenario.profiles[:dealt]


def _askable(profiles: tuple[Profile, ...]) -> tuple[str, ...]:
    """Domains that clients have prompts for."""
    named = dict.fromkeys(domain for profile in profiles for domain in profile.domains)
    return tuple(domain for domain in named if topic(domain).prompts)
