"""Who fits a question to a coordinator, and who of them would be done first. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from meshslm import mesh_limits
from meshslm.wire.growth import Ask
from meshslm.wire.messages import Capability, EngineLoad, Specialist

ANSWER_TOKENS: Final = 128
"""Of an answer that nobody knows yet: some hundred words."""
ASSUMED_DECODE_TPS: Final = 20.0
"""Of an engine that measured nothing yet, to the pessimist: a fast one is soon found out."""
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


def busy(loads: tuple[EngineLoad, ...], age_ms: float = 0.0) -> tuple[bool, bool, float]:
    """The less, the better: a load of now, an engine that is ready, an answer that is done soon.

    `age_ms`: since the loads were told.
    """
    ready = [load for load in loads if load.ready]
    return age_ms > OLD_MS, not ready, min(map(_answer_ms, ready), default=0.0)


def _answer_ms(load: EngineLoad) -> float:
    writing = ANSWER_TOKENS / (load.decode_tps or ASSUMED_DECODE_TPS) * 1000.0
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
