"""Why a worker process ended, as far as can be told from outside it.

Memory runs out in several ways: the kernel kills the process; its own limit has an allocation fail,
which ends Python by an exception, C++ by an abort, and OpenMP by a word and exit code 1.
"""

from __future__ import annotations

import signal
from typing import Final

OUT_OF_MEMORY: Final = (
    "MemoryError",
    "bad_alloc",
    "Cannot allocate memory",
    "failed to allocate",
    "out of memory",
    "Thread creation failed",
)
"""Words of Python, C++, the C library, llama.cpp and OpenMP (whose threads need stacks)."""


def cause_of_death(code: int, words: str, *, oom_kills: int, private_mib: int) -> str:
    """In words for the log and for clients.

    `code` is its exit code, negative for a signal, `words` what it said last; `oom_kills` says how
    often the kernel killed for memory while it lived, `private_mib` its limit (0: none).
    """
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    if code == -signal.SIGKILL and oom_kills:
        how += ": the system ran out of memory, and the kernel killed it"
    elif code == -signal.SIGKILL:
        how += ", which is how a system that runs out of memory ends a process"
    lines = [line for line in words.strip().splitlines() if line.strip()]
    last = f": {lines[-1].strip()}" if lines else ""
    if any(word in words for word in OUT_OF_MEMORY):
        limit = f", of which it may have {private_mib} MiB" if private_mib else ""
        last += f" (it ran out of memory{limit})"
    return f"the worker ended {how}{last}"
