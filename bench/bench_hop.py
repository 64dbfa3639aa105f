"""One hop through libp2p against asking the serving node itself, over real processes and sockets.

Two requests of the same kind in turn: at the node that hosts the specialist, and at its neighbour,
which passes it on. The prompt differs each time, so that no cache answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from bench.nodes import Mesh
from bench.table import Row, spread
from meshslm.client import Client

ROUNDS = 30
TOKENS = 48


@dataclass(frozen=True, slots=True)
class Sample:
    """One streamed answer as its client saw it."""

    first_ms: float
    tokens_per_s: float


def ask(client: Client, model: str, number: int) -> Sample:
    """Stream one answer and time it."""
    began = time.perf_counter()
    first = last = began
    pieces = 0
    prompt = f"Write a few sentences about the number {number} and what it may stand for."
    with client.stream(prompt, model=model, max_tokens=TOKENS, temperature=0) as stream:
        for _ in stream:
            last = time.perf_counter()
            if pieces == 0:
                first = last
            pieces += 1
    rate = (pieces - 1) / (last - first) if last > first else 0.0
    return Sample((first - began) * 1000, rate)


def measure(mesh: Mesh) -> list[Row]:
    """First token and speed, one hop away and at home."""
    model = f"{mesh.hosted_by_b}@{mesh.b.name}"
    local: list[Sample] = []
    hop: list[Sample] = []
    with Client(mesh.b.url) as at_home, Client(mesh.a.url) as away:
        for client in (at_home, away):
            ask(client, model, -1)
        for number in range(ROUNDS):
            turns = [(at_home, local), (away, hop)]
            for client, samples in turns if number % 2 else reversed(turns):
                samples.append(ask(client, model, number * 2 + (client is away)))
    added = median(s.first_ms for s in hop) - median(s.first_ms for s in local)
    ratio = median(s.tokens_per_s for s in hop) / median(s.tokens_per_s for s in local)
    return [
        Row(
            "first token, one hop",
            spread([s.first_ms for s in hop], "ms"),
            "locally " + spread([s.first_ms for s in local], "ms"),
            f"+{added:.1f} ms",
            "at most +15 ms",
            added <= 15,
        ),
        Row(
            "tokens/s of one stream, one hop",
            spread([s.tokens_per_s for s in hop], "/s"),
            "locally " + spread([s.tokens_per_s for s in local], "/s"),
            f"{ratio:.3f}",
        ),
    ]
