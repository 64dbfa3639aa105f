"""By what the best of several who can answer may be found: the names, which weigh nothing.

`core.strategies` says what each means.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Strategy: TypeAlias = Literal[
    "auto",
    "round-robin",
    "least-connections",
    "response-time",
    "capacity",
    "prefix",
    "cost",
    "local-first",
]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""Every one of them."""
