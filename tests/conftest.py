"""What all tests have in common: how hypothesis searches.

Rules:
- In CI the search is the same in every run, so that a red build is red again.
- No deadlines: on a busy machine a slow example says nothing about the code.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("local", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "local")
