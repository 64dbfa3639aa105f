"""Who fits a question to a coordinator, and who of them would be done first. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from meshslm import limits, mesh_limits
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.growth import Ask
from meshslm.wire.messages import Capability, EngineLoad, Presence, Specialist

Known = tuple[NodeId, Capability, Presence, Instant]
"""Who, what it is, how busy it said that it is, and when."""
ANSWER_TOKENS: Final = 128
"""Of an answer where who asks does not know: some hundred words."""
ASSUMED_DECODE_TPS: Final = 20.0
"""Of an engine that measured nothing where no other did either."""
OLD_MS: Final = 2.0 * mesh_limits.IDLE_PRESENCE_MS
"""A provider would have told its load again by then: it tells it to others, or is gone."""


def fits(specialist: Specialist, ask: Ask) -> bool:
    """Whether a specialist is what is looked for."""
    domains = [card.domain for card in specialist.domains]
    kind, _, of = ask.topic.partition(":")
    on_topic = (
        ask.topic in domains
        or (kind == "model" and specialist.model == of and not domains)
        or (kind == "operation" and of in specialist.operations)
    )
    return (
        on_topic
        and (not ask.name or ask.name in (specialist.profile, specialist.model))
        and (not ask.adapter or ask.adapter in specialist.adapters)
        and (not ask.operation or ask.operation in specialist.operations)
    )


def busy(
    loads: tuple[EngineLoad, ...],
    age_ms: float = 0.0,
    usual_tps: float = ASSUMED_DECODE_TPS,
    tokens: int = ANSWER_TOKENS,
) -> tuple[bool, bool, float]:
    """The less, the better: a load of now, an engine that is ready, an answer that is done soon.

    `age_ms`: since the loads were told; `usual_tps`: of engines that measured nothing; `tokens`: of
    the answer.
    """
    ready = [load for load in loads if load.ready]
    soonest = min((_answer_ms(load, usual_tps, tokens) for load in ready), default=0.0)
    return age_ms > OLD_MS, not ready, soonest


def soonest_first(known: Iterable[Known], tokens: int, now: Instant) -> list[Known]:
    """Who would be done first with so many tokens before others, as far as was told."""
    found = list(known)
    usual = usual_decode_tps(presence.loads for _, _, presence, _ in found)
    tokens = tokens or ANSWER_TOKENS
    return sorted(found, key=lambda one: busy(one[2].loads, ms_between(one[3], now), usual, tokens))


def usual_decode_tps(everybody: Iterable[tuple[EngineLoad, ...]]) -> float:
    """Of those who told theirs, the mean of their times."""
    told = [load.decode_tps for loads in everybody for load in loads if load.decode_tps]
    times = [1.0 / max(limits.LEAST_TPS, tps) for tps in told]
    return len(times) / sum(times) if times else ASSUMED_DECODE_TPS


def _answer_ms(load: EngineLoad, usual_tps: float, tokens: int) -> float:
    writing = tokens / max(limits.LEAST_TPS, load.decode_tps or usual_tps) * 1000.0
    if load.free_slots:
        return writing
    return writing + (load.wait_ms or (load.queued + 1) * (load.run_ms or writing))


def card_in(topic: str, capabilities: Iterable[Capability]) -> Capability | None:
    """The texts of a domain, as a capability of nothing else."""
    for capability in capabilities:
        for specialist in capability.specialists:
            for card in specialist.domains:
                if card.domain == topic and (card.sentence or card.examples):
                    return Capability(0, 0, (replace(specialist, domains=(card,)),))
    return None
