"""What the doctor finds, on machines made to be ill."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from meshslm.adapters import memory
from meshslm.cli.doctor_checks import (
    Finding,
    Verdict,
    check_disk,
    check_folder,
    check_key,
    check_memory,
    check_port,
    check_python,
    check_sandbox,
    worst,
)
from meshslm.engine import sandbox

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def test_this_python_is_new_enough() -> None:
    assert check_python().verdict is Verdict.OK


def test_an_old_python_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))
    finding = check_python()
    assert finding.verdict is Verdict.FAIL
    assert "3.11" in finding.advice


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    finding = check_folder("folder", tmp_path / "a" / "b", "--data-dir")
    assert finding.verdict is Verdict.OK
    assert "will be made" in finding.detail
    assert not (tmp_path / "a").exists()


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = check_folder("folder", tmp_path / "file", "--data-dir")
    assert finding.verdict is Verdict.FAIL
    assert finding.advice


@not_root
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert check_folder("folder", tmp_path / "a", "--data-dir").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(2**40, Verdict.OK), (2**29, Verdict.WARN), (2**20, Verdict.FAIL)],
)
def test_disk(free: int, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    finding = check_disk(tmp_path / "models")
    assert finding.verdict is verdict
    assert bool(finding.advice) == (verdict is not Verdict.OK)


@pytest.mark.parametrize(("free", "verdict"), [(2**34, Verdict.OK), (2**28, Verdict.WARN)])
def test_memory(free: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read", lambda: memory.Memory(2**35, free))
    assert check_memory().verdict is verdict


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert check_key(key).verdict is Verdict.OK
    key.write_bytes(b"secret")
    key.chmod(0o644)
    finding = check_key(key)
    assert finding.verdict is Verdict.FAIL
    assert "0644" in finding.detail
    assert finding.advice == f"chmod 600 {key}"
    subprocess.run(finding.advice.split(), check=True)
    assert check_key(key).verdict is Verdict.OK


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = check_port("gateway", "127.0.0.1", port)
        assert finding.verdict is Verdict.FAIL
        assert str(port) in finding.detail
    assert check_port("gateway", "127.0.0.1", port).verdict is Verdict.OK


def test_a_host_that_is_not_ours() -> None:
    assert check_port("gateway", "192.0.2.1", 0).verdict is Verdict.FAIL


def test_the_worst_finding_decides() -> None:
    ok, warn, fail = (Finding("x", verdict, "") for verdict in Verdict)
    assert worst([]) is Verdict.OK
    assert worst([ok, warn, ok]) is Verdict.WARN
    assert worst([fail, warn]) is Verdict.FAIL


@pytest.mark.parametrize(
    ("wanted", "lacking", "verdict"),
    [
        ("auto", (), Verdict.OK),
        ("required", (), Verdict.OK),
        ("off", (), Verdict.WARN),
        ("auto", ("files: no Landlock",), Verdict.WARN),
        ("required", ("files: no Landlock",), Verdict.FAIL),
    ],
)
def test_the_sandbox(
    monkeypatch: pytest.MonkeyPatch, wanted: str, lacking: tuple[str, ...], verdict: Verdict
) -> None:
    held = ("system calls (seccomp)",)
    monkeypatch.setattr(sandbox, "possible", lambda: sandbox.Confinement(held, lacking))
    finding = check_sandbox(wanted)
    assert finding.verdict is verdict
    assert bool(finding.advice) is (verdict is not Verdict.OK)
    assert all(words in finding.detail for words in lacking)
