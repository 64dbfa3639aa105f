"""Strategies: by what candidates are ranked, once filters and scorers are done with them.

Rules:
- A strategy is a pure function from the facts, a candidate and its terms to a sort key; the least
  is asked.
- Filters hold under every strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from meshslm.core.candidates import Candidate, Terms
from meshslm.core.route_costs import decode_tps, price, waiting, warm_tokens
from meshslm.core.route_facts import Facts

Key = tuple[float, ...]
Strategy = Callable[[Facts, Candidate, Terms], Key]

AUTO: Final = "auto"


def auto(_facts: Facts, _candidate: Candidate, terms: Terms) -> Key:
    """The least expected cost of all terms together."""
    return (terms.total,)


def round_robin(facts: Facts, candidate: Candidate, _terms: Terms) -> Key:
    """Whose turn here is longest ago."""
    return (float(facts.measured.turn(candidate)),)


def least_connections(facts: Facts, candidate: Candidate, _terms: Terms) -> Key:
    """Who has the fewest runs, waiting ones too."""
    load = candidate.load
    runs = load.running + load.queued if load is not None else 0
    return (float(runs + facts.measured.pending(candidate)),)


def response_time(facts: Facts, candidate: Candidate, terms: Terms) -> Key:
    """Who answered fastest so far, as measured here; strangers by what they promise."""
    return (facts.measured.response_ms(candidate) or terms.network,)


def capacity(facts: Facts, candidate: Candidate, _terms: Terms) -> Key:
    """Who has most tokens a second to spare; of the full, who has most for each that waits."""
    load = candidate.load
    tps = decode_tps(facts, candidate)
    if load is None or not load.ready:
        return (1.0, -tps)
    free = load.free_slots - facts.measured.pending(candidate)
    if free > 0:
        return (0.0, -free * tps)
    return (0.5, waiting(facts, candidate) / (tps * max(1, candidate.specialist.slots)))


def prefix(facts: Facts, candidate: Candidate, terms: Terms) -> Key:
    """Who has most of the prompt warm; among equals the cheapest."""
    return (-warm_tokens(facts, candidate), terms.total)


def cost(facts: Facts, candidate: Candidate, terms: Terms) -> Key:
    """Who asks for least money, then for least energy; among equals the cheapest."""
    return (price(facts, candidate), terms.power, terms.total)


def local_first(_facts: Facts, candidate: Candidate, terms: Terms) -> Key:
    """This node, where it can; else the cheapest."""
    return (0.0 if candidate.local and not candidate.upstream else 1.0, terms.total)


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        AUTO: auto,
        "round-robin": round_robin,
        "least-connections": least_connections,
        "response-time": response_time,
        "capacity": capacity,
        "prefix": prefix,
        "cost": cost,
        "local-first": local_first,
    }
)
