"""What this machine is made of, as far as others need to know to judge its speed."""

from __future__ import annotations

import os
from pathlib import Path

from meshslm.wire.messages import Hardware

TOLD = (
    "avx",
    "avx2",
    "f16c",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "sve",
)
"""CPU flags that decide how fast llama.cpp is."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Flags of the first processor; empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def detect() -> Hardware:
    """Cores this process may use, memory of the machine, CPU features."""
    flags = cpu_flags()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware(
        cores=len(os.sched_getaffinity(0)),
        memory_mib=memory // 2**20,
        features=tuple(name for name in TOLD if name in flags),
    )
