"""What coordinators can be asked to decide, by name."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Act: TypeAlias = Literal[
    "rollout.begin",
    "rollout.end",
    "quota.set",
    "quota.grant",
    "quota.release",
    "revoke",
    "generation",
]

ACTS: tuple[Act, ...] = get_args(Act)
"""Every one of them."""
