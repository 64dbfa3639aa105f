"""`scripts/llama_server.py` takes the locked release, and says how far it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import llama_server


def test_takes_the_version_and_hash_that_are_locked() -> None:
    version, pins = llama_server.locked(llama_server.LOCK.read_text(encoding="utf-8"))
    assert version[0].isdigit()
    assert pins.startswith(f"llama-cpp-python=={version} ")
    assert "--hash=sha256:" in pins


def test_a_lock_file_without_it_is_named() -> None:
    with pytest.raises(SystemExit, match="llama-cpp-python"):
        llama_server.locked("httpx==1.0 \\\n    --hash=sha256:00\n")


def test_says_which_step_the_compiler_is_at(tmp_path: Path) -> None:
    log = tmp_path / "compile.log"
    log.write_text("[1/206] Building a\n[2/206] Building b\nnote: something\n", encoding="utf-8")
    assert llama_server.doing(log) == "compiling, step 2 of 206"


def test_an_empty_log_is_a_start(tmp_path: Path) -> None:
    log = tmp_path / "compile.log"
    log.touch()
    assert llama_server.doing(log) == "starting"
