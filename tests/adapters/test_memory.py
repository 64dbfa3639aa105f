"""What is read of the machine's memory, and of control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshslm.adapters.memory import Memory, read
from meshslm.limits import MIB

MEMINFO = "MemTotal:        8192 kB\nMemFree:  1024 kB\nMemAvailable:    4096 kB\nHugePages: 0\n"
V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"


def machine(root: Path, files: dict[str, str]) -> Memory:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return read(root)


def test_without_control_groups_it_is_the_machine_s(tmp_path: Path) -> None:
    memory = machine(tmp_path, {})
    assert memory == Memory(8 * MIB, 4 * MIB)
    assert (memory.total_mib, memory.available_mib) == (8, 4)


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert read(tmp_path) == Memory(0, 0)


def test_the_tightest_group_around_counts(tmp_path: Path) -> None:
    memory = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            f"{V2}/outer/memory.max": str(2 * MIB),
            f"{V2}/outer/memory.current": str(MIB),
            f"{V2}/outer/memory.stat": f"anon 5\ninactive_file {MIB // 2}\n",
            f"{V2}/outer/inner/memory.max": "max\n",
            f"{V2}/outer/inner/memory.current": str(MIB),
        },
    )
    assert memory == Memory(2 * MIB, 2 * MIB - MIB // 2)


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    memory = machine(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/x\n",
            f"{V1}/memory.limit_in_bytes": str(2**63 - 4096),
            f"{V1}/x/memory.limit_in_bytes": str(3 * MIB),
            f"{V1}/x/memory.usage_in_bytes": str(MIB),
        },
    )
    assert memory == Memory(3 * MIB, 2 * MIB)


@pytest.mark.parametrize("limit", ["", "none", "-1", "max", str(2**62)])
def test_a_limit_that_is_none_is_no_limit(tmp_path: Path, limit: str) -> None:
    files = {"proc/self/cgroup": "0::/\ngarbage", f"{V2}/memory.max": limit}
    assert machine(tmp_path, files) == Memory(8 * MIB, 4 * MIB)


def test_a_group_above_its_limit_has_nothing_left(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        f"{V2}/memory.max": str(MIB),
        f"{V2}/memory.current": str(2 * MIB),
    }
    assert machine(tmp_path, files) == Memory(MIB, 0)


def test_this_machine_tells() -> None:
    memory = read()
    assert 0 < memory.available <= memory.total
