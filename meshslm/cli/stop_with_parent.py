"""Ending this process when the one that started it ends, however that ends.

Why: a demonstration starts daemons as children; killed by SIGKILL it cannot stop them itself, and
an orphan would keep ports and memory. The kernel does it instead.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From linux/prctl.h."""


def stop_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent, process `parent`, is gone.

    The kernel looks at the thread that started this process: that must be one that stays, such as
    the main one. Call it before anything worth stopping is started. Raises `SystemExit` where the
    parent is gone already, `OurFault` where the kernel refuses.
    """
    from meshslm.errors import OurFault

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise OurFault(f"cannot arrange to end together with process {parent}: {reason}")
    if os.getppid() != parent:
        raise SystemExit(0)
