"""What is kept of a daemon that crashes: the recording of its last events, in a file.

Rules:
- An end that the program foresaw, and one by a signal, is no crash.
- The files are readable by their owner only, and few are kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meshslm import limits
from meshslm.errors import MeshslmError

log = logging.getLogger("meshslm.crash")

FOLDER = "recordings"
SUFFIX = ".jsonl.gz"


@contextmanager
def kept_on_crash(dump: Callable[[str], bytes] | None, data: Path, boot: int) -> Iterator[None]:
    """Write what `dump` gives for a reason below `data` where a bug ends the block.

    The bug goes on its way.
    """
    try:
        yield
    except Exception as failure:
        if dump is not None and _is_bug(failure):
            _keep(dump, data / FOLDER, boot, failure)
        raise


def _is_bug(failure: Exception) -> bool:
    if isinstance(failure, ExceptionGroup):
        return failure.split(MeshslmError)[1] is not None
    return not isinstance(failure, MeshslmError)


def _keep(dump: Callable[[str], bytes], folder: Path, boot: int, failure: Exception) -> None:
    path = folder / f"crash-{boot:08d}{SUFFIX}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for old in sorted(folder.glob(f"crash-*{SUFFIX}"))[: -limits.RECORDINGS_KEPT + 1]:
            old.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(dump(f"crash: {_words(failure)}"))
    except OSError as fault:  # the bug itself must be seen, whatever the disk says
        log.warning("the last events could not be kept in %s: %s", path, fault)
        return
    log.error("the last events are kept in %s; 'meshslm sim replay' replays them", path)


def _words(failure: BaseException) -> str:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return type(failure).__name__
