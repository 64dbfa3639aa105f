"""The inference worker: one process, one model, many runs at a time.

`python -m meshslm.engine.worker --fd N` talks to the daemon over the socket N. It is a process of
its own because llama.cpp can abort the one it lives in, and because its threads share no loop.

Rules:
- It dies with its parent, and waits for a daemon that is slow to read, with a bounded backlog.
- A model that cannot be loaded is told as such, with an exit code of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from typing import Final

from meshslm.engine import openmp

os.environ.update(openmp.settings(os.environ))

from meshslm.engine import loading
from meshslm.engine.pipe import Gone, Pipe
from meshslm.engine.protocol import Load, Unusable
from meshslm.errors import OurFault

UNUSABLE: Final = 3
"""Exit code: the model cannot be loaded, and trying again would not help."""

_PR_SET_PDEATHSIG: Final = 1


def run(connection: socket.socket) -> int:
    """Serve one daemon; the exit code."""
    pipe = Pipe(connection)
    try:
        first, *rest = pipe.receive(wait=True)
        if not isinstance(first, Load) or rest:
            raise OurFault("the first command must be to load a model, alone")
        try:
            worker, threads = loading.load(pipe, first)
        except OurFault as fault:
            pipe.send([Unusable(str(fault))])
            pipe.drain()
            return UNUSABLE
        gc.freeze()  # what is there now stays: no later collection has to walk it
        worker.serve(threads)
    except Gone:
        return 0
    return 0


def die_with_parent() -> None:
    """Have the kernel end this process when the daemon ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="inference worker; started by the daemon")
    parser.add_argument("--fd", type=int, required=True, help="socket to the daemon")
    arguments = parser.parse_args()
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which tells us
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    code = run(socket.socket(fileno=arguments.fd))
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # nothing is worth waiting for: llama.cpp's teardown may take a second


if __name__ == "__main__":
    sys.exit(main())
