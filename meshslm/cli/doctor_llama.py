"""What `meshslm doctor` says of llama.cpp: whether it loads, and what of this machine it uses.

Rules:
- Facts are handed in: what the CPU can do, what llama.cpp said of itself, which GPUs there are.
- Where a build leaves something unused, the advice is the line that builds it otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from meshslm.cli.doctor_checks import Finding, Verdict

if TYPE_CHECKING:
    from meshslm.adapters.hardware import Llama, ProbeFailed

WANTED_FEATURES: Final = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX_VNNI",
    "amx_int8": "AMX_INT8",
    "fma": "FMA",
    "asimd": "NEON",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
"""CPU flag as Linux names it -> its name in llama.cpp's system line; those that decide speed."""

BUILD_OPTIONS: Final = {
    "CUDA": "-DGGML_CUDA=on",
    "ROCm": "-DGGML_HIP=on",
    "Metal": "-DGGML_METAL=on",
    "Vulkan": "-DGGML_VULKAN=on",
}
"""What llama.cpp is built with for a kind of GPU."""

TOOLKITS: Final = {
    "CUDA": "the CUDA toolkit (nvcc)",
    "ROCm": "ROCm's compiler (hipcc)",
    "Metal": "Xcode's command line tools",
    "Vulkan": "the Vulkan headers and glslc",
}
"""What building it needs beside a C++ compiler."""


def rebuild(version: str = "", options: str = "") -> str:
    """The command that builds llama.cpp anew here; about ten minutes on two cores.

    The version stays the one that this program was tested with.
    """
    package = f"llama-cpp-python=={version}" if version else "llama-cpp-python"
    return (
        f"{f'CMAKE_ARGS={options!r} ' if options else ''}pip install --force-reinstall --no-deps "
        f"--no-cache-dir --no-binary llama-cpp-python {package}"
    )


def check_llama(
    cpu_flags: Iterable[str], found: Llama | ProbeFailed, graphics: Collection[str]
) -> list[Finding]:
    """Whether llama.cpp loads, which instructions it was built for, and which accelerators."""
    from meshslm.adapters.hardware import ProbeFailed

    if isinstance(found, ProbeFailed):
        return [_missing(found)]
    ok = Finding("llama.cpp", Verdict.OK, f"{found.version}, needs no compiler at run time")
    return [ok, _cpu(found, set(cpu_flags)), _accelerator(found, graphics)]


def _missing(failed: ProbeFailed) -> Finding:
    if failed.code is None:
        advice = "the machine is overloaded, or a disk or driver hangs; try again when it is idle"
        return Finding("llama.cpp", Verdict.FAIL, failed.said, advice)
    if failed.code < 0:
        advice = f"it was built for another CPU; build it for this one: {rebuild()}"
        return Finding("llama.cpp", Verdict.FAIL, f"died of signal {-failed.code}", advice)
    advice = "this node can route but host no model; for that: pip install 'meshslm[engine]'"
    return Finding("llama.cpp", Verdict.FAIL, failed.said, advice)


def _cpu(found: Llama, present: set[str]) -> Finding:
    built = [name for name in WANTED_FEATURES.values() if f"{name} = 1" in found.system]
    unused = [
        name
        for flag, name in WANTED_FEATURES.items()
        if flag in present and f"{name} = 1" not in found.system
    ]
    detail = f"built for {', '.join(built) or 'no vector instructions'}"
    if unused:
        line = rebuild(found.version, "-DGGML_NATIVE=on")
        advice = f"this CPU can do more; build it for this one: {line}"
        return Finding("cpu", Verdict.WARN, f"{detail}; not for {', '.join(unused)}", advice)
    return Finding("cpu", Verdict.OK, detail)


def _accelerator(found: Llama, graphics: Collection[str]) -> Finding:
    if found.gpus:
        listed = ", ".join(
            f"{d.name} ({d.description}, {d.free_mib} of {d.total_mib} MiB free)"
            for d in found.gpus
        )
        return Finding("accelerator", Verdict.OK, listed)
    kind = next((name for name in BUILD_OPTIONS if name in graphics), "")
    if found.gpu:
        advice = "check its driver, and that this user, or the container, may use the device"
        detail = "a GPU backend is compiled in, and finds no device"
        return Finding("accelerator", Verdict.WARN, detail, advice if kind else "")
    if not kind:
        return Finding("accelerator", Verdict.OK, "none here: models run on the CPU")
    line = rebuild(found.version, BUILD_OPTIONS[kind])
    advice = f"to use it, install {TOOLKITS[kind]}, then run: {line}"
    detail = f"there is a GPU ({kind}), and llama.cpp was built without: models run on the CPU"
    return Finding("accelerator", Verdict.WARN, detail, advice)
