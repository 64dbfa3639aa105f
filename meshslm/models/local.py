"""Taking in a model file that is on this machine.

It is copied, not linked: what is stored under a digest may not change when its owner edits it.
"""

from __future__ import annotations

from pathlib import Path

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.models.disk import CHUNK_BYTES, DiskFile, DiskFull, need_space, system_faults
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.sources import Fetched, FileSource, Pin


def fetch_file(source: FileSource, stage: Path, pin: Pin, report: Report) -> Fetched:
    """Copy the file of `source` into the folder `stage`. Raises `OurFault`."""
    with system_faults(source.path):
        if not source.path.is_file():
            what = "is a folder" if source.path.is_dir() else "does not exist or is no plain file"
            raise OurFault(f"{source.path} {what}")
        size = source.path.stat().st_size
    if pin.size not in (None, size):
        raise OurFault(f"{source.path} has {size} bytes, expected {pin.size}")
    need_space(stage, size, source.file_name)
    target = stage / "model"
    try:
        # What the source refuses is told of the source; the target tells of itself.
        with (
            system_faults(source.path),
            source.path.open("rb", buffering=0) as reader,
            DiskFile(target, most=pin.size or limits.MODEL_BYTES) as file,
        ):
            while chunk := reader.read(CHUNK_BYTES):
                file.write(chunk)
                report(Progress(Stage.COPYING, file.size, size))
            return Fetched(target, file.digest, file.size)
    except DiskFull:
        target.unlink(missing_ok=True)
        raise
