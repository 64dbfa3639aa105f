"""One hop through libp2p against asking the serving node itself, over real processes and sockets.

Requests of the same kind in turn: at the node that hosts the specialist, and at its neighbour,
which passes them on; one at a time, and eight. The prompt differs each time, so that no cache
answers.

Everything runs on the same cores, where the engine uses them all: whatever a second daemon takes
for a token is taken from it. The time of processors that each daemon takes for a token is told
beside what clients feel.

What a hop adds is a hundredth of what eight prompts at once take, and of what the machine's other
work does to these: so neighbouring turns are compared with each other, and the median of the pairs
is told with the range in which it lies with 95 % confidence (by the signs of the pairs alone).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from statistics import median

import psutil

from bench.nodes import Mesh
from bench.table import Row, spread
from meshslm.client import Client

AT_ONCE = 8
ROUNDS = {1: 60, AT_ONCE: 30}
"""Pairs of turns, by streams at a time; with fewer the range of their median is wider than what is
measured. A single first token varies by more than the median of eight."""
TOKENS = 48
ADDED_MS = 5.0
KEPT = 0.97


@dataclass(frozen=True, slots=True)
class Sample:
    """One streamed answer as its client saw it."""

    first_ms: float
    tokens_per_s: float
    gaps_ms: tuple[float, ...]
    """Between two pieces of text."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One or several answers at the same time."""

    first_ms: float
    """Median."""
    tokens_per_s: float
    """Of each stream, on average."""
    gap_ms: float
    """Between two pieces of text, in the middle."""
    cpu_ms: tuple[float, ...]
    """For a token, of each daemon."""


def ask(client: Client, model: str, number: int) -> Sample:
    """Stream one answer and time it."""
    began = time.perf_counter()
    prompt = f"Write a few sentences about the number {number} and what it may stand for."
    with client.stream(prompt, model=model, max_tokens=TOKENS, temperature=0) as stream:
        pieces = [time.perf_counter() for _ in stream]
    made = stream.answer.usage.completion_tokens
    first, last = pieces[0], pieces[-1]
    gaps = tuple((later - earlier) * 1000 for earlier, later in pairwise(pieces))
    speed = (made - 1) / (last - first) if last > first else 0.0
    return Sample((first - began) * 1000, speed, gaps)


def turn(
    client: Client, model: str, first: int, count: int, daemons: Sequence[psutil.Process]
) -> Turn:
    """So many answers at once."""
    before = [_cpu_s(daemon) for daemon in daemons]
    with ThreadPoolExecutor(count) as pool:
        samples = list(pool.map(lambda n: ask(client, model, n), range(first, first + count)))
    taken = [_cpu_s(daemon) - then for daemon, then in zip(daemons, before, strict=True)]
    return Turn(
        median(sample.first_ms for sample in samples),
        sum(sample.tokens_per_s for sample in samples) / count,
        median(gap for sample in samples for gap in sample.gaps_ms),
        tuple(1000 * seconds / (TOKENS * count) for seconds in taken),
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(mesh: Mesh) -> list[Row]:
    """First token and speed, one hop away and at home."""
    return [row for count in ROUNDS for row in _measure(mesh, count)]


def sure(samples: Sequence[float]) -> tuple[float, float]:
    """Where their median lies, 19 times in 20 or more: between two of them, by the sign test."""
    ordered, count = sorted(samples), len(samples)
    outside, below = 0.0, 0
    while below < count // 2:
        outside += 2 * comb(count, below) / 2**count
        if outside > 0.05:
            break
        below += 1
    low = max(0, below - 1)
    return ordered[low], ordered[count - 1 - low]


def _measure(mesh: Mesh, count: int) -> list[Row]:
    model = f"{mesh.hosted_by_b}@{mesh.b.name}"
    local: list[Turn] = []
    hop: list[Turn] = []
    daemons = [psutil.Process(pid) for pid in mesh.pids[:2]]
    with Client(mesh.b.url) as at_home, Client(mesh.a.url) as away:
        for client in (at_home, away):
            turn(client, model, 1_000_000, count, daemons)
        for number in range(ROUNDS[count]):
            sides = [(at_home, local), (away, hop)]
            for client, turns in sides if number % 2 else reversed(sides):
                place = 2 * AT_ONCE * (number * 2 + (client is away)) + count
                turns.append(turn(client, model, place, count, daemons))
    pairs = list(zip(hop, local, strict=True))
    added = [away.first_ms - home.first_ms for away, home in pairs]
    kept = [away.tokens_per_s / home.tokens_per_s for away, home in pairs]
    what = "one stream" if count == 1 else f"{count} streams"
    here, there = (median(t.cpu_ms[daemon] for t in hop) for daemon in (0, 1))
    home = median(t.cpu_ms[1] for t in local)
    return [
        Row(
            f"first token, one hop, {what}",
            spread([t.first_ms for t in hop], "ms"),
            "locally " + spread([t.first_ms for t in local], "ms"),
            f"{median(added):+.1f} ms ({' to '.join(f'{end:+.1f}' for end in sure(added))})",
            f"at most +{ADDED_MS:g} ms",
            median(added) <= ADDED_MS,
        ),
        Row(
            f"tokens/s of each stream, one hop, {what}",
            spread([t.tokens_per_s for t in hop], "/s"),
            "locally " + spread([t.tokens_per_s for t in local], "/s"),
            f"{median(kept):.3f} ({' to '.join(f'{end:.3f}' for end in sure(kept))})",
            f"at least {KEPT}",
            median(kept) >= KEPT,
        ),
        Row(
            f"between two pieces of text, one hop, {what}",
            spread([t.gap_ms for t in hop], "ms"),
            "locally " + spread([t.gap_ms for t in local], "ms"),
        ),
        Row(
            f"processor time of the daemons for a token, {what}",
            f"{here:.2f} ms where it entered, {there:.2f} ms where it is made",
            f"locally {home:.2f} ms",
        ),
    ]
