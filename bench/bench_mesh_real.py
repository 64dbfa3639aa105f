"""The mesh as processes: how soon a loss is noticed, how soon a node is in, what all of it costs.

Times of noticing are read from what daemons log. A cut needs machines of their own; those are
namespaces, with wires in this process (`tests/e2e/internet.py`), and are left out where the kernel
gives none.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import psutil

from bench import caller, tcp_echo
from bench.daemons import Daemon, Daemons, Journal, daemons, until
from bench.table import Row, spread
from bench.turns import ratio, say
from tests.e2e.internet import LINK_PORT, Internet, Machine, why_not

FIVE = 5
TIMES = 5
FIRST_S, ALL_S = 3.0, 5.0
JOIN_S = 1.0
CROWD = 20
WINDOWS, WINDOW_S = 4, 10.0
SETTLE_S = 4.0
"""A mesh that has just met is like any other after so long: until then a link that is new gets more
time, as the other side may still be starting."""
IDLE_PERCENT = 1.0
IN_FLIGHT = 32
SMALL_PER_S = 10_000
SMALL_BYTES, SMALL_BACK = 36, 52
"""Of a small question and its answer, as messages."""
LARGE_BYTES = 512 * 1024
LARGE_IN_FLIGHT = 4
CALL_S = 3.0
MIB = 1024 * 1024


def measure() -> list[Row]:
    """All of it."""
    rows: list[Row] = []
    with daemons(FIVE, spare=1) as mesh:
        say("kills and hangs")
        rows.append(_struck(mesh, "its kill -9", _kill_and_restart))
        rows.append(_struck(mesh, "its SIGSTOP", _stop_and_go_on))
        say("joins")
        rows.append(_joined(mesh))
    say("cuts")
    rows.append(_cut())
    say("what the link carries")
    with daemons(1) as alone:
        rows += _carried(alone.all[0])
    say(f"{CROWD} daemons at rest")
    return [*rows, *_resting()]


# --- noticing -----------------------------------------------------------------------------------
def _struck(
    mesh: Daemons, what: str, strike: Callable[[Daemons, Daemon], Callable[[], None]]
) -> Row:
    noticed: list[list[float]] = []
    for _ in range(TIMES):
        victim = mesh.all[FIVE - 1]
        journals = [other.journal for other in mesh.others(victim)]
        time.sleep(SETTLE_S)
        began = time.time()
        mend = strike(mesh, victim)
        noticed.append(_noticed(journals, victim.node, began))
        back = time.time()
        mend()
        until("it is back", mesh.met, victim, back)
    return _row(what, noticed)


def _kill_and_restart(mesh: Daemons, victim: Daemon) -> Callable[[], None]:
    victim.kill()
    return lambda: mesh.start(victim)


def _stop_and_go_on(_mesh: Daemons, victim: Daemon) -> Callable[[], None]:
    victim.signal(signal.SIGSTOP)
    return lambda: victim.signal(signal.SIGCONT)


def _noticed(journals: Sequence[Journal], node: str, began: float) -> list[float]:
    """Seconds until each of them gave the node up."""
    for journal in journals:
        until("it is noticed", _has_noticed, journal, node, began)
    return [journal.times("peer.gone", node, began)[0] - began for journal in journals]


def _has_noticed(journal: Journal, node: str, began: float) -> bool:
    return bool(journal.times("peer.gone", node, began))


def _sees_all(machine: Machine) -> bool:
    return len(machine.sees()) == FIVE - 1


def _cut() -> Row:
    reason = why_not()
    if reason:
        return Row("a cut link is noticed by the others", f"not measured: {reason}")
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder, Internet() as internet:
        machines = [internet.machine(f"m{i}", Path(folder)) for i in range(FIVE)]
        lead = f"/ip4/{machines[0].address}/tcp/{LINK_PORT}"
        for machine in machines:
            words = () if machine is machines[0] else ("--bootstrap", lead)
            machine.start("--no-profiles", *words)
        for machine in machines:
            until("all are known", _sees_all, machine)
        noticed = [_cut_once(internet, machines) for _ in range(TIMES)]
    return _row("the cut of its cable", noticed)


def _cut_once(internet: Internet, machines: list[Machine]) -> list[float]:
    victim, others = machines[-1], machines[:-1]
    (node,) = (
        peer["node"] for peer in victim.get("/mesh/peers")["peers"] if peer["state"] == "self"
    )
    time.sleep(SETTLE_S)
    began = time.time()
    internet.unplug(victim)
    noticed = _noticed([Journal(other.log) for other in others], node, began)
    internet.heal()
    for machine in machines:
        until("it is back", _sees_all, machine)
    return noticed


def _row(what: str, noticed: list[list[float]]) -> Row:
    """Of so many rounds, each with the times of all others."""
    first, every = [min(times) for times in noticed], [max(times) for times in noticed]
    return Row(
        f"{FIVE} processes: one is given up by the others after {what}",
        f"by the first after {median(first):.2f} s (worst {max(first):.2f}), "
        f"by all after {median(every):.2f} s (worst {max(every):.2f}), {len(noticed)} times",
        target=f"first {FIRST_S:g} s, all {ALL_S:g} s",
        reached=max(first) <= FIRST_S and max(every) <= ALL_S,
    )


# --- joining ------------------------------------------------------------------------------------
def _joined(mesh: Daemons) -> Row:
    joined, whole = [], []
    guest = mesh.all[FIVE]
    for _ in range(TIMES):
        began = time.time()
        mesh.start(guest)
        until("it is up", guest.is_up)
        up = time.time()
        until("it is in", mesh.met, guest, began)
        last = max(
            told[0]
            for other in mesh.others(guest)
            for told in (
                other.journal.times("peer.alive", guest.node, began),
                guest.journal.times("peer.alive", other.node, began),
            )
        )
        joined.append(max(0.0, last - up))
        whole.append(last - began)
        guest.kill()
        guest.journal.clear()
        gone = [other.journal for other in mesh.others(guest)]
        _noticed(gone, guest.node, last)
    return Row(
        f"a node joins {FIVE} others over loopback: from up to known by all, and knowing all",
        f"{spread(joined, 's', 2)}; {spread(whole, 's', 2)} from the start of its process",
        target=f"under {JOIN_S:g} s",
        reached=max(joined) < JOIN_S,
    )


# --- what the link carries ----------------------------------------------------------------------
def _carried(daemon: Daemon) -> list[Row]:
    small, large = [], []
    plain_small, plain_large = [], []
    with tcp_echo.echoing() as port:
        for _ in range(TIMES):
            small.append(caller.rate(daemon.address, caller.small, IN_FLIGHT, CALL_S))
            plain_small.append(tcp_echo.rate(port, SMALL_BYTES, SMALL_BACK, IN_FLIGHT, CALL_S))
            question = caller.large(LARGE_BYTES)
            calls = caller.rate(daemon.address, question, LARGE_IN_FLIGHT, CALL_S)
            large.append(calls * LARGE_BYTES / MIB)
            calls = tcp_echo.rate(port, LARGE_BYTES, SMALL_BACK, LARGE_IN_FLIGHT, CALL_S)
            plain_large.append(calls * LARGE_BYTES / MIB)
    return [
        Row(
            f"small requests answered by a node, {IN_FLIGHT} in flight",
            spread(small, "a second", 0),
            f"plain TCP echo {spread(plain_small, 'a second', 0)}",
            f"{ratio(small, plain_small):.3f}",
            f"{SMALL_PER_S:,} a second",
            median(small) >= SMALL_PER_S,
        ),
        Row(
            f"requests of {LARGE_BYTES // 1024} KiB to a node, {LARGE_IN_FLIGHT} in flight",
            spread(large, "MiB/s", 0),
            f"plain TCP {spread(plain_large, 'MiB/s', 0)}",
            f"{ratio(large, plain_large):.3f}",
        ),
    ]


# --- at rest ------------------------------------------------------------------------------------
def _resting() -> list[Row]:
    with daemons(CROWD) as mesh:
        processes = [psutil.Process(d.process.pid) for d in mesh.all if d.process is not None]
        time.sleep(SETTLE_S)
        middle, most = [], []
        for _ in range(WINDOWS):
            shares = _shares(processes)
            middle.append(median(shares))
            most.append(max(shares))
        rss = [process.memory_info().rss / MIB for process in processes]
    return [
        Row(
            f"CPU of an idle daemon among {CROWD}, {WINDOWS} windows of {WINDOW_S:g} s",
            f"{spread(middle, '% of a core', 2)}, the busiest {max(most):.2f} %",
            target=f"under {IDLE_PERCENT:g} %",
            reached=median(middle) < IDLE_PERCENT,
        ),
        Row(f"RSS of an idle daemon among {CROWD}", spread(rss, "MiB", 0)),
    ]


def _shares(processes: Sequence[psutil.Process]) -> list[float]:
    """Percent of a core that each takes in one window."""
    before, began = [_used(process) for process in processes], time.perf_counter()
    time.sleep(WINDOW_S)
    passed = time.perf_counter() - began
    return [
        100 * (_used(process) - used) / passed
        for process, used in zip(processes, before, strict=True)
    ]


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
