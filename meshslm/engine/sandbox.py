"""What a worker gives up before it reads a model: llama.cpp parses files that others have made.

In this order: the kernel may kill it first when memory runs out, it dumps no core, it opens few
files and writes none, it gains no privileges, drops those it has, sees few files (Landlock) and
makes few system calls (seccomp).

Rules:
- It is entered by one thread, before there are others: a confined thread passes it on to those that
  it starts, and to no others.
- What the system cannot do is told by name, and the worker goes on without it, unless all of it was
  required.
"""

from __future__ import annotations

import ctypes
import resource
import struct
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshslm.engine import landlock, seccomp
from meshslm.errors import OurFault
from meshslm.limits import MIB

OPEN_FILES: Final = 256
"""A model of many parts, and what libraries hold open."""
OOM_SCORE: Final = 500
"""Out of 1000, added to a process's share of the memory: the worker goes, the daemon stays."""

SYSTEM_FILES: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/sys/devices/system",
    "/dev/urandom",
)
"""What Python, its libraries and llama.cpp read while they run; nothing of it is anybody's own."""
NULL_DEVICES: Final = ("/dev/null", "/dev/zero")
GPU_DEVICES: Final = (
    "/dev/dri",
    "/dev/kfd",
    "/dev/nvidia0",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
)

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAP_DAC_READ_SEARCH: Final = 1 << 2
"""Kept where the worker has it: whoever runs as root may keep models that root does not own."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What came of it."""

    held: tuple[str, ...]
    """What confines this process now."""
    lacking: tuple[str, ...]
    """What does not, and why."""


def possible() -> Confinement:
    """What this system can do; changes nothing."""
    held, lacking = [], []
    version = landlock.version()
    if version:
        held.append(f"files (Landlock {version})")
    else:
        lacking.append("files: the kernel was built or started without Landlock")
    why = seccomp.supported()
    if why:
        lacking.append(f"system calls: {why}")
    else:
        held.append("system calls (seccomp)")
    return Confinement(tuple(held), tuple(lacking))


def enter(
    model: Path,
    *,
    readable: Sequence[str] = (),
    writable: Sequence[str] = (),
    private_mib: int = 0,
    gpu: bool = False,
    required: bool = False,
) -> Confinement:
    """Give up all but `model`, what is `readable`, and folders that are `writable`.

    `private_mib` bounds memory that is not a mapped file. Raises `OurFault` where all of it was
    `required` and something is lacking.
    """
    held = ["limits"]
    lacking = [] if _alone() else ["some threads: they were started before the sandbox"]
    _set_limits(private_mib, writes=bool(writable))
    if sys.platform == "linux":
        _step_forward_for_the_oom_killer()
        _LIBC.prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _drop_capabilities()
    files = [str(model.resolve()), *readable, *_python_folders(), *SYSTEM_FILES]
    devices = [*NULL_DEVICES, *(GPU_DEVICES if gpu else ())]
    why = landlock.confine([*files, *(("/sys", "/proc") if gpu else ())], writable, devices)
    if why:
        lacking.append(f"files: {why}")
    else:
        held.append(f"files (Landlock {landlock.version()})")
    why = seccomp.install()
    if why:
        lacking.append(f"system calls: {why}")
    else:
        held.append("system calls (seccomp)")
    if lacking and required:
        raise OurFault(f"a sandbox is required, and this system cannot confine {lacking[0]}")
    return Confinement(tuple(held), tuple(lacking))


def _alone() -> bool:
    """Whether this process has one thread; where the system does not tell, it counts as so."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return True


def _set_limits(private_mib: int, *, writes: bool) -> None:
    bounds = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, OPEN_FILES)]
    if not writes:
        bounds.append((resource.RLIMIT_FSIZE, 0))
    if private_mib:
        bounds.append((resource.RLIMIT_DATA, private_mib * MIB))
    for what, bound in bounds:
        _, hard = resource.getrlimit(what)
        most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (most, most))


def _step_forward_for_the_oom_killer() -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    except OSError:
        pass  # a container may forbid it; then the kernel chooses by size alone


def _drop_capabilities() -> None:
    """Give up all privileges of root but that of reading; without effect for others."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    told = ctypes.create_string_buffer(24)
    if _LIBC.capget(header, told) != 0:
        return
    effective, permitted, _, _, _, _ = struct.unpack("=6I", told.raw)
    kept = (effective & _CAP_DAC_READ_SEARCH, permitted & _CAP_DAC_READ_SEARCH, 0, 0, 0, 0)
    _LIBC.capset(header, struct.pack("=6I", *kept))


def _python_folders() -> list[str]:
    """Where Python, the installed packages and this program are."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {str(Path(prefix) / "lib") for prefix in (sys.prefix, sys.base_prefix)}
    places.add(str(Path(__file__).resolve().parent.parent))
    return sorted(places)
