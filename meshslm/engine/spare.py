"""What is left of memory now, for a worker that wants more than it was loaded with.

The daemon asks before it loads a model. Adapters and the scoring of prompts come later, when other
programs may have taken what was free then; a worker that took more all the same would be killed,
with everything that runs on it.

Rules:
- What the system does not tell counts as no limit.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

from meshslm.errors import FaultCode, RequestFault
from meshslm.limits import KIB, MIB

RESERVE_MIB: Final = 64
"""Left free beside what is asked for: buffers of the steps that run meanwhile (a guess)."""
_PROC: Final = Path("/proc")


def spare_mib(proc: Path = _PROC) -> float:
    """Memory, in MiB, that this process can still take; infinite where nobody says."""
    left = [float("inf")]
    available = _field(proc / "meminfo", "MemAvailable")
    if available is not None:
        left.append(available * KIB / MIB)
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    taken = _field(proc / "self/status", "VmData")
    if most != resource.RLIM_INFINITY and taken is not None:
        left.append((most - taken * KIB) / MIB)
    return max(0.0, min(left))


def require(what: str, need_mib: float) -> None:
    """Raise `RequestFault` (overloaded) where there is no room for `what`."""
    spare = spare_mib()
    if need_mib + RESERVE_MIB > spare:
        raise RequestFault(
            FaultCode.OVERLOADED,
            f"{what} needs {need_mib:.0f} MiB beside a reserve of {RESERVE_MIB}, and this node has "
            f"{spare:.0f} MiB left",
        )


def _field(path: Path, name: str) -> int | None:
    """A number of a file of lines such as `Name:  123 kB`."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key == name and rest.split()[:1] and rest.split()[0].isdecimal():
            return int(rest.split()[0])
    return None
