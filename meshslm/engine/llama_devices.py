"""What llama.cpp was built for, and the devices it finds: `python -m meshslm.engine.llama_devices`.

Printed as one JSON document, by a process of its own: a driver may hang or abort, and the library
is heavy.

Rules:
- It changes nothing: no model is loaded, and no memory of a device is taken for longer than this
  process lives.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

import llama_cpp
from llama_cpp._ggml import libggml

from meshslm.limits import MIB

KINDS: Final = ("cpu", "gpu", "integrated gpu", "accelerator", "meta")
"""ggml's numbers of device types, by place."""
GPUS: Final = ("gpu", "integrated gpu")


@dataclass(frozen=True, slots=True)
class Device:
    """One device that llama.cpp can compute on."""

    name: str
    """Such as `CUDA0`."""
    description: str
    """What its maker calls it."""
    kind: str
    """One of `KINDS`."""
    free_mib: int
    total_mib: int


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = libggml[name]
    function.restype = result
    function.argtypes = arguments
    return function


def devices() -> tuple[Device, ...]:
    """All of them, the CPU included."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    get = _function("ggml_backend_dev_get", pointer, size)
    name = _function("ggml_backend_dev_name", ctypes.c_char_p, pointer)
    description = _function("ggml_backend_dev_description", ctypes.c_char_p, pointer)
    kind = _function("ggml_backend_dev_type", ctypes.c_int, pointer)
    memory = _function(
        "ggml_backend_dev_memory", None, pointer, ctypes.POINTER(size), ctypes.POINTER(size)
    )
    found = []
    for number in range(_function("ggml_backend_dev_count", size)()):
        device, free, total = get(number), size(), size()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        kind_number = kind(device)
        found.append(
            Device(
                name(device).decode(errors="replace"),
                description(device).decode(errors="replace"),
                KINDS[kind_number] if 0 <= kind_number < len(KINDS) else "unknown",
                free.value // MIB,
                total.value // MIB,
            )
        )
    return tuple(found)


def gpu_free_mib() -> int:
    """Free memory of all GPUs together; llama.cpp spreads a model's layers over them."""
    return sum(device.free_mib for device in devices() if device.kind in GPUS)


def main() -> int:
    """Run as a program; the exit code."""
    llama_cpp.llama_backend_init()
    told = {
        "version": llama_cpp.__version__,
        "system": llama_cpp.llama_print_system_info().decode(errors="replace"),
        "gpu": bool(llama_cpp.llama_supports_gpu_offload()),
        "devices": [asdict(device) for device in devices()],
    }
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
