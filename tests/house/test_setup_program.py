"""`scripts/setup.py` says what is missing, and what it is doing."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from scripts import setup


def log_of(folder: Path, text: str) -> Path:
    log = folder / "setup.log"
    log.write_text(text, encoding="utf-8")
    return log


def test_says_how_long_llama_takes(tmp_path: Path) -> None:
    log = log_of(
        tmp_path,
        "Collecting httpx==0.28.1\nBuilding wheel for llama-cpp-python (pyproject.toml): started\n",
    )
    assert setup.doing(log).startswith("building llama-cpp-python (")
    assert "minutes" in setup.doing(log)


def test_says_what_is_fetched(tmp_path: Path) -> None:
    log = log_of(tmp_path, "Collecting httpx==0.28.1 (from -r x)\n  Downloading httpx.whl\n")
    assert setup.doing(log) == "fetching httpx"


def test_an_empty_log_is_no_error(tmp_path: Path) -> None:
    assert setup.doing(log_of(tmp_path, "")) == "starting"


def test_nothing_missing_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    setup.provide([])
    assert capsys.readouterr().out == ""


def test_a_user_without_root_gets_one_line_to_paste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    needs = [setup.Need("gmp.h", "libgmp-dev"), setup.Need("a compiler", "build-essential")]
    with pytest.raises(SystemExit) as stopped:
        setup.provide(needs)
    assert str(stopped.value).splitlines()[1:] == [
        "  sudo apt-get update && sudo apt-get install -y build-essential libgmp-dev"
    ]


def test_another_system_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"gmp\.h"):
        setup.provide([setup.Need("the GMP headers (gmp.h)", "libgmp-dev")])


def test_headers_are_found_by_asking_the_compiler() -> None:
    assert setup.has_header("stdio.h")
    assert not setup.has_header("no-such-header-anywhere.h")


def test_a_missing_header_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert f"{version}-dev" in [need.package for need in setup.missing()]


def test_compiles_on_all_cores_and_without_what_is_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_RPC=ON")
    monkeypatch.delenv("CMAKE_BUILD_PARALLEL_LEVEL", raising=False)
    environment = setup.build_environment()
    assert environment["CMAKE_ARGS"] == "-DGGML_RPC=ON -DLLAVA_BUILD=OFF"
    assert int(environment["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1


def test_a_failure_of_pip_shows_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(SystemExit, match=r"setup\.log"):
        setup.pip(tmp_path, "--no-index", "/no/such/project")
    assert "/no/such/project" in capsys.readouterr().err


def test_root_gets_the_packages_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text('#!/bin/sh\necho "$@" >> "$0.calls"\n', encoding="utf-8")
    apt.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: str(apt))
    monkeypatch.setattr(setup, "missing", lambda: iter(()))
    setup.provide([setup.Need("the GMP headers (gmp.h)", "libgmp-dev")])
    calls = (tmp_path / "apt-get.calls").read_text(encoding="utf-8").splitlines()
    assert calls == ["update -qq", "install -y -qq libgmp-dev"]
    assert "libgmp-dev" in capsys.readouterr().out


def test_what_stays_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    need = setup.Need("the headers of a Python of your own", "python3.11-dev")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    monkeypatch.setattr(setup, "missing", lambda: iter([need]))
    with pytest.raises(SystemExit, match="Still missing: the headers of a Python of your own"):
        setup.provide([need])
