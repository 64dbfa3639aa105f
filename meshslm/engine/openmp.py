"""How the libraries' own threads wait; to be settled before llama.cpp and numpy are loaded.

Threads of a step meet at a barrier many times a token. One that sleeps there at once is woken at a
cost that is higher than the wait: on two free cores, 2 threads that slept made 28 tokens/s, those
that looked again a few thousand times first 67 (8 at a time: 104 and 174). One that looks for long
takes the core from whom it waits for: beside a busy neighbour, libgomp's usual 300,000 looks left
2 tokens/s of 42. About 2,000 looks (some 50 us) have nearly all of the gain, and beside a neighbour
cost 2 threads a half of what 1 makes, which the choice of threads then finds.
Measured by `python -m bench neighbour` with other values of the variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SPINS: Final = 2000
"""Looks at a barrier before a thread sleeps."""


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables to set in `environment`; what the user has set stays."""
    ours = {
        "GOMP_SPINCOUNT": str(SPINS),  # GCC's OpenMP
        "OMP_WAIT_POLICY": "passive",  # any other
        "OPENBLAS_NUM_THREADS": "1",  # numpy's algebra, which nothing here uses
    }
    return {name: value for name, value in ours.items() if name not in environment}
