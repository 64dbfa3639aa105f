"""What this machine is made of, as far as others need to know to judge its speed.

Rules:
- What a container is allowed counts, not what the machine has.
- llama.cpp is never loaded here: its devices are asked for in a process of its own, which may hang
  or die, and only where a backend for GPUs is installed at all.
- What the system does not tell is left out; nothing here raises.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from meshslm import limits
from meshslm.adapters import memory
from meshslm.wire.messages import Hardware

TOLD: Final = (
    "avx",
    "avx2",
    "f16c",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "neon",
    "asimd",
    "i8mm",
    "sve",
)
"""CPU flags that decide how fast llama.cpp is, as Linux names them; `asimd` is 64-bit NEON."""

BACKENDS: Final = {
    "cuda": "CUDA",
    "hip": "ROCm",
    "metal": "Metal",
    "vulkan": "Vulkan",
    "sycl": "SYCL",
    "cann": "CANN",
    "musa": "MUSA",
    "opencl": "OpenCL",
}
"""Part of a library's file name -> the backend of llama.cpp that it holds."""

PROBE: Final = (sys.executable, "-P", "-m", "meshslm.engine.llama_devices")
PROBE_S: Final = 60
"""A driver that sleeps takes some seconds, a cold disk more."""


class Device(msgspec.Struct, frozen=True):
    """A device that llama.cpp finds."""

    name: str
    description: str
    kind: str
    """`cpu`, `gpu`, `integrated gpu`, `accelerator` or `meta`."""
    free_mib: int
    total_mib: int


class Llama(msgspec.Struct, frozen=True):
    """What llama.cpp says of itself here."""

    version: str
    system: str
    """Instruction sets that it was built for."""
    gpu: bool
    devices: tuple[Device, ...]

    @property
    def gpus(self) -> tuple[Device, ...]:
        """Those that a model can be put on."""
        return tuple(device for device in self.devices if device.kind.endswith("gpu"))


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """llama.cpp could not be asked."""

    code: int | None
    """Exit code, negative for a signal; None where it took too long."""
    said: str
    """The last line of its error output."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Flags of the first processor; empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    if platform.machine() == "arm64":  # macOS tells it otherwise, and its chips all have it
        return frozenset({"neon", "asimd"})
    return frozenset()


def backends(folder: Path | None = None) -> tuple[str, ...]:
    """Backends for GPUs in the installed llama.cpp, told by its files; empty without any.

    `folder` holds its libraries; by default where Python would import it from.
    """
    folder = _libraries() if folder is None else folder
    if folder is None:
        return ()
    try:
        names = [path.name.lower() for path in folder.iterdir()]
    except OSError:
        return ()
    return tuple(
        backend
        for part, backend in BACKENDS.items()
        if any(name.startswith(("libggml-" + part, "ggml-" + part)) for name in names)
    )


def _libraries() -> Path | None:
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "lib"


def graphics(root: Path = Path("/")) -> tuple[str, ...]:
    """Backends that this machine has a GPU and driver for, whatever llama.cpp was built with."""
    if platform.system() == "Darwin":
        return ("Metal",)
    signs = {
        "CUDA": (root / "dev/nvidiactl", root / "proc/driver/nvidia/version"),
        "ROCm": (root / "dev/kfd",),
        "Vulkan": tuple((root / "dev").glob("dri/renderD*")),
    }
    return tuple(name for name, paths in signs.items() if any(path.exists() for path in paths))


def ask_llama(command: Sequence[str] = PROBE, *, limit_s: float = PROBE_S) -> Llama | ProbeFailed:
    """Ask llama.cpp in a process of its own; takes about a second, more with a GPU that sleeps."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return ProbeFailed(None, f"no answer within {limit_s:.0f} s")
    except OSError as error:
        return ProbeFailed(1, str(error))
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        return ProbeFailed(done.returncode, said[-1])
    try:
        return msgspec.json.decode(lines[-1], type=Llama)
    except msgspec.DecodeError as error:
        return ProbeFailed(done.returncode, f"it said {lines[-1][:100]!r}: {error}")


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: its affinity, or its control groups' quota if that is less.

    `root` is where `proc` and `sys` are.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    for quota in _quotas(root):
        count = min(count, max(1, int(quota + 0.5)))
    return count


def _quotas(root: Path) -> list[float]:
    """Processor time that control groups may take, in cores."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = root / "sys/fs/cgroup"
            texts = [_text(place / "cpu.max") for place in _upwards(top, path)]
        elif "cpu" in controllers.split(","):
            top = root / "sys/fs/cgroup/cpu"
            texts = [
                _text(place / "cpu.cfs_quota_us") + " " + _text(place / "cpu.cfs_period_us")
                for place in _upwards(top, path)
            ]
        else:
            continue
        for text in texts:
            quota, *period = text.split()[:2] or ["max"]
            if quota.isdecimal() and period and period[0].isdecimal() and int(period[0]):
                found.append(int(quota) / int(period[0]))
    return found


def _upwards(top: Path, path: str) -> list[Path]:
    """The folder of a control group and those around it."""
    folder = top / path.lstrip("/")
    return [place for place in (folder, *folder.parents) if place.is_relative_to(top)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def accelerator(found: Llama | ProbeFailed) -> str:
    """How a capability names the GPUs; empty without any that llama.cpp can use."""
    if isinstance(found, ProbeFailed) or not found.gpus:
        return ""
    first = found.gpus[0]
    more = f" and {len(found.gpus) - 1} more" if len(found.gpus) > 1 else ""
    text = f"{first.name}: {first.description}{more}, {sum(d.total_mib for d in found.gpus)} MiB"
    return text.encode()[: limits.NAME_BYTES].decode(errors="ignore")


def detect() -> Hardware:
    """Cores and memory that this process may use, CPU features, and the GPUs of llama.cpp."""
    flags = cpu_flags()
    return Hardware(
        cores=cores(),
        memory_mib=memory.read().total_mib,
        features=tuple(name for name in TOLD if name in flags),
        accelerator=accelerator(ask_llama()) if backends() else "",
    )
