"""Tokens and control messages beside bulk, between two processes: on loopback and on a slow wire.

The slow wire is between two machines of their own, in namespaces (`tests/e2e/internet.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import bulk_node
from bench.table import Row
from bench.turns import say
from tests.e2e.internet import LINK_PORT, Internet, why_not

SECONDS = 14.0
LIMIT_S = 120.0
WIRES = (("10 Mbit/s, 40 ms, 1 % lost", 10.0, 40.0, 0.01), ("10 Mbit/s, 40 ms", 10.0, 40.0, 0.0))
NAMES = {
    bulk_node.NOTHING: "no bulk",
    bulk_node.UNBOUNDED: "bulk in the lane, the kernel takes what it likes",
    bulk_node.LANE: "bulk in the lane",
    bulk_node.BULK: "bulk over its own connection",
}


def measure() -> list[Row]:
    """All of it."""
    say("bulk on loopback")
    rows = _rows("loopback", {way: _on_loopback(way) for way in bulk_node.WAYS})
    reason = why_not()
    if reason:
        return [*rows, Row("tokens beside bulk on a slow wire", f"not measured: {reason}")]
    for name, mbit, delay_ms, loss in WIRES:
        say(f"bulk on a wire of {name}")
        found = {way: _on_wire(way, mbit, delay_ms, loss) for way in bulk_node.WAYS}
        rows += _rows(name, found)
    return rows


def _rows(wire: str, found: dict[str, dict[str, Any]]) -> list[Row]:
    lane = found[bulk_node.LANE]
    rows = []
    for way, told in found.items():
        trips, gaps = _shown(told["trips"]), _shown(told["gaps"])
        note = f", bulk {told['bulk'] / 1024:.0f} KiB/s" if told["bulk"] else ""
        assert told["over"] == (way == bulk_node.BULK) or wire == "loopback", "as it was asked"
        rows.append(
            Row(
                f"{wire}: {NAMES[way]}",
                f"round trip {trips}; between tokens {gaps}{note}",
                "in the lane",
                f"{_late(told['trips']) / _late(lane['trips']):.2f} of its p99",
            )
        )
    return rows


def _shown(samples: Sequence[float]) -> str:
    return f"p50 {median(samples) * 1000:.1f} ms, p99 {_late(samples) * 1000:.0f} ms"


def _late(samples: Sequence[float]) -> float:
    return quantiles(samples, n=100)[98]


def _on_loopback(way: str) -> dict[str, Any]:
    with _answering([], "/ip4/127.0.0.1/tcp/0", way) as address:
        return _asked([], address, way)


def _on_wire(way: str, mbit: float, delay_ms: float, loss: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder, Internet() as internet:
        near, far = (internet.machine(name, Path(folder)) for name in ("near", "far"))
        internet.mbit, internet.delay_ms, internet.loss = mbit, delay_ms, loss
        listen = f"/ip4/{far.address}/tcp/{LINK_PORT}"
        with _answering(far.entered(), listen, way) as address:
            return _asked(near.entered(), address, way)


@contextmanager
def _answering(entered: list[str], listen: str, way: str) -> Iterator[str]:
    command = [*entered, sys.executable, "-m", "bench.bulk_node", "answer", listen, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _asked(entered: list[str], address: str, way: str) -> dict[str, Any]:
    words = ["ask", address, way, str(SECONDS)]
    command = [*entered, sys.executable, "-m", "bench.bulk_node", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told
