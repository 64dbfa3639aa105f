"""Who fits a question to a coordinator, and who of them is the least busy. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meshslm.wire.growth import Ask
from meshslm.wire.messages import Capability, EngineLoad, Specialist


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


def busy(loads: tuple[EngineLoad, ...]) -> tuple[bool, int]:
    """The less, the better."""
    ready = [load for load in loads if load.ready]
    waiting = min((load.queued + (load.free_slots == 0) for load in ready), default=0)
    return not ready, waiting


def card_in(topic: str, capabilities: Iterable[Capability]) -> Capability | None:
    """The texts of a domain, as a capability of nothing else."""
    for capability in capabilities:
        for specialist in capability.specialists:
            for card in specialist.domains:
                if card.domain == topic and (card.sentence or card.examples):
                    return Capability(0, 0, (replace(specialist, domains=(card,)),))
    return None
