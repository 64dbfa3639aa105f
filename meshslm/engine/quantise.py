"""`python -m meshslm.engine.quantise SOURCE TARGET TYPE`: write a model file in another type.

A process of its own, because llama.cpp may abort it and cannot be interrupted.

Rules:
- The source's header is checked first.
- Progress goes to standard output, one line each: `progress FRACTION`, by the size of what was
  written against the size expected. Errors go to standard error; exit code 1.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshslm.engine.gguf import GgufHeader, read_header
from meshslm.engine.gguf_types import FILE_TYPES
from meshslm.errors import OurFault

TICK_S: Final = 0.2
BITS: Final = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q4_0": 4.5, "IQ4_NL": 4.5}
"""Bits of a weight, for the expected size; other types count as six."""


def quantise(
    source: Path, target: Path, file_type: str, on_progress: Callable[[float], None]
) -> GgufHeader:
    """Write `source` anew at `target`; the new file's header. Raises `OurFault`."""
    header = read_header(source)
    numbers = {name: number for number, name in FILE_TYPES.items()}
    if file_type not in numbers:
        raise OurFault(f"unknown type {file_type!r}; known are {', '.join(sorted(numbers))}")
    expected = max(1.0, header.parameters * BITS.get(file_type, 6.0) / 8)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(TICK_S):
            size = target.stat().st_size if target.exists() else 0
            on_progress(min(0.99, size / expected))

    from meshslm.engine.llama import quantise_file  # noqa: PLC0415 - after the checks: it is heavy

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        quantise_file(source, target, numbers[file_type], len(os.sched_getaffinity(0)))
    finally:
        done.set()
        watcher.join()
    on_progress(1.0)
    return read_header(target)


def main(arguments: list[str]) -> int:
    """Run as a program; the exit code."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m meshslm.engine.quantise SOURCE TARGET TYPE\n")
        return 2

    def tell(fraction: float) -> None:
        sys.stdout.write(f"progress {fraction:.3f}\n")
        sys.stdout.flush()

    try:
        quantise(Path(arguments[0]), Path(arguments[1]), arguments[2], tell)
    except OurFault as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
