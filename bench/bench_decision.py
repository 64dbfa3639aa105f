"""How long one choice of who answers takes, with the words of a request and without a vector.

`bench_reading` measures the same where the request is read first.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

from bench.table import Row
from meshslm.chance import Chance
from meshslm.core.candidates import Verdict
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.router import Own, Router
from meshslm.ids import Instant, NodeId
from meshslm.wire.messages import (
    Capability,
    ChatMessage,
    DomainCard,
    EngineLoad,
    Specialist,
    TaskRequest,
)

SIZES: Final = (10, 100, 1000)
"""Known nodes, one specialist each; that in the middle is the one with a bound."""
BOUND_MS: Final = 1.0
ROUNDS: Final = 2000
DOMAINS: Final = ("code", "writing", "maths", "health", "law", "cooking", "travel", "general")
TEXT: Final = "Why does this function raise a type error, and how do I test that it no longer does?"


def measure() -> list[Row]:
    """Each size, with presences that go on coming: every tenth choice sees new loads."""
    return [_row(size, _times_ms(size)) for size in SIZES]


def _times_ms(size: int) -> list[float]:
    directory = Directory({NodeId(f"n{n}"): peer_of(n) for n in range(size)}, cards_version=1)
    own = Own(NodeId("me"), "me", Capability(1, 1), ())
    router = Router(directory, Chance.from_int(1), lambda: own)
    turns = (
        ChatMessage("user", TEXT),
        ChatMessage("assistant", "x" * 400),
        ChatMessage("user", TEXT),
    )
    times = []
    for number in range(ROUNDS):
        router.now = Instant(number * 1000)
        if number % 10 == 0:
            for peer in directory.peers.values():
                peer.loads = loads_of(int(peer.node[1:]), number + int(peer.node[1:]))
        request = TaskRequest("auto", turns, max_tokens=64 + number % 64)
        begun = perf_counter()
        found = router.route(request, [], router.candidates(others=True))
        times.append((perf_counter() - begun) * 1000.0)
        assert isinstance(found, Verdict)
    return sorted(times[ROUNDS // 10 :])


def peer_of(number: int) -> Peer:
    """One of the nodes that are known."""
    domain = DOMAINS[number % len(DOMAINS)]
    card = DomainCard(
        domain, f"All about {domain}.", (f"Tell me about {domain}", f"{domain} please")
    )
    known = Specialist(f"{domain}-small", f"m{domain}", "d", "Q8_0", 4096, 4, (card,))
    return Peer(
        NodeId(f"n{number}"),
        PeerState.ALIVE,
        connected=True,
        name=f"n{number}",
        rtt_ms=1.0 + number % 20,
        capability=Capability(1, 1, (known,)),
        loads=loads_of(number, number),
    )


def loads_of(number: int, step: int) -> tuple[EngineLoad, ...]:
    """The load of a peer at some time."""
    domain = DOMAINS[number % len(DOMAINS)]
    free = step % 5
    return (
        EngineLoad(
            f"m{domain}",
            ready=True,
            running=4 - free,
            queued=3 - free if free < 3 else 0,
            free_slots=free,
            prefill_tps=300.0,
            decode_tps=40.0,
        ),
    )


def _row(size: int, times: list[float]) -> Row:
    p50, p95 = times[len(times) // 2], times[len(times) * 95 // 100]
    bound = size == SIZES[1]
    return Row(
        what=f"a choice among {size:,} nodes, by words: p50 and p95",
        value=f"{p50:.2f} ms, {p95:.2f} ms",
        target=f"p95 at most {BOUND_MS:g} ms" if bound else "",
        reached=p95 <= BOUND_MS if bound else None,
    )
