"""What the doctor says of llama.cpp, from what it was told of it."""

from __future__ import annotations

import pytest

from meshslm.adapters.hardware import Device, Llama, ProbeFailed
from meshslm.cli.doctor_checks import Finding, Verdict
from meshslm.cli.doctor_llama import check_llama, rebuild

CPU = Device("CPU", "Some CPU", "cpu", 1000, 2000)
GPU = Device("CUDA0", "Some GPU", "gpu", 7000, 8000)


def llama(*devices: Device, system: str = "AVX2 = 1 |", gpu: bool = False) -> Llama:
    return Llama("1.2.3", system, gpu, devices)


def accelerator(found: Llama, *graphics: str) -> Finding:
    library, cpu, said = check_llama(["avx2"], found, graphics)
    assert (library.verdict, cpu.verdict) == (Verdict.OK, Verdict.OK)
    assert "1.2.3" in library.detail
    return said


def test_llama_that_is_missing() -> None:
    (finding,) = check_llama([], ProbeFailed(1, "No module named 'llama_cpp'"), ())
    assert finding.verdict is Verdict.FAIL
    assert "llama_cpp" in finding.detail
    assert "meshslm[engine]" in finding.advice


def test_llama_built_for_another_cpu() -> None:
    (finding,) = check_llama([], ProbeFailed(-4, ""), ())
    assert finding.verdict is Verdict.FAIL
    assert "signal 4" in finding.detail
    assert "build it" in finding.advice


def test_llama_that_hangs() -> None:
    (finding,) = check_llama([], ProbeFailed(None, "no answer within 60 s"), ())
    assert finding.verdict is Verdict.FAIL
    assert "60 s" in finding.detail


def test_a_build_that_leaves_instructions_unused_is_a_warning() -> None:
    _, cpu, _ = check_llama(["avx2", "avx512f", "sve2"], llama(CPU), ())
    assert cpu.verdict is Verdict.WARN
    assert cpu.detail == "built for AVX2; not for AVX512"
    assert "llama-cpp-python==1.2.3" in cpu.advice


def test_gpus_are_listed() -> None:
    said = accelerator(llama(CPU, GPU, gpu=True), "CUDA")
    assert said.verdict is Verdict.OK
    assert said.detail == "CUDA0 (Some GPU, 7000 of 8000 MiB free)"


@pytest.mark.parametrize(
    ("graphics", "options"),
    [
        (("CUDA", "Vulkan"), "'-DGGML_CUDA=on'"),
        (("ROCm", "Vulkan"), "'-DGGML_HIP=on'"),
        (("Vulkan",), "'-DGGML_VULKAN=on'"),
        (("Metal",), "'-DGGML_METAL=on'"),
    ],
)
def test_a_gpu_that_is_not_used_says_what_to_build(graphics: tuple[str, ...], options: str) -> None:
    said = accelerator(llama(CPU), *graphics)
    assert said.verdict is Verdict.WARN
    assert graphics[0] in said.detail
    assert said.advice.endswith(
        f"CMAKE_ARGS={options} pip install --force-reinstall --no-deps --no-cache-dir "
        "--no-binary llama-cpp-python llama-cpp-python==1.2.3"
    )


def test_a_backend_without_a_device() -> None:
    assert "driver" in accelerator(llama(CPU, gpu=True), "CUDA").advice
    assert accelerator(llama(CPU, gpu=True)).verdict is Verdict.WARN


def test_a_machine_without_gpus_is_well() -> None:
    said = accelerator(llama(CPU))
    assert (said.verdict, said.advice) == (Verdict.OK, "")


def test_the_command_without_options() -> None:
    assert rebuild().startswith("pip install ")
    assert rebuild().endswith(" llama-cpp-python llama-cpp-python")
