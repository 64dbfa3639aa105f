"""The file system, as the model store needs it: digests, durability, locks, and full disks.

Rules:
- Whatever the system refuses is an `OurFault` that names the path; a full disk says how much was
  needed and how much there is.
- A file becomes visible under its final name only when it is whole and on disk.
- A lock is held by an open file, so it ends with its process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.models.progress import TICK_S, Progress, Report, Stage

CHUNK_BYTES: Final = 1024 * 1024
"""Read and written at once: large enough that the digest, not the calls, takes the time."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OurFault):
    """There is no room for what was to be written."""


class DiskFile:
    """A file that is digested as it is written, and never grows beyond `most` bytes.

    Where `resume` is given, one that exists is gone on with; `resume` hears how far its part is
    digested. Else it begins anew.
    """

    def __init__(self, path: Path, *, most: int, resume: Report | None = None) -> None:
        self.path = path
        self.size = 0
        self._most = most
        self._hash = hashlib.sha256()
        with system_faults(path):
            self._file = path.open("r+b" if resume and path.exists() else "w+b")
        try:
            if resume:
                self._digest_part(resume)
        except BaseException:
            self._file.close()
            raise

    def _digest_part(self, report: Report) -> None:
        total = self.path.stat().st_size
        with system_faults(self.path):
            while chunk := self._file.read(CHUNK_BYTES):
                self._hash.update(chunk)
                self.size += len(chunk)
                report(Progress(Stage.CHECKING, self.size, total))

    def write(self, chunk: bytes) -> None:
        """Append. Raises `DiskFull`, or `OurFault` past the bound."""
        if self.size + len(chunk) > self._most:
            raise OurFault(f"{self.path.name} is larger than the {self._most} bytes expected of it")
        with system_faults(self.path):
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def begin_anew(self) -> None:
        """Forget everything written so far."""
        with system_faults(self.path):
            self._file.seek(0)
            self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """SHA-256 of everything written, in hex."""
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            with system_faults(self.path):
                self._file.close()
        except DiskFull:
            if error is None:
                raise


def digest_of(path: Path, report: Report, stage: Stage = Stage.CHECKING) -> tuple[str, int]:
    """SHA-256 in hex, and size in bytes, of the file at `path`."""
    hasher = hashlib.sha256()
    done = 0
    with system_faults(path), path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            done += len(chunk)
            report(Progress(stage, done, total))
    return hasher.hexdigest(), done


def need_space(folder: Path, needed: int, what: str) -> None:
    """Raise `DiskFull` unless `folder` has room for `needed` bytes and a reserve."""
    with system_faults(folder):
        free = shutil.disk_usage(folder).free
    if free < needed + limits.DISK_RESERVE_BYTES:
        raise DiskFull(
            f"not enough disk space for {what}: it needs {_mib(needed)} MiB beside a reserve of "
            f"{_mib(limits.DISK_RESERVE_BYTES)} MiB, {folder} has {_mib(free)} MiB free"
        )


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by a file with `content`, at once and durably."""
    with system_faults(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - from a descriptor
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # noqa: PTH101 - a name, as mkstemp gives it
            os.replace(name, path)  # noqa: PTH105 - the same
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    with system_faults(path), path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file at `path` against every other process and thread; wait for it.

    The file is there while somebody holds it or waits, or after a holder was killed.
    """
    while (handle := _try_lock(path)) is None:
        report(Progress(Stage.WAITING))
        time.sleep(TICK_S)
    try:
        yield
    finally:
        with suppress(OSError):  # another user's file in a shared folder: then it stays
            path.unlink()
        os.close(handle)  # which releases it


def _try_lock(path: Path) -> int | None:
    """The open lock file; None where another holds it, or removes it at this moment."""
    with system_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    ours = False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        pass  # it is not ours
    finally:
        if not ours:
            os.close(handle)
    return handle if ours else None


@contextmanager
def system_faults(path: Path) -> Iterator[None]:
    """Turn what the system refuses about `path` into an `OurFault`."""
    try:
        yield
    except BrokenPipeError:
        raise  # a report's terminal went away: no file says that
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(_full(path)) from error
        raise OurFault(f"{path}: {error.strerror or error}") from error


def _full(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    try:
        free = f"; {folder} has {_mib(shutil.disk_usage(folder).free)} MiB free"
    except OSError:
        free = ""
    return f"the disk is full, or a quota reached, while writing {path}{free}"


def _mib(count: int) -> int:
    return count // limits.MIB
