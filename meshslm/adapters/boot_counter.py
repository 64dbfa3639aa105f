"""The number of this boot: larger than that of any earlier life of the same identity.

Peers take what is newest by (boot, sequence), so a boot number that came twice would make a
restarted node's news look old. The number is the wall clock in seconds or one more than the last,
whichever is larger: it grows although the file is lost or the clock is wrong, unless both happen.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from meshslm.errors import OurFault

BOOT_FILE = "boot"
MOST = 2**48 - 1


def last_boot(directory: Path) -> int:
    """The number of the last boot; 0 where none is known. Raises `OurFault`."""
    path = directory / BOOT_FILE
    try:
        return int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0
    except OSError as error:
        raise OurFault(f"cannot read {path}: {error.strerror}") from error


def next_boot(directory: Path) -> int:
    """Count up and remember, durably. Raises `OurFault` where the folder cannot be written."""
    path = directory / BOOT_FILE
    last = last_boot(directory)
    boot = min(MOST, max(last + 1, int(time.time())))
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w", encoding="ascii") as file:
            file.write(f"{boot}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise OurFault(f"cannot write {path}: {error.strerror}") from error
    return boot
