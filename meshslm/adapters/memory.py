"""How much memory this process may count on: the machine's, or its control group's if that is less.

Rules:
- Memory that holds files which could be read again counts as available, as the kernel has it.
- What the system does not tell counts as no limit; without /proc/meminfo nothing is known (0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshslm.limits import KIB, MIB

UNLIMITED: Final = 2**60
"""Control groups of version 1 write a number of about this size where there is no limit."""
_V1_FILES: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2_FILES: Final = ("memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes."""

    total: int
    available: int

    @property
    def total_mib(self) -> int:
        """Rounded down."""
        return self.total // MIB

    @property
    def available_mib(self) -> int:
        """Rounded down."""
        return self.available // MIB


def read(root: Path = Path("/")) -> Memory:
    """As it is now. `root` is where `proc` and `sys` are."""
    told = _meminfo(root / "proc/meminfo")
    total = told.get("MemTotal", 0)
    available = told.get("MemAvailable", told.get("MemFree", 0))
    for group, files in _groups(root):
        limit, free = _group(group, files)
        total, available = min(total, limit), min(available, free)
    return Memory(total, available)


def oom_kills(root: Path = Path("/")) -> int:
    """How often the kernel has killed a process for memory since it started; 0 if it won't say."""
    for line in _text(root / "proc/vmstat").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdecimal():
            return int(count)
    return 0


def _meminfo(path: Path) -> dict[str, int]:
    told = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdecimal():
            told[name] = int(fields[0]) * KIB
    return told


def _groups(root: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """Folders of this process's control group and of those around it."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, files = root / "sys/fs/cgroup", _V2_FILES
        elif "memory" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/memory", _V1_FILES
        else:
            continue
        folder = top / path.lstrip("/")
        for place in (folder, *folder.parents):
            found.append((place, files))
            if place == top:
                break
    return found


def _group(folder: Path, files: tuple[str, str, str]) -> tuple[int, int]:
    """Limit of a control group and what it has left, files that it could drop included."""
    limit_file, usage_file, droppable = files
    limit = _text(folder / limit_file).strip()
    if not limit.isdecimal() or int(limit) >= UNLIMITED:
        return UNLIMITED, UNLIMITED
    usage = _text(folder / usage_file).strip()
    stat = dict(
        line.split(maxsplit=1)
        for line in _text(folder / "memory.stat").splitlines()
        if len(line.split()) == 2
    )
    used = int(usage) if usage.isdecimal() else 0
    kept = stat.get(droppable, "0")
    used -= int(kept) if kept.isdecimal() else 0
    return int(limit), max(0, int(limit) - max(0, used))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
