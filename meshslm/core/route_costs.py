"""Scorers of a choice: what asking one candidate is expected to cost, each in milliseconds.

Rules:
- Each is a pure function of the facts and one candidate, and never negative.
- More of what is bad never makes a term smaller: a candidate that is better in everything is never
  ranked below (a law that is tested).
- What was measured at this origin goes before what a candidate says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshslm import limits
from meshslm.core.candidates import Candidate, Terms
from meshslm.core.route_facts import CHARACTERS_PER_TOKEN, Facts
from meshslm.ids import NodeId

ASSUMED_TPS: Final = (200.0, 50.0)
"""Speeds, of prompts and of answers, where no engine of a profile measured any: half of a small
model on two cores."""
ASSUMED_RTT_MS: Final = 50.0
ASSUMED_LOAD_MS: Final = 5_000.0
"""A load from disk takes about as long."""

MS_PER_PRICE: Final = 100_000.0
"""One unit of price is worth so much waiting: a hundredth of a unit, a second (a guess)."""
BATTERY_LOW: Final = 0.5
HOT_C: Final = 75.0
HOT_SPAN_C: Final = 20.0
"""From 75 °C on work costs more, at 95 °C twice: about where processors slow themselves down."""
METERED_MS: Final = 250.0
"""For going through a link that is paid for by volume (a guess)."""
FAILURE_MS: Final = 3_000.0
"""What a failed attempt costs: `limits.ACCEPT_MS`, until it is noticed."""
STAY_MS: Final = 100.0
"""For leaving a conversation's node, beside what has to be computed again: what its digest does
not tell (a guess)."""


def network(_facts: Facts, candidate: Candidate) -> float:
    """There and back."""
    if candidate.local:
        return 0.0
    return ASSUMED_RTT_MS if candidate.rtt_ms is None else candidate.rtt_ms


def decode_tps(facts: Facts, candidate: Candidate) -> float:
    """Tokens a second of one stream, told and measured."""
    told = _told(candidate.load.decode_tps) if candidate.load else 0.0
    return facts.measured.decode_tps(candidate, told or _usual(facts, candidate)[1])


def _told(tps: float) -> float:
    """A speed as a peer tells it, or 0 for none: never so small that a time has no end."""
    return max(tps, limits.LEAST_TPS) if tps > 0.0 else 0.0


def _usual(facts: Facts, candidate: Candidate) -> tuple[float, float]:
    return facts.usual.get(candidate.specialist.profile, ASSUMED_TPS)


def usual_speeds(candidates: Iterable[Candidate]) -> dict[str, tuple[float, float]]:
    """What to expect of engines that measured nothing: what those of the same profile told.

    Prompt and answer tokens a second, by profile. Times are what is averaged, not rates, so that a
    stranger counts as one of the slower half: that costs a try later, the opposite a slow answer.
    """
    times: dict[str, tuple[int, float, float]] = {}
    for candidate in candidates:
        load = candidate.load
        if load is not None and load.decode_tps > 0.0 and load.prefill_tps > 0.0:
            count, reading, writing = times.get(candidate.specialist.profile, (0, 0.0, 0.0))
            reading += 1.0 / _told(load.prefill_tps)
            writing += 1.0 / _told(load.decode_tps)
            times[candidate.specialist.profile] = (count + 1, reading, writing)
    return {
        profile: (count / reading, count / writing)
        for profile, (count, reading, writing) in times.items()
    }


def decode(facts: Facts, candidate: Candidate) -> float:
    """Writing the answer."""
    if not facts.answer_tokens:
        return 0.0
    return facts.answer_tokens / decode_tps(facts, candidate) * 1000.0


def warm_tokens(facts: Facts, candidate: Candidate) -> float:
    """Tokens of the prompt that need not be computed there: by its digest, or by what it did."""
    load = candidate.load
    warm = 0
    if load is not None and load.prefixes:
        warm = _warm_characters(facts, load.prefixes)
    stay = facts.stay
    if stay is not None and (stay.node, stay.profile) == _place(candidate):
        warm = max(warm, stay.characters)
    return warm / CHARACTERS_PER_TOKEN


def _place(candidate: Candidate) -> tuple[str, str]:
    return candidate.node, candidate.specialist.profile


def _warm_characters(facts: Facts, announced: bytes) -> int:
    size = limits.PREFIX_MARK_BYTES
    for mark, end in zip(reversed(facts.marks), reversed(facts.ends), strict=True):
        at = announced.find(mark)
        while at >= 0 and at % size:
            at = announced.find(mark, at + 1)
        if at >= 0:
            return end
    return 0


def prefill(facts: Facts, candidate: Candidate) -> float:
    """Computing what of the prompt is not warm."""
    tps = _told(candidate.load.prefill_tps) if candidate.load else 0.0
    tps = tps or _usual(facts, candidate)[0]
    cold = facts.prompt_tokens - warm_tokens(facts, candidate)
    return max(0.0, cold) / tps * 1000.0


def waiting(facts: Facts, candidate: Candidate) -> int:
    """Runs before which one that comes now would have to wait for a slot, this one among them."""
    load, slots = candidate.load, max(1, candidate.specialist.slots)
    if load is None:
        return 0
    pending = facts.measured.pending(candidate)
    free = load.free_slots if load.ready else slots
    return max(0, load.queued + pending + min(facts.request.choices, slots) - free)


def run_ms(facts: Facts, candidate: Candidate) -> float:
    """How long a slot is taken by a run: measured there, else what this one would take."""
    load = candidate.load
    if load is not None and load.run_ms > 0.0:
        return load.run_ms
    return decode(facts, candidate) + prefill(facts, candidate)


def queue(facts: Facts, candidate: Candidate) -> float:
    """Until a slot is free, by how fast its slots become free."""
    slots, told = max(1, candidate.specialist.slots), candidate.load
    if told is not None and told.wait_ms > 0.0:
        since = facts.measured.pending(candidate)
        return told.wait_ms + since / slots * run_ms(facts, candidate)
    return waiting(facts, candidate) / slots * run_ms(facts, candidate)


def load(_facts: Facts, candidate: Candidate) -> float:
    """Until its model is in memory."""
    told = candidate.load
    if told is not None and told.ready:
        return 0.0
    return (told.load_ms if told is not None else 0.0) or ASSUMED_LOAD_MS


def price(facts: Facts, candidate: Candidate) -> float:
    """What it asks for, as time."""
    tokens = facts.prompt_tokens + facts.answer_tokens
    return tokens / 1e6 * candidate.specialist.price * MS_PER_PRICE


def power(work_ms: float, candidate: Candidate) -> float:
    """That it is hot, runs on its battery, or pays for its link."""
    told = candidate.hardware
    if candidate.local and not (told.on_battery or told.temperature_c):
        return 0.0
    extra = 0.0
    if told.on_battery:
        extra += 0.25 + max(0.0, BATTERY_LOW - told.battery) / BATTERY_LOW
    extra += min(1.0, max(0.0, told.temperature_c - HOT_C) / HOT_SPAN_C)
    metered = METERED_MS if told.metered and not candidate.local else 0.0
    return work_ms * extra + metered


def reliability(facts: Facts, candidate: Candidate) -> float:
    """What it may cost that it fails, as often as it did."""
    return facts.measured.failing(candidate) * FAILURE_MS


def trust(facts: Facts, candidate: Candidate) -> float:
    """How much later than it promised its answers begin."""
    return facts.measured.late_ms(candidate)


def sticky(facts: Facts, candidate: Candidate) -> float:
    """For leaving the node where a conversation is."""
    stay = facts.stay
    return 0.0 if stay is None or stay.node == NodeId(candidate.node) else STAY_MS


def terms_of(facts: Facts, candidate: Candidate) -> Terms:
    """All terms of a candidate."""
    reading, writing = prefill(facts, candidate), decode(facts, candidate)
    return Terms(
        network(facts, candidate),
        queue(facts, candidate),
        reading,
        writing,
        load(facts, candidate),
        price(facts, candidate),
        power(reading + writing, candidate),
        reliability(facts, candidate),
        trust(facts, candidate),
        sticky(facts, candidate),
    )
