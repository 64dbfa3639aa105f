"""Processes on cores of their own, as nodes on machines of their own would be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import psutil


def cores() -> list[int]:
    """The cores that this process may use; empty where a system cannot tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def keep_to(cores: Iterable[int], *pids: int) -> None:
    """Keep processes, with their children and all threads of these, to some cores (Linux)."""
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            _keep(one, set(cores))


def stay_on(cores: Iterable[int]) -> None:
    """Keep this process to some cores, and none of its children."""
    _keep(psutil.Process(), set(cores))


def _keep(process: psutil.Process, cores: set[int]) -> None:
    for thread in process.threads():
        with suppress(ProcessLookupError):  # it is over
            os.sched_setaffinity(thread.id, cores)
