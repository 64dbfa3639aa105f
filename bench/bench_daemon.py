"""A daemon's weight and the time it takes to start; the command line's too."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

import psutil

from bench.nodes import READY_S, answers, running_alone
from bench.table import Row, spread

STARTS = 10
MIB = 1024 * 1024
RSS_MIB = 150
REST_S = 1.0
"""A presence goes out each second: a whole round of what a daemon does at rest."""
HELP_S = 0.4


def wall_s(*command: str) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def rss_at_rest(process: psutil.Process) -> int:
    """RSS in bytes once it has stayed the same for a while, past start-up and collections.

    Raises `TimeoutError` where it does not come to rest.
    """
    began = since = time.perf_counter()
    rss: int = process.memory_info().rss
    while time.perf_counter() - since < REST_S:
        time.sleep(0.05)
        now = process.memory_info().rss
        if now != rss:
            rss, since = now, time.perf_counter()
        if time.perf_counter() - began > READY_S:
            raise TimeoutError(f"the RSS still changes, and is {rss} bytes")
    return rss


def measure() -> list[Row]:
    """RSS and start-up without a model, load of one, and `--help`."""
    with running_alone(()) as (_, pid, up_s):
        rss = rss_at_rest(psutil.Process(pid)) / MIB
    with running_alone(("general",)) as (plan, pid, loaded_from_s):
        began = time.perf_counter()
        while not answers(plan.url, "/readyz"):
            if time.perf_counter() - began > READY_S:
                raise TimeoutError("the model did not load")
            time.sleep(0.01)
        load_s = time.perf_counter() - began
        worker = sum(c.memory_info().rss for c in psutil.Process(pid).children(recursive=True))
    bare = [wall_s(sys.executable, "-c", "pass") for _ in range(STARTS)]
    helped = [wall_s(sys.executable, "-m", "meshslm", "--help") for _ in range(STARTS)]
    ratio = median(helped) / median(bare)
    return [
        Row(
            "RSS of a daemon without a model",
            f"{rss:.0f} MiB",
            target=f"under {RSS_MIB} MiB",
            reached=rss < RSS_MIB,
        ),
        Row("start of a daemon until it answers", f"{up_s:.2f} s"),
        Row(
            "load of the 135M model after that",
            f"{load_s:.2f} s",
            f"answering after {loaded_from_s:.2f} s",
        ),
        Row("RSS of its worker", f"{worker / MIB:.0f} MiB"),
        Row(
            "`meshslm --help`",
            spread(helped, "s", 2),
            "an empty Python program " + spread(bare, "s", 2),
            f"{ratio:.1f}",
            f"under {HELP_S} s",
            median(helped) < HELP_S,
        ),
    ]
