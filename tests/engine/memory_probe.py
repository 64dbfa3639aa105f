"""`python memory_probe.py MODEL CONTEXT SLOTS BATCH`: what llama.cpp says it allocates, as JSON.

A process of its own: llama.cpp tells it only to a log that a process has once. The model is loaded
as the engine does it, and computes a full call; `anonymous` is the memory of the process that no
file holds, before and after, in MiB.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path

import llama_cpp

from meshslm.engine import llama
from meshslm.engine.gguf import read_header
from meshslm.engine.kinds import Pooling, pooling_of
from meshslm.engine.llama_encoder import Encoder

_SIZE = re.compile(r"(\w+) +(model|KV|compute|output) buffer size = +([0-9.]+) MiB")


def anonymous_mib() -> float:
    """Memory of this process that no file holds."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Anonymous: +(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def reads_whole(path: str) -> bool:
    """Whether it is a model that makes vectors."""
    return pooling_of(read_header(path)) is not Pooling.NONE


def generate(path: str, context: int, slots: int, batch: int) -> object:
    """Load a model that generates, and compute a full call."""
    model = llama.Model(
        Path(path), context=context, slots=slots, batch=batch, threads=2, on_progress=lambda _: None
    )
    model.begin()
    model.add(0, 0, [1] * min(batch, context), wanted=True)
    model.compute()
    return model


def read(path: str, rows: int) -> object:
    """Load a model that makes vectors, and compute a full call of one text."""
    pooling = pooling_of(read_header(path))
    model = Encoder(
        Path(path), rows=rows, texts=8, pooling=pooling, threads=2, on_progress=lambda _: None
    )
    model.encode([[1] * rows])
    return model


def main(path: str, context: int, slots: int, batch: int) -> None:
    """Load, compute, and print."""
    lines: list[str] = []
    keep = llama_cpp.llama_log_callback(lambda _level, text, _: lines.append(text.decode()))
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    before = anonymous_mib()
    held = read(path, batch) if reads_whole(path) else generate(path, context, slots, batch)
    sizes: dict[str, float] = {"model": 0, "KV": 0, "compute": 0, "output": 0}
    for _, kind, size in _SIZE.findall("".join(lines)):
        sizes[kind] += float(size)
    print(json.dumps({**sizes, "before": before, "anonymous": anonymous_mib()}))
    del held


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
