"""The main job: from `make run`, caches warm, to the first token of the answer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

import psutil

from bench.nodes import Mesh
from bench.table import Row, spread

ROUNDS = 3
FIRST_TOKEN_S = 15.0


def measure() -> list[Row]:
    """Start the demonstration several times, each to its answer."""
    firsts: list[float] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder:
            done = subprocess.run(
                [sys.executable, "-m", "meshslm", "demo", "--no-keep", "--json", "--dir", folder],
                check=True,
                capture_output=True,
                text=True,
            )
            told = json.loads(done.stdout)
            firsts.append(told["first_text_s"])
    return [
        Row(
            "start of three daemons to the first token of the answer",
            spread(firsts, "s"),
            target=f"under {FIRST_TOKEN_S:.0f} s",
            reached=max(firsts) < FIRST_TOKEN_S,
        )
    ]


def shared_weights(mesh: Mesh) -> list[Row]:
    """Memory of the three workers: what they share is there once."""
    workers = [c for pid in mesh.pids for c in psutil.Process(pid).children(recursive=True)]
    infos = [worker.memory_full_info() for worker in workers]
    mib = 1024 * 1024
    together = sum(info.pss for info in infos) / mib
    apart = sum(info.rss for info in infos) / mib
    return [
        Row(
            "memory of the three workers, shared pages once (PSS)",
            f"{together:.0f} MiB",
            f"counted in each (RSS) {apart:.0f} MiB",
            f"{together / apart:.2f}",
        )
    ]
