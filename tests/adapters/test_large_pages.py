"""The heap is put on large pages, where the system has them, and nothing else is touched."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from meshslm.adapters import large_pages
from meshslm.adapters.large_pages import PAGE, _whole_pages, gather

MAPS = f"""\
{0x1000:x}-{5 * PAGE:x} r-xp 00000000 fe:00 7 /usr/bin/python3
{8 * PAGE + 4096:x}-{11 * PAGE + 4096:x} rw-p 00000000 00:00 0      [heap]
{16 * PAGE:x}-{17 * PAGE:x} rw-p 00000000 00:00 0
{18 * PAGE:x}-{20 * PAGE:x} rw-p 00000000 fe:00 9 /a model, of weights
{24 * PAGE + 1:x}-{25 * PAGE:x} rw-p 00000000 00:00 0
{32 * PAGE:x}-{40 * PAGE:x} ---p 00000000 00:00 0
{48 * PAGE:x}-{56 * PAGE:x} rw-s 00000000 00:05 3 /memfd:shared
{64 * PAGE:x}-{72 * PAGE:x} rw-p 00000000 00:00 0 [stack]
"""


def test_only_whole_pages_of_the_heap_are_taken() -> None:
    pages = [(start // PAGE, end // PAGE) for start, end in _whole_pages(MAPS)]
    assert pages == [(9, 11), (16, 17)]


def test_a_text_of_no_mappings_has_no_pages() -> None:
    assert not list(_whole_pages(""))


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert gather() == 0


def test_where_an_administrator_turned_them_off_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def library(*_: object, **__: object) -> object:
        pytest.fail("the kernel is asked")

    switch = tmp_path / "enabled"
    switch.write_text("always madvise [never]\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(large_pages, "SWITCH", switch)
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert gather() == 0


CHILD = """
from pathlib import Path
from meshslm.adapters.large_pages import gather

def large():
    smaps = Path("/proc/self/smaps").read_text()
    return sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("AnonHuge"))

kept = [object() for _ in range(2_000_000)]
before = large()
print(gather(), before, large(), len(kept))
"""


def test_a_heap_is_put_on_large_pages() -> None:
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not switch.exists() or "[never]" in switch.read_text(encoding="utf-8"):
        pytest.skip("this system has no large pages, or has them turned off")
    ran = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    done, before, after, objects = map(int, ran.stdout.split())
    assert objects == 2_000_000
    if not done:
        pytest.skip("this kernel puts nothing on large pages on demand")
    assert after >= before
    assert after >= done // 1024, "in KiB"
