"""Running command lines inside the test's process, through the same door as the real ones."""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshslm.cli import main
from meshslm.cli.reference import JSON_KEYS


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


def documented_keys(command: str) -> set[str]:
    """The keys that `docs/cli.md` promises of a command's JSON."""
    return set(JSON_KEYS[command].rpartition(": ")[2].split())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line in a home of its own and returns exit code, stdout and stderr."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))

    def run_line(*words: str, stdin: str | None = None) -> Outcome:
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_line


def tiny_gguf(name: str = "tiny") -> bytes:
    """A well-formed GGUF file of one small F32 tensor: enough for the store, not for an engine."""
    pairs = (
        text("general.architecture")
        + struct.pack("<I", 8)
        + text("llama")
        + text("general.name")
        + struct.pack("<I", 8)
        + text(name)
        + text("llama.context_length")
        + struct.pack("<II", 4, 512)
    )
    tensor = text("output.weight") + struct.pack("<IQQIQ", 2, 32, 2, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 3) + pairs + tensor
    return head + b"\0" * (-len(head) % 32) + b"\0" * (32 * 2 * 4)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(tiny_gguf())
    return file


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port
