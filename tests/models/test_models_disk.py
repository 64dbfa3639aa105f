"""Files, locks, and full disks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshslm.errors import OurFault
from meshslm.models import disk
from meshslm.models.disk import (
    DiskFile,
    DiskFull,
    digest_of,
    exclusive,
    need_space,
    system_faults,
    write_whole,
)
from tests.models.small_models import Reports, sha256


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where the test may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        pytest.skip(f"may not mount a small disk: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_is_digested_as_it_is_written(tmp_path: Path) -> None:
    with DiskFile(tmp_path / "f", most=10) as file:
        file.write(b"abc")
        file.write(b"def")
    assert (file.digest, file.size) == (sha256(b"abcdef"), 6)
    assert digest_of(tmp_path / "f", Reports()) == (file.digest, 6)


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    with DiskFile(path, most=10, resume=Reports()) as file:
        file.write(b"def")
    assert file.digest == sha256(b"abcdef")
    with DiskFile(path, most=10) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_a_file_does_not_grow_beyond_its_bound(tmp_path: Path) -> None:
    with DiskFile(tmp_path / "f", most=3) as file:
        file.write(b"abc")
        with pytest.raises(OurFault, match="larger than the 3 bytes"):
            file.write(b"d")


def test_a_full_disk_is_told_with_numbers(tiny_disk: Path) -> None:
    with DiskFile(tiny_disk / "f", most=10**9) as file:
        pieces = [bytes(10_000)] * 100
        with pytest.raises(DiskFull, match=r"disk is full.*disk has 0 MiB free"):
            list(map(file.write, pieces))


def test_a_full_disk_leaves_the_old_content(tiny_disk: Path) -> None:
    path = tiny_disk / "f"
    write_whole(path, b"old")
    with pytest.raises(DiskFull):
        write_whole(path, bytes(300_000))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tiny_disk.iterdir()] == ["f"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_quota_are_the_same(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull), system_faults(tmp_path):
        raise OSError(number, os.strerror(number))


def test_room_is_asked_for_with_the_numbers(tmp_path: Path) -> None:
    need_space(tmp_path, 0, "nothing")
    with pytest.raises(
        DiskFull, match=r"not enough disk space for m: it needs 1048576 MiB beside a reserve of 64"
    ):
        need_space(tmp_path, 1024**4, "m")


def test_what_the_system_refuses_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match=r"gone/f: No such file or directory"):
        DiskFile(tmp_path / "gone" / "f", most=1)


def test_a_report_whose_terminal_is_gone_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(BrokenPipeError):
        digest_of(tmp_path / "f", Reports("checking", BrokenPipeError))


def test_a_lock_excludes_threads_and_can_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a"
    waiting, order = threading.Event(), []

    def second() -> None:
        with exclusive(path, lambda _: waiting.set()):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(path, Reports()):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a", Reports()):
        assert (tmp_path / "a").exists()
    assert list(tmp_path.iterdir()) == []


def test_many_who_take_turns_never_hold_a_lock_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "TICK_S", 0.0)
    path, inside, most = tmp_path / "a", [0], [0]

    def hold() -> None:
        for _ in range(50):
            with exclusive(path, Reports()):
                inside[0] += 1
                os.sched_yield()
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not path.exists()


def test_waiting_for_a_lock_can_be_stopped(tmp_path: Path) -> None:
    second = exclusive(tmp_path / "a", Reports("waiting"))
    with exclusive(tmp_path / "a", Reports()), pytest.raises(KeyboardInterrupt), second:
        pytest.fail("two hold the same lock")


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from meshslm.models.disk import exclusive\n"
        "with exclusive(Path(sys.argv[1]), print): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(disk.__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    with exclusive(tmp_path / "a", Reports()):
        holder.communicate()
