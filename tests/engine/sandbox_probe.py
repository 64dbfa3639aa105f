"""A worker that tries, once its model is loaded, what its sandbox must not let it do.

Run as a worker: `python sandbox_probe.py --fd N`. What it could do it says on standard error, one
line for each attempt: the name, and `done` or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import meshslm.engine.worker as worker_program  # first: it settles how OpenMP waits
from meshslm.engine import loading
from meshslm.engine.pipe import Pipe
from meshslm.engine.protocol import Load


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def execute() -> None:
    os.execv(sys.executable, [sys.executable, "-c", "pass"])


def trace() -> None:
    call(101 if os.uname().machine == "x86_64" else 117, 16, os.getppid())


def call(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def write(path: Path) -> None:
    with path.open("w") as file:
        file.write("x")


def attempts(model: Path) -> dict[str, Callable[[], object]]:
    """Names and deeds."""
    neighbour = model.parent / "neighbour"
    return {
        "read passwd": lambda: Path("/etc/passwd").read_bytes(),
        "read neighbour": neighbour.read_bytes,
        "list": lambda: list(model.parent.iterdir()),
        "write": lambda: write(model.parent / "made"),
        "write model": lambda: os.open(model, os.O_WRONLY),
        "remove": neighbour.unlink,
        "chmod": lambda: neighbour.chmod(0o777),
        "inet": lambda: socket.socket(socket.AF_INET),
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "pair": socket.socketpair,
        "fork": fork,
        "execute": execute,
        "trace": trace,
        "signal": lambda: os.kill(os.getppid(), signal.SIGURG),
        "uring": lambda: call(425, 1, 0),
        "read model": lambda: model.open("rb").read(4),
        "read stat": lambda: Path("/proc/stat").read_bytes(),
        "signal self": lambda: os.kill(os.getpid(), 0),
        "null": lambda: write(Path("/dev/null")),
    }


def probe(model: Path) -> None:
    for name, attempt in attempts(model).items():
        try:
            attempt()
            outcome = "done"
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, str(error))
        print(f"{name}: {outcome}", file=sys.stderr, flush=True)


def main() -> int:
    load = loading.load

    def load_and_probe(pipe: Pipe, command: Load) -> object:
        loaded = load(pipe, command)
        probe(Path(command.path))
        return loaded

    loading.load = load_and_probe  # type: ignore[assignment]  # the same, and a little more
    return worker_program.main()


if __name__ == "__main__":
    sys.exit(main())
