"""The machine as it is told: processors, quotas of containers, GPUs, and llama.cpp's own answer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from meshslm.adapters import hardware
from meshslm.adapters.hardware import (
    Device,
    Llama,
    ProbeFailed,
    accelerator,
    ask_llama,
    backends,
    cores,
    cpu_flags,
    detect,
    graphics,
)
from meshslm.limits import NAME_BYTES

CPU = Device("CPU", "Some CPU", "cpu", 1000, 2000)
GPU = Device("CUDA0", "Some GPU", "gpu", 7000, 8000)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_flags_of_both_families(tmp_path: Path) -> None:
    write(tmp_path / "intel", "processor\t: 0\nflags\t\t: fpu avx2\n")
    write(tmp_path / "arm", "processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_flags(tmp_path / "intel") == {"fpu", "avx2"}
    assert cpu_flags(tmp_path / "arm") == {"fp", "asimd"}


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/a/b\n"}, 16),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "10000 100000"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            16,
        ),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "1 0"}, 16),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000 0"}, 16),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000"}, 16),
    ],
)
def test_quotas_of_containers_count(tmp_path: Path, files: dict[str, str], count: int) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert cores(tmp_path) == count


def test_backends_are_told_by_their_libraries(tmp_path: Path) -> None:
    for name in ("libggml-base.so", "libggml-cpu.so", "libllama.so"):
        write(tmp_path / name)
    assert backends(tmp_path) == ()
    write(tmp_path / "libggml-cuda.so")
    write(tmp_path / "ggml-vulkan.dll")
    assert backends(tmp_path) == ("CUDA", "Vulkan")
    assert backends(tmp_path / "none") == ()


@pytest.mark.skipif(sys.platform != "linux", reason="signs of drivers on Linux")
def test_graphics_are_told_by_their_drivers(tmp_path: Path) -> None:
    assert graphics(tmp_path) == ()
    write(tmp_path / "dev/nvidiactl")
    write(tmp_path / "dev/dri/renderD128")
    assert graphics(tmp_path) == ("CUDA", "Vulkan")
    write(tmp_path / "dev/kfd")
    assert "ROCm" in graphics(tmp_path)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_llama_is_asked_in_another_process() -> None:
    found = ask_llama()
    assert isinstance(found, Llama), found
    assert any(device.kind == "cpu" and device.total_mib > 0 for device in found.devices)
    assert bool(backends()) == found.gpu


def test_an_answer_is_read_behind_what_drivers_say() -> None:
    told = {"version": "1", "system": "", "gpu": True, "devices": [vars_of(CPU), vars_of(GPU)]}
    found = ask_llama(script(f"print('driver: hello'); print({json.dumps(told)!r})"))
    assert found == Llama("1", "", True, (CPU, GPU))
    assert found.gpus == (GPU,)


def vars_of(device: Device) -> dict[str, object]:
    return {name: getattr(device, name) for name in device.__struct_fields__}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("import no_such_llama", 1, "no_such_llama"),
        ("import os; os.kill(os.getpid(), 4)", -4, "code -4"),
        ("pass", 0, "code 0"),
        ("print('{}')", 0, "version"),
        ("print('hello')", 0, "hello"),
    ],
)
def test_what_is_no_answer(text: str, code: int, said: str) -> None:
    found = ask_llama(script(text))
    assert isinstance(found, ProbeFailed)
    assert found.code == code
    assert said in found.said


def test_no_answer_in_time() -> None:
    found = ask_llama(script("import signal; signal.pause()"), limit_s=0.3)
    assert isinstance(found, ProbeFailed)
    assert found.code is None
    assert isinstance(ask_llama(["/nowhere/python"]), ProbeFailed)


def test_how_a_capability_names_it() -> None:
    assert accelerator(ProbeFailed(1, "")) == ""
    assert accelerator(Llama("1", "", False, (CPU,))) == ""
    assert accelerator(Llama("1", "", True, (CPU, GPU))) == "CUDA0: Some GPU, 8000 MiB"
    both = accelerator(Llama("1", "", True, (GPU, GPU)))
    assert both == "CUDA0: Some GPU and 1 more, 16000 MiB"
    long = Device("CUDA0", "\u00e9" * 100, "gpu", 1, 2)
    assert len(accelerator(Llama("1", "", True, (long,))).encode()) <= NAME_BYTES


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = detect()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_mib > 0
    monkeypatch.setattr(hardware, "backends", lambda: ("CUDA",))
    monkeypatch.setattr(hardware, "ask_llama", lambda: Llama("1", "", True, (GPU,)))
    assert detect().accelerator == "CUDA0: Some GPU, 8000 MiB"
